"""docs/interleaved_group_convolution.md: snippets run and numbers are correct."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from model_zoo_page import COUNTS

import mmtied.backbones as backbones
from mmtied.analysis.complexity import ImageNetClassifier
from mmtied.launch.config import load_config
from mmtied.layers import IGC
from tests.helpers.pages import named_configs, read_page, snippets

PAGE = read_page('interleaved_group_convolution.md')
SNIPPETS = snippets(PAGE)
CONFIGS = named_configs(PAGE)
SIZES = [[cell.strip() for cell in line.strip('|').split('|')] for line in PAGE.splitlines() if '| `IGCNet' in line]


def test_every_block_is_tested():
    assert (len(SNIPPETS), len(CONFIGS), len(SIZES)) == (4, 3, 8)


def test_layer_snippet():
    exec(SNIPPETS[0], {})


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build(name, tmp_path, monkeypatch):
    for package in ('mmdet', 'mmpretrain'):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(CONFIGS[name])
    cfg = load_config(name)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert any(isinstance(module, IGC) for module in (model.neck if 'fpn' in name else model.backbone).modules())
    x = torch.rand(1, 3, 64, 64)
    outputs = model(x, mode='tensor') if 'cifar' in name else model.extract_feat(x)
    assert outputs[0].isfinite().all()


@pytest.mark.parametrize(('name', 'build', 'printed', 'convolutions', 'norms', 'layers', 'everything'), SIZES)
def test_sizes(name, build, printed, convolutions, norms, layers, everything):
    with torch.device('meta'):
        model = eval(build.strip('`'), {name: getattr(backbones, name) for name in ('IGCNet', 'IGCNetCIFAR')})
        channels = getattr(model, model.stage_names[-1])[-1].exit.conv.out_channels
        classes = 1000 if 'CIFAR' not in build else 100 if '832' in build else 10
        classifier = ImageNetClassifier(model, channels, classes)
    computed = [COUNTS[count](classifier) / 1e6 for count in ('backbone layers', 'backbone', 'layers', 'all')]
    cells = (convolutions, norms, layers, everything)
    assert [f'{value:.3f}' for value in computed] == [cell.strip('*') for cell in cells]
    bold = [value for value, cell in zip(computed, cells, strict=True) if cell.startswith('**')]
    if 'L16M16' in name:
        assert not bold  # cannot be met
        return
    bold, = bold
    digits = len(printed.partition('.')[2])
    assert f'{bold:.{digits}f}' == printed or bold == pytest.approx(float(printed), rel=3e-3)
