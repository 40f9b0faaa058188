"""The benchmark of the related systems' layers: what is compared computes the same, gradients included; it writes its page."""

import pytest
import torch


@pytest.mark.parametrize('name', ['IGC-L24M2', 'IGC-L4M8', 'SumFusion', 'DGConv', 'SharedBasisConv'])
def test_a_layer_and_its_plain_composition_compute_the_same(name):
    from related_layers import make_cases
    case = next(make_cases(name))
    layer = case.layer.double()
    x = torch.rand(1, case.shape[0], 3, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (layer, case.plain):
        layer.zero_grad()
        x.grad = None
        out = function(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in layer.parameters())])
    assert all(value.abs().max() > 0 for value in results[0])
    torch.testing.assert_close(*results)


def test_it_writes_its_section(tmp_path, monkeypatch, capsys):
    import related_layers
    page = tmp_path / 'page.md'
    monkeypatch.setattr('sys.argv', ['related_layers.py', '--layer', 'sumfusion', '--images', '1', '--rounds', '1',
                                     '--docs', str(page)])
    related_layers.main()
    rows = [line for line in page.read_text().splitlines() if line.startswith('| SumFusion')]
    assert len(rows) == 3 == capsys.readouterr().out.count('SumFusion')
    assert all(float(cell) > 0 for row in rows for cell in row.strip('|').split('|')[2:])
