"""TiedSE against mmpretrain's SELayer: equal at B = 1, and to its block-diagonal expansion at B > 1."""

import re

import pytest
import torch
from torch import nn

from mmtied.plugins import TiedSE


@pytest.fixture(scope='module')
def se_layer():
    return pytest.importorskip('mmpretrain.models.utils').SELayer


def copy_weights(source: nn.Module, target: TiedSE) -> None:
    for conv, layer in ((source.conv1.conv, target.fc1), (source.conv2.conv, target.fc2)):
        nn.init.uniform_(conv.bias)
        layer.weight.data.copy_(conv.weight.data.flatten(1))
        layer.bias.data.copy_(conv.bias.data)


@pytest.mark.parametrize(('channels', 'ratio'), [(64, 16), (256, 16), (256, 8), (96, 4), (1152, 24), (2048, 16), (40, 3)])
def test_one_block_is_selayer(se_layer, channels, ratio):
    """Equal up to rounding, since the order of the sums differs."""
    theirs, mine = se_layer(channels, ratio=ratio), TiedSE(channels, ratio=ratio, num_blocks=1)
    copy_weights(theirs, mine)
    x = torch.randn(3, channels, 9, 7)
    expected, got = theirs(x), mine(x)
    torch.testing.assert_close(got, expected, rtol=4 * torch.finfo(torch.float32).eps, atol=1e-7)
    torch.testing.assert_close(mine.double()(x.double()), theirs.double()(x.double()), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize('num_blocks', [2, 4, 8])
def test_equals_selayer_with_block_diagonal_weights(se_layer, num_blocks):
    theirs, mine = se_layer(128, ratio=4).double(), TiedSE(128, ratio=4, num_blocks=num_blocks).double()
    nn.init.uniform_(mine.fc1.bias)
    nn.init.uniform_(mine.fc2.bias)
    for conv, layer in ((theirs.conv1.conv, mine.fc1), (theirs.conv2.conv, mine.fc2)):
        conv.weight.data.copy_(torch.block_diag(*[layer.weight.data] * num_blocks)[..., None, None])
        conv.bias.data.copy_(layer.bias.data.repeat(num_blocks))
    x = torch.randn(3, 128, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x))


def test_initialization_of_selayer(se_layer):
    """Both initialize when built, with the same standard deviation."""
    for layer, mine in ((se_layer(1024).conv1.conv, TiedSE(1024, num_blocks=1).fc1),
                        (se_layer(1024).conv2.conv, TiedSE(1024, num_blocks=1).fc2)):
        assert mine.weight.std().item() == pytest.approx(layer.weight.std().item(), rel=0.02)
        assert mine.bias.abs().max() == layer.bias.abs().max() == 0


def test_settings():
    assert TiedSE(96, ratio=5, num_blocks=1).fc1.out_features == 24  # 19 rounded to 16 would lose more than a tenth
    assert TiedSE(96, ratio=5, num_blocks=1, divisor=1).fc1.out_features == 19
    layer = TiedSE(96, squeeze_channels=10, act_cfg=({'type': 'Swish'}, {'type': 'Tanh'}))
    assert (layer.fc1.out_features, type(layer.activate).__name__, type(layer.gate).__name__) == (10, 'Swish', 'Tanh')
    assert layer(torch.rand(2, 96, 1, 1)).shape == (2, 96, 1, 1)
    assert layer(torch.rand(0, 96, 4, 4)).shape == (0, 96, 4, 4)


@pytest.mark.parametrize(('settings', 'message'), [
    ({'in_channels': 66, 'num_blocks': 4}, 'TiedSE: in_channels=66 is not divisible by num_blocks=4; use one of'),
    ({'in_channels': 256, 'num_blocks': 32}, 'TiedSE: squeeze_channels=16 is not divisible by num_blocks=32'),
    ({'in_channels': 256, 'squeeze_channels': 9}, 'TiedSE: squeeze_channels=9 is not divisible by num_blocks=2'),
    ({'in_channels': 256, 'num_blocks': 0}, 'TiedSE: num_blocks=0, expected a positive integer'),
    ({'in_channels': 256, 'ratio': 0.5}, 'TiedSE: ratio=0.5, expected a positive integer'),
    ({'in_channels': 256, 'divisor': 0}, 'TiedSE: divisor=0, expected a positive integer'),
    ({'in_channels': 256, 'act_cfg': ({'type': 'ReLU'}, )}, 'TiedSE: act_cfg has 1 values, expected 2, one for each layer'),
])
def test_user_errors(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TiedSE(**settings)
