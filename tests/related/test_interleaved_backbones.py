"""Networks of interleaved group convolutions: the outputs of an ordinary ResNet with composed kernels, and mmdet's settings.

tests/analysis/test_model_zoo.py tests their printed sizes.
"""

import copy
import math
import pickle

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmtied.backbones import IGCNet, IGCNetCIFAR
from mmtied.layers import IGC
from tests.helpers.families import recomputing

BY_PRIMARY = {'type': 'IGC', 'num_primary': 4}


def small(cls: type = IGCNet, **settings) -> nn.Module:
    """A network of few channels, with random statistics in its normalizations so that none of them is the identity."""
    model = cls(**{'base_channels': 16, **({'conv_cfg': BY_PRIMARY} if cls is IGCNetCIFAR else {}), **settings})
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.mark.parametrize('conv_cfg', [BY_PRIMARY, {'type': 'IGC', 'num_secondary': 2}, {'type': 'IGC'}, None], ids=str)
def test_equals_resnet_with_composed_kernels(conv_cfg):
    pytest.importorskip('mmdet')
    from mmdet.models.backbones import ResNet
    model = small(conv_cfg=conv_cfg, shortcut_groups=4).double().eval()
    theirs = ResNet(18, base_channels=16, stem_channels=16).double()
    theirs.conv1.weight.data.copy_(model.stem.conv.weight)
    theirs.bn1.load_state_dict(model.stem.bn.state_dict())
    for layer in model.stage_names:
        for ours, block in zip(getattr(model, layer), getattr(theirs, layer), strict=True):
            for name, conv, norm in (('entry', 'conv1', 'bn1'), ('exit', 'conv2', 'bn2')):
                source = getattr(ours, name).conv
                weight = source.composed_weight() if isinstance(source, IGC) else source.weight
                getattr(block, conv).weight.data.copy_(weight)
                getattr(block, norm).load_state_dict(getattr(ours, name).bn.state_dict())
            if block.downsample is not None:
                grouped = ours.shortcut.conv
                dense = torch.zeros_like(block.downsample[0].weight)
                for rows, columns in zip(torch.arange(grouped.out_channels).chunk(4), torch.arange(grouped.in_channels).chunk(4),
                                         strict=True):
                    dense[rows[:, None], columns] = grouped.weight[rows]
                block.downsample[0].weight.data.copy_(dense)
                block.downsample[1].load_state_dict(ours.shortcut.bn.state_dict())
    theirs.train(False)
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    for ours, expected in zip(model(x), theirs(x), strict=True):
        torch.testing.assert_close(ours, expected)


def test_blocks_without_identity_mapping():
    model = small(IGCNetCIFAR, depth=14).double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = model.stem(x)
    for layer in model.stage_names:
        for block in getattr(model, layer):
            assert isinstance(block.shortcut, nn.Identity)
            for part in (block.entry, block.exit):
                expected = part.conv(expected)
                expected = torch.relu(part.bn(expected))
    out, = model(x)
    torch.testing.assert_close(out, expected)
    assert out.shape == (2, 64, 8, 8)
    residual = small(IGCNetCIFAR, depth=14, identity=True).double().eval()
    residual.load_state_dict(model.state_dict())  # a shortcut without parameters
    block = residual.layer2[0]
    y = torch.rand(1, 16, 8, 8, dtype=torch.float64)
    plain = model.layer2[0].exit(model.layer2[0].entry(y))
    plain[:, :16] += y[:, :, ::2, ::2]
    torch.testing.assert_close(block(y), torch.relu(plain))


@pytest.mark.parametrize(('make', 'partitions'), [
    (lambda: IGCNet(), [(100, 2), (200, 2), (400, 2), (800, 2)]),
    (lambda: IGCNet(base_channels=128, conv_cfg=BY_PRIMARY), [(4, 32), (4, 64), (4, 128), (4, 256)]),
    (lambda: IGCNetCIFAR(), [(24, 2), (24, 4), (24, 8)])])
def test_partitions_of_each_stage(make, partitions):
    with torch.device('meta'):
        model = make()
    for layer, expected in zip(model.stage_names, partitions, strict=True):
        for block in getattr(model, layer):
            assert block.entry.conv.partitions == block.exit.conv.partitions == expected


