"""docs/tied_resnet.md: numbers are correct."""

import re
from pathlib import Path

import pytest
import torch

import mmtied.backbones as backbones
from tests.helpers.pages import ROOT, read_page

PAGE = read_page('tied_resnet.md')
FAMILY = re.findall(r'^\| [^|]+ \| `(\w+)\((.*?)\)` \| (.*?) \| ([\d.]+)M \|$', PAGE, re.MULTILINE)


def test_family_table_is_complete():
    assert len(FAMILY) == 14


@pytest.mark.parametrize(('name', 'settings', 'splits', 'millions'), FAMILY, ids=lambda text: text[:30])
def test_family_sizes(name, settings, splits, millions):
    with torch.device('meta'):
        model = eval(f'build({settings})', {'build': getattr(backbones, name)})
    assert f'{(sum(p.numel() for p in model.parameters()) + 2049000) / 1e6:.2f}' == millions
    if described := re.match(r'(\d) of width (\d+)(?: in (\d) groups)?, B = ([\d, ]+)', splits):
        convs = model.layer1[0].splits.convs
        number, width, groups, blocks = described.groups()
        assert [conv.num_blocks for conv in convs] == [int(b) for b in blocks.split(', ')]
        assert {(conv.in_channels, conv.groups) for conv in convs} == {(int(width), int(groups or 1))}
        assert len(convs) == int(number)


def test_block_in_figure():
    def weights(block) -> int:
        return sum(p.numel() for p in block.parameters() if p.dim() > 1)

    plain = pytest.importorskip('mmdet.models.backbones').ResNet(50)
    assert f'{weights(backbones.TiedResNet(50).layer1[1]):,} weights' in PAGE.replace('\n', ' ')
    assert f"ResNet-50's has {weights(plain.layer1[1]):,}" in PAGE.replace('\n', ' ')


def test_drawing_is_current(tmp_path):
    """Compare texts only; letter outlines depend on matplotlib's release."""
    pytest.importorskip('matplotlib')
    import runpy
    runpy.run_path(str(ROOT / 'docs/figures/tied_bottleneck.py'))['draw'](tmp_path / 'new.svg')

    def texts(path: Path) -> list[str]:
        return re.findall(r'<!-- (.*?) -->', path.read_text(encoding='utf-8'))

    committed = ROOT / 'docs/images/tied_bottleneck.svg'
    assert len(texts(committed)) > 30
    assert texts(tmp_path / 'new.svg') == texts(committed)
