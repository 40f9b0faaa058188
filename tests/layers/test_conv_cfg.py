"""Tied convolutions wherever mmcv and mmdet build a convolution."""

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmdet.models.backbones import MobileNetV2, ResNet
from mmdet.models.necks import FPN

import mmtied  # noqa: F401
from mmtied.analysis.complexity import describe_tying
from mmtied.layers import TBC, TGC


def test_build_conv_layer():
    layer = build_conv_layer({'type': 'TBC', 'num_blocks': 4}, 16, 32, 3, padding=1, bias=False)
    assert isinstance(layer, TBC)
    assert layer.weight.shape == (8, 4, 3, 3)
    assert isinstance(build_conv_layer({'type': 'mmtied.TGC', 'num_blocks': 2}, 16, 32, 3, groups=4), TGC)


def test_conv_module_initializes_with_the_tied_fan_out():
    module = ConvModule(64, 512, 3, padding=1, conv_cfg={'type': 'TBC', 'num_blocks': 2}, norm_cfg={'type': 'BN'})
    assert module(torch.randn(2, 64, 6, 6)).shape == (2, 512, 6, 6)
    expected = (2 / (256 * 9))**0.5  # Kaiming normal, fan_out of the thin filter
    assert module.conv.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_fpn_with_tied_convolutions():
    neck = FPN([64, 128], 32, num_outs=3, conv_cfg={'type': 'TBC', 'num_blocks': 2})
    neck.init_weights()
    assert all(isinstance(conv.conv, TBC) for conv in [*neck.lateral_convs, *neck.fpn_convs])
    fan = 16 * 9  # Xavier uniform reaches tied convolutions too: bound sqrt(6 / (fan_in + fan_out))
    assert neck.fpn_convs[0].conv.weight.abs().max().item() == pytest.approx((6 / (2 * fan))**0.5, rel=0.02)
    levels = neck((torch.randn(1, 64, 8, 8), torch.randn(1, 128, 4, 4)))
    assert [tuple(level.shape) for level in levels] == [(1, 32, 8, 8), (1, 32, 4, 4), (1, 32, 2, 2)]


def test_mmdet_resnet_with_tied_convolutions():
    """Every convolution has B * B times fewer weights, except the first, which sees the image's 3 channels."""
    tied = ResNet(18, conv_cfg={'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'})
    plain = ResNet(18)
    assert tied.conv1.weight.shape == plain.conv1.weight.shape
    for name, conv in plain.named_modules():
        if isinstance(conv, torch.nn.Conv2d) and name != 'conv1':
            assert tied.get_submodule(name).weight.numel() * 4 == conv.weight.numel()
    levels = tied(torch.randn(2, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


@pytest.mark.parametrize(('cfg', 'groups', 'blocks'), [
    ({'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'}, 4, 1),
    ({'type': 'TGC', 'num_blocks': 2, 'indivisible': 'untie'}, 4, 2),
    ({'type': 'TGC', 'num_blocks': 2, 'indivisible': 'untie'}, 16, 1),
])
def test_grouped_convolutions_stay_or_are_tied(cfg, groups, blocks):
    """With one block the layer is the grouped convolution that mmcv would build."""
    layer = build_conv_layer(cfg, 16, 16, 3, padding=1, groups=groups).double()
    assert (layer.num_blocks, layer.groups) == (blocks, groups)
    plain = torch.nn.Conv2d(16, 16, 3, padding=1, groups=groups * blocks, dtype=torch.double)
    plain.load_state_dict({'weight': layer.expanded_weight(), 'bias': layer.expanded_bias()})
    x = torch.rand(2, 16, 5, 5, dtype=torch.double)
    torch.testing.assert_close(layer(x), plain(x))


def test_networks_with_grouped_convolutions():
    cfg = {'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'}
    network = MobileNetV2(widen_factor=0.25, conv_cfg=cfg)
    convs = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    tied = [conv for conv in convs if conv.num_blocks == 2]
    assert {conv.kernel_size for conv in tied} == {(1, 1)}
    assert sum(conv.groups > 1 for conv in convs) == 17  # a depthwise convolution in each block
    assert all(conv.groups == 1 for conv in tied)
    assert describe_tying(network) == (f'{len(tied)} of {len(convs)} convolutions are tied; TBC or TGC of one block: '
                                       f'{len(convs) - len(tied)}, other types: 0')
    assert describe_tying(MobileNetV2(widen_factor=0.25)) == ''
    network(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize('module', ['mmtied.layers'])
def test_layers_import_without_openmmlab(module, run_without_openmmlab):
    run_without_openmmlab(f'import torch; from {module} import TBC, TGC, TFC; print(TBC(4, 4, 1)(torch.zeros(1, 4, 2, 2)).shape)')
