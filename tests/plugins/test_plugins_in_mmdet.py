"""TiedSE and TiedGCB through the ``plugins`` setting of mmdet's ResNet: every position, every stage."""

import pytest
import torch
from mmengine.registry import DefaultScope

import mmtied  # noqa: F401
from mmtied.plugins import TiedGCB, TiedSE

PLUGINS = {'TiedSE': TiedSE, 'TiedGCB': TiedGCB}


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    pytest.importorskip('mmdet.models')
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.parametrize('stages', [tuple(stage == index for stage in range(4)) for index in range(4)], ids=str)
@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
@pytest.mark.parametrize('name', PLUGINS)
def test_plugin_in_mmdet_resnet(name, position, stages):
    from mmdet.registry import MODELS
    plugin = {'cfg': {'type': name, 'num_blocks': 4}, 'stages': stages, 'position': position}
    model = MODELS.build({'type': 'ResNet', 'depth': 50, 'base_channels': 16, 'stem_channels': 16, 'plugins': [plugin],
                          'norm_eval': False})
    model.init_weights()
    found = [{type(module) for module in getattr(model, layer).modules()} & set(PLUGINS.values()) for layer in model.res_layers]
    assert found == [{PLUGINS[name]} if stage else set() for stage in stages]
    model.train()
    sum(level.square().mean() for level in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_tied_gcb_in_mmdet_resnet50():
    """The plugin adds the parameters of Table 4 and starts as the identity."""
    from mmdet.registry import MODELS
    plugins = [{'cfg': {'type': 'mmtied.TiedGCB', 'ratio': 1 / 4, 'num_blocks': 2}, 'stages': (False, True, True, True),
                'position': 'after_conv3'}]
    plain, model = (MODELS.build({'type': 'ResNet', 'depth': 50, 'plugins': chosen}) for chosen in (None, plugins))
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert round(added / 1e6, 2) == 2.52
    model.init_weights()
    plain.load_state_dict(model.state_dict(), strict=False)
    for network in (model, plain):
        network.eval()
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(mine, other) for mine, other in zip(model(x), plain(x), strict=True))
