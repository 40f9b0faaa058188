"""Effects of style, strides, dilations, conv_cfg, mixer width and zero_init_residual on the layers."""

import pytest
import torch
import torch.utils.checkpoint
from mmcv.cnn.bricks import ConvWS2d
from torch import nn

from mmtied.backbones import TiedResNet
from mmtied.backbones.bottleneck import BlockSettings, ConvBottleneck
from mmtied.backbones.tied_resnet import TiedBottleneck
from mmtied.related.groupable.backbones import GroupableBottleneck
from mmtied.related.groupable.layers import DGConv
from mmtied.related.interleaved.backbones import IGCBlock
from mmtied.related.shared_bases.backbones import SharedBasicBlock
from tests.helpers.families import FAMILIES, tiny

families = pytest.mark.parametrize('family', FAMILIES)
DILATED = {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)}


def spatial(block: nn.Module) -> list[nn.Module]:
    """Return the 3x3 convolutions of a block."""
    return [module for module in block.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]


@pytest.mark.parametrize('settings', [
    {}, {'style': 'caffe'}, DILATED, {'style': 'caffe', **DILATED}, {'deep_stem': True, 'avg_down': True}, {'depth': 101},
    {'num_stages': 3, 'out_indices': (0, 2), 'strides': (1, 2, 2), 'dilations': (1, 1, 1)},
], ids=str)
def test_untied_block_equals_mmdet_block(settings):
    """TiedSEResNet without its attention is mmdet's ResNet, layer by layer and in the same order."""
    resnet = pytest.importorskip('mmdet.models.backbones').ResNet
    settings = {'depth': 50, 'base_channels': 8, **settings}
    theirs = resnet(**settings, norm_eval=False)
    ours = tiny('TiedSEResNet', **settings)
    for layer in ours.stage_names:
        for block in getattr(ours, layer):
            block.attention = nn.Identity()
    own = ours.state_dict()
    ours.load_state_dict(dict(zip(own, theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours.double().train()
    theirs.double().train()
    for mine, other in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-10)


@families
@pytest.mark.parametrize('style', ['pytorch', 'caffe'])
def test_style_sets_stride_position(family, style):
    model = tiny(family, style=style)
    for layer in ('layer2', 'layer3', 'layer4'):
        first, second = getattr(model, layer)[:2]
        middle = [first.pool.stride] if style == 'pytorch' and family == 'TiedResNeSt' else [
            conv.stride[0] for conv in spatial(first)]
        assert first.entry.conv.stride == ((2, 2) if style == 'caffe' else (1, 1))
        assert set(middle) == {1 if style == 'caffe' else 2}
        assert family != 'TiedResNeSt' or isinstance(first.pool, nn.Identity) is (style == 'caffe')
        assert first.shortcut.conv.stride if family != 'TiedResNeSt' else first.shortcut[0].stride
        assert {conv.stride for conv in (second.entry.conv, *spatial(second))} == {(1, 1)}


@families
def test_dilations_reach_every_spatial_convolution(family):
    model = tiny(family, **DILATED)
    for layer, stride, dilation in zip(model.stage_names, *DILATED.values(), strict=True):
        stage = getattr(model, layer)
        assert {(conv.dilation, conv.padding) for block in stage for conv in spatial(block)} == {((dilation, ) * 2, ) * 2}
        shortcut = stage[0].shortcut
        strides = {module.stride for module in shortcut.modules() if isinstance(module, (nn.Conv2d, nn.AvgPool2d))} - {(1, 1)}
        assert strides <= ({(2, 2), 2} if stride == 2 else set())
        assert bool(strides) is (stride == 2)


@families
def test_conv_cfg_reaches_the_standard_convolutions(family):
    model = tiny(family, conv_cfg={'type': 'ConvWS'})
    standard = [module.exit.conv for layer in model.stage_names for module in getattr(model, layer)]
    stem = [module for module in model.stem.modules() if isinstance(module, nn.Conv2d)]
    for module in model.modules():
        if type(module).__name__ in ('SplitMixer', 'AddBackMixer'):
            standard += [part.conv for part in module.children()]
    assert len(standard) == {'TiedResNet': 48, 'TiedSENet': 48, 'TiedResNeXt': 32}.get(family, 16)
    assert {type(conv) for conv in (*standard, *stem)} == {ConvWS2d}
    assert {type(conv) for conv in tiny(family).layer1[0].exit.modules() if isinstance(conv, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.parametrize('fusion', ['sum', 'concat'])
@pytest.mark.parametrize('ratio', [0.25, 0.5, 1])
def test_mixer_out_ratio_scales_base_channels(fusion, ratio):
    model = tiny('TiedResNet', mixer_fusion=fusion, mixer_out_ratio=ratio)
    for stage, layer in enumerate(model.stage_names):
        planes = 8 * 2**stage
        for block in getattr(model, layer):
            assert block.mixer.reduce.conv.out_channels == planes * ratio
            assert block.exit.conv.in_channels == 4 * 32 * planes // 64 + planes * ratio


@families
@pytest.mark.parametrize(('with_cp', 'frozen_stages', 'calls'), [(False, -1, 0), (True, -1, 16), (True, 1, 12)])
def test_with_cp_recomputes_every_trained_block(family, with_cp, frozen_stages, calls, monkeypatch):
    """Frozen blocks are not recomputed, nor is the next block, whose input needs no gradient."""
    counted = []
    run = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', lambda *args, **kw: counted.append(args) or run(*args, **kw))
    tiny(family, with_cp=with_cp, frozen_stages=frozen_stages).train()(torch.randn(2, 3, 64, 64))
    assert len(counted) == calls


@families
@pytest.mark.parametrize('zero', [True, False])
def test_zero_init_residual(family, zero):
    model = tiny(family, zero_init_residual=zero)
    model.init_weights()
    weights = torch.cat([block.exit.norm.weight for layer in model.stage_names for block in getattr(model, layer)])
    assert torch.equal(weights, torch.full_like(weights, 0 if zero else 1))


def test_zero_init_residual_is_the_default():
    model = TiedResNet(50, base_channels=8, split_blocks=(1, 2, 2, 4))
    model.init_weights()
    assert model.layer3[5].exit.norm.weight.abs().max() == 0


@pytest.mark.parametrize(('block', 'settings', 'out_channels'), [
    (TiedBottleneck, {'width': 4, 'split_blocks': (1, 2), 'entry_blocks': 2, 'shortcut_blocks': 1, 'mixer_fusion': 'sum',
                      'mixer_out_ratio': .5}, 32),
    (GroupableBottleneck, {'width': 8}, 32), (ConvBottleneck, {'width': 8, 'conv_cfgs': {}}, 32),
    (SharedBasicBlock, {'bases': {}}, 8), (IGCBlock, {}, 8)])
def test_blocks_can_be_built_alone(block, settings, out_channels):
    """Arguments that only one block has are optional, and an unknown one is reported under the block's name."""
    shared = BlockSettings(in_channels=8, planes=8, norm_cfg={'type': 'BN'}, stride=2)
    made = block(shared, **settings)
    assert made(torch.zeros(2, 8, 6, 6)).shape == (2, out_channels, 3, 3)
    assert block is not GroupableBottleneck or isinstance(made.grouped.conv, DGConv)
    with pytest.raises(TypeError, match=f"{block.__name__}.*'strid'"):
        block(shared, **settings, strid=1)
