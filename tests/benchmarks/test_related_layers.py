"""The related layers' benchmark: layers and plain compositions agree, gradients included, and the script runs."""

import pytest
import torch

from tests.helpers.torch_versions import HAS_CHANNEL_SHUFFLE_GRADIENT


@pytest.mark.parametrize('name', ['IGC-L24M2', 'IGC-L4M8', 'SumFusion', 'DGConv', 'SharedBasisConv'])
def test_layer_matches_its_plain_composition(name):
    from related_layers import make_cases
    if name.startswith('IGC') and not HAS_CHANNEL_SHUFFLE_GRADIENT:
        pytest.skip(f'torch {torch.__version__} < 2.3: channel_shuffle has no gradient')
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


def test_script_writes_a_csv_file(tmp_path, monkeypatch):
    import related_layers
    from reporting import read_csv
    path = tmp_path / 'related.csv'
    monkeypatch.setattr('sys.argv', ['related_layers.py', '--layer', 'sumfusion', '--quick', '--csv', str(path)])
    related_layers.main()
    rows = read_csv(path)
    assert len(rows) == 3 * 2 * 2 * 2  # stages, dtypes, formats, passes
    assert all(float(row['times plain']) > 0 for row in rows)
