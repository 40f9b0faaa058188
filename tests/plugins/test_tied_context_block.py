"""TiedGCB against mmcv's ContextBlock: equal at B = 1, and to its block-diagonal expansion at B > 1; the published sizes."""

import re

import pytest
import torch
from mmcv.cnn.bricks import ContextBlock
from torch import nn

from mmtied.layers import TBC
from mmtied.plugins import TiedGCB

SETTINGS = [{'pooling_type': pooling, 'fusion_types': fusions} for pooling in ('att', 'avg')
            for fusions in (('channel_add', ), ('channel_mul', ), ('channel_add', 'channel_mul'))]


def unlike_identity(block: nn.Module) -> nn.Module:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    return block


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@pytest.mark.parametrize(('channels', 'ratio'), [(64, 1 / 4), (256, 1 / 16), (30, 0.5)])
def test_one_block_is_context_block(settings, channels, ratio):
    theirs = unlike_identity(ContextBlock(channels, ratio, **settings))
    mine = TiedGCB(channels, ratio, num_blocks=1, **settings)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, channels, 9, 7)
    assert torch.equal(mine(x), theirs(x))


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@pytest.mark.parametrize('num_blocks', [2, 4])
def test_equals_context_block_with_block_diagonal_weights(settings, num_blocks):
    mine = unlike_identity(TiedGCB(64, 1 / 4, num_blocks=num_blocks, **settings)).double()
    weights = mine.state_dict()
    for name, layer in mine.named_modules():
        if isinstance(layer, TBC):
            blocks = torch.block_diag(*[layer.weight.data[..., 0, 0]] * num_blocks)
            weights[f'{name}.weight'], weights[f'{name}.bias'] = blocks[..., None, None], layer.bias.data.repeat(num_blocks)
    theirs = ContextBlock(64, 1 / 4, **settings).double()
    theirs.load_state_dict(weights)
    x = torch.randn(2, 64, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x))


def test_starts_as_the_identity():
    block = TiedGCB(64)
    x = torch.randn(2, 64, 5, 5)
    assert torch.equal(block(x), x)
    unlike_identity(block)
    assert not torch.equal(block(x), x)
    block.init_weights()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize('num_blocks', [1, 2])
def test_groups_are_group_convolutions(num_blocks):
    """Two groups of channels, each with a block-diagonal weight of its own, in a ContextBlock of torch's grouped convolutions."""
    mine = unlike_identity(TiedGCB(64, 1 / 4, num_blocks=num_blocks, groups=2)).double()
    theirs = ContextBlock(64, 1 / 4).double()
    weights = mine.state_dict()
    for index, (inputs, outputs) in ((0, (64, 16)), (3, (16, 64))):
        theirs.channel_add_conv[index] = nn.Conv2d(inputs, outputs, 1, groups=2 * num_blocks)
        for name in ('weight', 'bias'):
            key = f'channel_add_conv.{index}.{name}'
            weights[key] = torch.cat([part for group in weights[key].chunk(2) for part in [group] * num_blocks])
    theirs.double().load_state_dict(weights)
    x = torch.randn(2, 64, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x))


@pytest.mark.parametrize(('settings', 'millions'), [({'num_blocks': 1}, 10.00), ({'num_blocks': 2}, 2.52),
                                                    ({'num_blocks': 4}, 0.65), ({'num_blocks': 1, 'groups': 2}, 5.02)])
def test_published_sizes(settings, millions):
    """Table 4: on c3 to c5 of a ResNet-50 with ratio 1/4. For B = 4 the paper prints 1.3M, which its own formula contradicts.

    Group convolution has half the weights, as the text says.
    """
    widths = [512] * 4 + [1024] * 6 + [2048] * 3
    count = sum(p.numel() for width in widths for p in TiedGCB(width, 1 / 4, **settings).parameters())
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(('settings', 'message'), [
    ({'in_channels': 66, 'num_blocks': 4}, 'TiedGCB: in_channels=66 is not divisible by num_blocks=4; use one of'),
    ({'in_channels': 24, 'num_blocks': 4},
     'TiedGCB with ratio=0.25 of in_channels=24: bottleneck_channels=6 is not divisible by num_blocks=4; use one of'),
    ({'in_channels': 16, 'ratio': 1 / 32}, 'TiedGCB: ratio=0.03125 of in_channels=16 leaves no channels, expected at least'),
    ({'in_channels': 64, 'num_blocks': 1, 'groups': 3}, 'TiedGCB: in_channels=64 is not divisible by groups=3; use one of'),
    ({'in_channels': 64, 'num_blocks': 0}, 'TiedGCB: num_blocks=0, expected a positive integer'),
    ({'in_channels': 64, 'pooling_type': 'max'}, "TiedGCB: pooling_type='max', expected one of att, avg"),
    ({'in_channels': 64, 'fusion_types': ('add', )}, "TiedGCB: fusion_types=('add',), expected one or both of channel_add"),
    ({'in_channels': 64, 'fusion_types': ()}, 'TiedGCB: fusion_types=(), expected one or both of'),
])
def test_user_errors(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TiedGCB(**settings)
