"""G-ResNeXt: mmdet's ResNeXt with other 3x3 convolutions, and the settings common to all backbones."""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmtied.backbones import GResNeXt
from mmtied.layers import DGConv
from mmtied.related.groupable.layers import gated_layers
from tests.helpers.families import recomputing


def small(**settings) -> GResNeXt:
    return GResNeXt(**{'depth': 50, 'base_channels': 8, **settings})


def gates_for(layer: DGConv, groups: int) -> None:
    """Close the first gates, which gives groups of adjacent channels as in ResNeXt."""
    closed = groups.bit_length() - 1
    layer.gates.data.fill_(1)
    layer.gates.data[:closed] = -1
    assert layer.group_number == groups


@pytest.mark.parametrize('depth', [50, 101])
def test_replaces_every_3x3_convolution_of_resnext(depth):
    """Table 1: the widths, strides and places of ResNeXt-32x4d's grouped convolutions."""
    theirs = pytest.importorskip('mmdet.models.backbones').ResNeXt(depth=depth, groups=32, base_width=4)
    with torch.device('meta'):
        ours = GResNeXt(depth)
    expected = [conv for conv in theirs.modules() if isinstance(conv, nn.Conv2d) and conv.groups == 32]
    layers = list(gated_layers(ours).values())
    assert [(c.in_channels, c.out_channels, c.stride, c.kernel_size) for c in layers] == [
        (c.in_channels, c.out_channels, c.stride, c.kernel_size) for c in expected]
    others = sum(p.numel() for p in theirs.parameters()) - sum(c.weight.numel() for c in expected)
    assert sum(p.numel() for p in ours.parameters()) - sum(p.numel() for c in layers for p in c.parameters()) == others


@pytest.mark.parametrize('learned', [True, False])
def test_equals_mmdet_resnext_with_32_groups(learned):
    """The same weights give the same outputs, with 32 groups from gates or from the argument."""
    theirs = pytest.importorskip('mmdet.models.backbones').ResNeXt(depth=50, groups=32, base_width=4)
    theirs.eval()
    ours = GResNeXt(50, groups=None if learned else 32).eval()
    names = {'conv1': 'stem.conv', 'bn1': 'stem.bn'}
    for old, new in (('conv1', 'entry.conv'), ('bn1', 'entry.bn'), ('conv2', 'grouped.conv'), ('bn2', 'grouped.bn'),
                     ('conv3', 'exit.conv'), ('bn3', 'exit.bn'), ('downsample.0', 'shortcut.conv'),
                     ('downsample.1', 'shortcut.bn')):
        names |= {f'{block}.{old}': f'{block}.{new}' for block in (f'layer{s}.{b}' for s in range(1, 5) for b in range(6))}
    modules = dict(ours.named_modules())
    for name, module in theirs.named_modules():
        if name not in names:
            continue
        mine = modules[names[name]]
        if isinstance(mine, DGConv):
            gates_for(mine, 32)
            width = mine.in_channels // 32
            mine.weight.data.fill_(7)  # weights outside the groups must not matter
            for group in range(32):
                part = slice(group * width, (group + 1) * width)
                mine.weight.data[part, part] = module.weight.data[part]
        else:
            mine.load_state_dict(module.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for level, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('settings', [
    {}, {'depth': 101, 'out_indices': (3, )}, {'style': 'caffe'}, {'deep_stem': True, 'avg_down': True},
    {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)}, {'num_stages': 2, 'out_indices': (0, 1), 'in_channels': 1},
    {'norm_cfg': {'type': 'GN', 'num_groups': 2}}, {'base_width': 64}, {'groups': 4},
    {'groups': (1, 2, 4, 8) * 4},
    {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv2'}]},
], ids=str)
def test_builds_and_trains(settings):
    model = small(**settings)
    model.init_weights()
    levels = model(torch.randn(2, settings.get('in_channels', 3), 64, 64))
    sizes = (16, 8, 8, 8) if 'dilations' in settings else (16, 8, 4, 2)
    indices = settings.get('out_indices', (0, 1, 2, 3))
    assert [tuple(level.shape) for level in levels] == [(2, 32 * 2**i, sizes[i], sizes[i]) for i in indices]
    sum(level.square().mean() for level in levels).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert bool(gated_layers(model)) == ('groups' not in settings)


def test_given_groups_reach_their_blocks():
    groups = (1, 2, 4, 8) * 4
    model = small(groups=groups)
    assert tuple(block.grouped.conv.groups for name in model.stage_names for block in getattr(model, name)) == groups
    assert type(model.layer1[0].grouped.conv) is nn.Conv2d


def test_initialization_keeps_the_gates():
    model = small()
    before = {name: layer.gates.clone() for name, layer in gated_layers(model).items()}
    model.init_weights()
    for name, layer in gated_layers(model).items():
        assert torch.equal(layer.gates, before[name])
        assert layer.gates.abs().max() == torch.tensor(1e-8)


def test_frozen_stages_and_norm_eval():
    model = small(frozen_stages=2, norm_eval=True).train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(('stem', 'layer1', 'layer2'))), name
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@recomputing
def test_with_cp_keeps_gradients(with_cp):
    plain, cheap = small(norm_eval=True, zero_init_residual=False), small(norm_eval=True, with_cp=with_cp)
    cheap.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    for model in (plain, cheap):
        sum(level.square().mean() for level in model.train()(x)).backward()
    for (name, ours), theirs in zip(cheap.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name, rtol=1e-4, atol=1e-5)


