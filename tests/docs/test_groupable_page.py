"""docs/groupable_convolution.md: snippets run and numbers are correct."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import HOOKS, MODELS, DefaultScope

from mmtied.backbones import GResNeXt
from mmtied.launch.config import load_config
from mmtied.layers import DGConv
from mmtied.related.groupable.layers import gated_layers
from mmtied.training.loss_hook import attach
from tests.helpers.detectors import two_images, use_small_heads
from tests.helpers.pages import named_configs, read_page, snippets

PAGE = read_page('groupable_convolution.md')
CONFIGS = named_configs(PAGE)
SCRIPTS = [block for block in snippets(PAGE) if block.startswith('from')]


def test_every_block_is_tested():
    assert (len(CONFIGS), len(SCRIPTS), PAGE.count('```python')) == (3, 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds_and_trains(name, tmp_path, monkeypatch, quick_init):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(CONFIGS[name])
    cfg = load_config(name)
    use_small_heads(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        assert len(gated_layers(model)) == (8 if 'fpn' in name else 16)
        for layer in gated_layers(model).values():
            torch.nn.init.ones_(layer.gates)
        hook, _ = (HOOKS.build(cfg.default_hooks[name]) for name in ('resource', 'history'))
        hook.check_model(model)
        attach(hook, model)
        batch = model.data_preprocessor(two_images(model, cfg.default_scope), True)
        loss, log = model.parse_losses(model(**batch, mode='loss'))
    assert log['zeta'] > log['zeta_bound']
    assert log['resource_factor'] > 1
    loss.backward()
    assert all(layer.gates.grad is not None for layer in gated_layers(model).values())


def test_script(quick_init):
    names = {}
    exec(SCRIPTS[0], names)
    assert not any(isinstance(module, DGConv) for module in names['resnext'].modules())
    x = torch.rand(1, 3, 64, 64)
    for level, theirs in zip(names['resnext'].eval()(x), names['model'].eval()(x), strict=True):
        torch.testing.assert_close(level, theirs)


def test_sizes_in_table():
    rows = re.findall(r'^\| `GResNeXt\((\d+)\)` \| ([\d.]+)M \| at most ([\d.]+)M \|', PAGE, re.MULTILINE)
    assert len(rows) == 2
    for depth, dense, active in rows:
        with torch.device('meta'):
            for model, millions in ((GResNeXt(int(depth)), dense), (GResNeXt(int(depth), groups=32), active)):
                assert f'{(sum(p.numel() for p in model.parameters()) + 2049000) / 1e6:.2f}' == millions
            bound = sum(layer.in_channels**2 for layer in gated_layers(GResNeXt(int(depth))).values()) / 32
        assert sum(block.grouped.conv.weight.numel() / 9 for stage in model.stage_names
                   for block in getattr(model, stage)) == bound
