"""The configs against the table, and generated files against the code."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmtied  # noqa: F401
from mmtied.analysis.complexity import Complexity, count_parameters
from mmtied.analysis.metafile import render_metafile
from mmtied.analysis.model_zoo import SYSTEMS, measure_attention, measure_networks, measure_systems, render_page
from mmtied.analysis.published import ATTENTION, DETECTORS, NETWORKS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
BY_NAME = {network.name: network for network in NETWORKS}


@pytest.mark.slow
def test_generated_files_are_up_to_date():
    """Every network is built and counted anew."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    sizes, attention, systems = measure_networks(), measure_attention(), measure_systems(CONFIGS)
    advice = 'stale: run python tools/model_table.py'
    assert (ROOT / 'docs/model_zoo.md').read_text() == render_page(sizes, attention, CONFIGS, systems), advice
    assert (CONFIGS / 'metafile.yml').read_text() == render_metafile(sizes, attention, CONFIGS, systems), advice


def test_every_config_is_in_the_table():
    files = {str(path.relative_to(CONFIGS).with_suffix('')) for folder in (CONFIGS, CONFIGS / 'imagenet', CONFIGS / 'cifar')
             for path in folder.glob('*.py')}
    named = {f'imagenet/{network.config}' for network in NETWORKS} | {detector.config for detector in DETECTORS}
    named |= {row.config for system in SYSTEMS for row in (*system.networks, *system.detectors)}
    assert files <= named
    assert {row.config for row in ATTENTION} <= named


@pytest.mark.parametrize('network', [n for n in NETWORKS if (CONFIGS / f'imagenet/{n.config}.py').is_file()],
                         ids=lambda network: network.config)
def test_imagenet_configs_build_the_networks_of_the_table(network):
    pytest.importorskip('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = Config.fromfile(CONFIGS / f'imagenet/{network.config}.py')
        theirs = MODELS.build(cfg.model.backbone)
    assert count_parameters(theirs) == count_parameters(MODELS.build(dict(network.backbone)))
    assert cfg.model.head.in_channels == network.channels


@pytest.mark.parametrize('detector', [d for d in DETECTORS if (CONFIGS / f'{d.config}.py').is_file()],
                         ids=lambda detector: detector.config)
def test_detection_configs_use_the_backbones_of_the_table(detector):
    pytest.importorskip('mmdet')
    name, _, module = detector.backbone.partition(' + ')
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg = Config.fromfile(CONFIGS / f'{detector.config}.py')
        theirs = count_parameters(MODELS.build(cfg.model.backbone))
    expected = {(row.network, row.module): row.backbone for row in ATTENTION}[name, module] if module else BY_NAME[name].backbone
    assert theirs == count_parameters(MODELS.build(dict(expected)))
    if detector.schedule:
        assert cfg.train_cfg.max_epochs == {'1x': 12, '20e': 20, '2x': 24}[detector.schedule]


def test_a_page_without_configs_names_none_and_says_what_differs(tmp_path):
    sizes = {network.name: Complexity(21_950_000, 4_260_000_000) for network in NETWORKS}
    attention = {(row.network, row.module): 650_000 for row in ATTENTION}
    page = render_page(sizes, attention, tmp_path)
    assert '../configs' not in page
    assert '| TiedResNet-50 | 1, 5, 6 | 22.0M | 21.95M | -0.2 % | 4.4G | 4.26G | -3.2 % | 77.6 | - |' in page
    assert '| TiedSENet-50 (3) | - | - | 21.95M | - | - | 4.26G | - | - | - |' in page
    assert '| ResNet-50 | TiedGCB B = 4 (12) | 4 | 1.3M | 0.65M | -50.0 % | - |' in page
    assert 'Models: []' in render_metafile(sizes, attention, tmp_path)