def test_channels_last_copies_and_pickles():
    model = small().eval()
    x = torch.rand(2, 3, 64, 64)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)),
                  copy.deepcopy(model).to(memory_format=torch.channels_last)):
        for level, theirs in zip(other(x), expected, strict=True):
            torch.testing.assert_close(level, theirs, atol=1e-4, rtol=1e-4)


def test_rejects_checkpoint_without_gates(tmp_path):
    weights = {key: value for key, value in small().state_dict().items() if not key.endswith('gates')}
    torch.save(weights, tmp_path / 'weights.pth')
    model = small(init_cfg={'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')})
    with pytest.raises(ValueError, match=r'does not fit \(layer1.0.grouped.conv.gates is missing'):
        model.init_weights()


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_registered_in_every_scope(scope):
    registry = pytest.importorskip(f'{scope}.registry').MODELS
    for name in ('GResNeXt', 'mmtied.GResNeXt'):
        assert type(registry.build({'type': name, 'base_channels': 8})) is GResNeXt


def test_trains_in_a_classifier():
    pytest.importorskip('mmpretrain')
    from mmpretrain.structures import DataSample
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({
            'type': 'ImageClassifier', 'neck': {'type': 'GlobalAveragePooling'},
            'backbone': {'type': 'mmtied.GResNeXt', 'base_channels': 8, 'out_indices': (3, )},
            'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 256}})
    images = torch.rand(2, 3, 64, 64)
    model(images, [DataSample().set_gt_label(1)] * 2, mode='loss')['loss'].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model(images, mode='tensor').shape == (2, 5)


@pytest.mark.parametrize(('settings', 'message'), [
    ({'depth': 49}, 'GResNeXt: depth=49, expected one of 50, 101, 152'),
    ({'depth': 49, 'groups': 4}, 'GResNeXt: depth=49, expected one of 50, 101, 152'),
    ({'groups': '32'}, "groups='32', expected None, a positive integer, or one for each block"),
    ({'groups': 32, 'depth': [50]}, r'depth=\[50\], expected one of 50, 101, 152'),
    ({'groups': (4, 4)}, 'groups has 2 values, expected one for each of the 16 blocks, or one number for all'),
    ({'groups': 3}, 'a block of width 16 is not divisible by groups=3; use one of 1, 2, 4, 8, 16'),
    ({'groups': 0}, 'groups=0, expected a positive integer'),
    ({'base_width': 3}, 'base_width=3 at 8 base channels gives a width of 0.375;'),
    ({'base_width': 0}, 'base_width=0, expected a positive integer'),
])
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)
