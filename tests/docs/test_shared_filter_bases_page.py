"""docs/shared_filter_bases.md: snippets run and numbers are correct."""

import re
from pathlib import Path

import pytest
from mmengine.registry import HOOKS, MODELS, DefaultScope

import mmtied.backbones as backbones
from mmtied.analysis.published import load_paper
from mmtied.launch.config import load_config
from tests.helpers.pages import named_configs, read_page, snippets

PAGE = read_page('shared_filter_bases.md')
SNIPPETS = snippets(PAGE)
CONFIGS = named_configs(PAGE)
SIZES = re.findall(r'^\| [^|]+ \| `(\w+)\((.*?)\)` \| ([\d.]+)M \|$', PAGE, re.MULTILINE)
RELEASED = re.findall(r'^\| [^|]+ \| ([\d.]+) \| `(imagenet/\w+)` \| `\w+\((.*?)\)` \|$', PAGE, re.MULTILINE)


def test_every_block_is_tested():
    assert (len(SNIPPETS), set(CONFIGS), len(SIZES), len(RELEASED)) == (
        5, {'retinanet_sharedr50.py', 'sharedr34_s48u1.py'}, 7, 6)


def test_layers_snippet():
    scope = {}
    exec(SNIPPETS[0], scope)
    assert [name for name, _ in scope['network'].named_parameters()].count('basis.weight') == 1


def test_hook_snippet():
    scope = {}
    exec(SNIPPETS[1], scope)
    hook = HOOKS.build(scope['default_hooks']['orthogonality'])
    assert (hook.weight, hook.mean_weight) == (None, 10)


def test_gradient_hook_snippet():
    scope = {}
    exec(SNIPPETS[2], scope)
    assert [type(HOOKS.build(hook)).__name__ for hook in scope['custom_hooks']] == ['OrthogonalityHook', 'BasisGradientHook']


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build(name, tmp_path, monkeypatch):
    for package in ('mmdet', 'mmpretrain'):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(CONFIGS[name])
    cfg = load_config(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        HOOKS.build(cfg.default_hooks.orthogonality).check_model(model)
    assert isinstance(model.backbone, backbones.SharedResNet)


@pytest.mark.parametrize(('name', 'settings', 'millions'), SIZES)
def test_sizes(name, settings, millions):
    if name == 'shared_mobilenet_v2':
        pytest.importorskip('mmpretrain')
    model = eval(f'build({settings})', {'build': getattr(backbones, name)})
    channels = 1280 if name == 'shared_mobilenet_v2' else 512 * model.expansion
    assert f'{(sum(p.numel() for p in model.parameters()) + 1000 * channels + 1000) / 1e6:.2f}' == millions


@pytest.mark.parametrize(('error', 'config', 'settings'), RELEASED)
def test_released_networks_are_the_configs(error, config, settings):
    """The table's backbone is the config's, and its error the one that Table 1 prints."""
    pytest.importorskip('mmpretrain')
    backbone = load_config(f'configs/{config}.py').model.backbone
    wanted = eval(f'build({settings})', {'build': lambda depth=None, **others: {**({'depth': depth} if depth else {}), **others}})
    assert {key: backbone[key] for key in wanted} == wanted
    row = next(row for row in load_paper('shared_filter_bases').networks if row.config == config)
    assert f'{row.error:.2f}' == error