def test_initializes_by_fan_in():
    """Kaiming's normal distribution; a residual block starts as the identity, a plain one does not."""
    torch.manual_seed(0)
    model = IGCNetCIFAR(20, identity=True)
    model.init_weights()
    layer = model.layer3[1].entry.conv
    for conv, fan_in in ((layer.primary, 8 * 9), (layer.secondary, 24)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert not model.layer1[0].last_norm.weight.any()
    plain = IGCNetCIFAR(20)
    plain.init_weights()
    assert plain.layer1[0].last_norm.weight.all()


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_checkpoints(duplicate):
    model = small().eval()
    x = torch.rand(1, 3, 64, 64)
    for other in (duplicate(model), small().eval()):
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other(x), model(x))
    with pytest.raises(ValueError, match=r'the checkpoint does not fit'):
        small(conv_cfg=BY_PRIMARY).load_state_dict(model.state_dict(), strict=False)


def test_channels_last_keeps_outputs():
    for base_channels in (16, 264):  # a dense secondary convolution, and shuffles
        model = small(base_channels=base_channels, num_stages=1, out_indices=(0, )).double().eval()
        x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
        expected, = model(x)
        out, = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(out, expected)
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_frozen_stages_and_norm_eval():
    model = small(frozen_stages=2, norm_eval=True).train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(('stem', 'layer1', 'layer2'))), name
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@recomputing
def test_with_cp_keeps_gradients_and_statistics(with_cp):
    plain = small()
    cheap = small(with_cp=with_cp)
    cheap.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    for model in (plain, cheap):
        sum(level.mean() for level in model.train()(x)).backward()
    for (name, ours), (_, theirs) in zip(cheap.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name, rtol=1e-3, atol=1e-5)
    for (name, ours), theirs in zip(cheap.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize('settings', [
    {'deep_stem': True, 'avg_down': True}, {'avg_down': True, 'shortcut_groups': 2}, {'depth': 34}, {'identity': False},
    {'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2)}, {'num_stages': 3, 'out_indices': (2, )},
    {'norm_cfg': {'type': 'GN', 'num_groups': 4}}, {'conv_cfg': {'type': 'TBC', 'num_blocks': 2}},
    {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv2'}]}], ids=str)
def test_mmdet_settings(settings):
    model = small(**settings).eval()
    levels = model(torch.rand(1, 3, 64, 64))
    for index, level in zip(model.out_indices, levels, strict=True):
        assert level.shape[1] == 16 * 2**index
        size = 64 // 2**(index + 2)
        assert level.shape[2] == (size * 2 if 'dilations' in settings and index == 3 else size)


@pytest.mark.parametrize('conv_cfg', [BY_PRIMARY, {'type': 'SumFusion', 'num_branches': 4}, {'type': 'Conv2d'}], ids=str)
def test_trains_in_a_classifier(conv_cfg):
    pytest.importorskip('mmpretrain')
    from mmpretrain.structures import DataSample
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # a Runner of another test may have set one
        model = MODELS.build({
            'type': 'mmpretrain.ImageClassifier',
            'backbone': {'type': 'mmtied.IGCNetCIFAR', 'depth': 8, 'base_channels': 8, 'conv_cfg': conv_cfg},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': 5, 'in_channels': 32}})
    images = torch.rand(2, 3, 32, 32)
    loss = model(images, [DataSample().set_gt_label(1)] * 2, mode='loss')['loss']
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model(images, mode='tensor').shape == (2, 5)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: IGCNet(50), 'depth=50, expected one of 18, 34'),
    (lambda: IGCNetCIFAR(9), 'depth=9, expected one of 8, 14, 20'),
    (lambda: IGCNet(base_channels=0), 'base_channels=0, expected a positive integer'),
    (lambda: IGCNet(base_channels=30, conv_cfg=BY_PRIMARY),
     'IGC: out_channels=30 is not divisible by num_primary=4; use one of'),
    (lambda: IGCNet(base_channels=64, shortcut_groups=5), 'base_channels=64 is not divisible by shortcut_groups=5; use one of'),
    (lambda: IGCNet(style='caffe'), "style='caffe', expected 'pytorch'"),
    (lambda: IGCNet(plugins=[{'cfg': {'type': 'ContextBlock'}, 'position': 'after_conv3'}]),
     "plugin position 'after_conv3', expected one of after_conv1, after_conv2$"),
    (lambda: IGCNetCIFAR(deep_stem=True), 'deep_stem=True, expected False'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
