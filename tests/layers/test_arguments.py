"""Invalid settings and inputs raise the layer's own error, in the constructor or in the first forward."""

import numpy as np
import pytest
import torch
from torch import nn

from mmtied.layers import IGC, TBC, TFC, TGC, DGConv, SharedConv2d, SumFusion

LAYERS = {
    'TBC': TBC, 'TGC': TGC, 'IGC': IGC, 'SumFusion': SumFusion, 'DGConv': DGConv,
    'SharedConv2d': lambda *channels, **settings: SharedConv2d(
        *channels, filters=nn.Conv2d(channels[0], channels[1], 3, bias=False), **settings)}


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize(('setting', 'value'), [
    ('kernel_size', 0), ('kernel_size', -1), ('kernel_size', '3'), ('kernel_size', (3, 3, 3)), ('kernel_size', 3.), ('stride', 0),
    ('stride', (1, )), ('dilation', 0), ('padding', -1), ('padding', 'big'), ('kernel_size', None), ('kernel_size', True)])
def test_refused_settings(layer, setting, value):
    settings = {'kernel_size': 3, setting: value}
    with pytest.raises(ValueError, match=f'^{layer}: {setting}='):
        LAYERS[layer](8, 8, **settings)


@pytest.mark.parametrize('layer', [TBC, TGC, IGC, DGConv])
def test_padding_mode(layer):
    with pytest.raises(ValueError, match=f"^{layer.__name__}: padding_mode='zero', expected one of zeros, reflect, replicate"):
        layer(8, 8, 3, padding_mode='zero')


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('x', [np.zeros((1, 8, 4, 4)), [torch.zeros(8, 4, 4)], None])
def test_refused_inputs(layer, x):
    with pytest.raises(TypeError, match=f'^{layer}: expected a tensor, got {type(x).__name__}$'):
        LAYERS[layer](8, 8, kernel_size=3)(x)


def test_refused_inputs_of_tfc():
    with pytest.raises(TypeError, match='^TFC: expected a tensor, got ndarray$'):
        TFC(8, 8)(np.zeros((2, 8)))


@pytest.mark.parametrize('layer', [name for name in LAYERS if name != 'SharedConv2d'])
@torch.no_grad()
def test_sizes_of_numpy_and_pairs(layer):
    settings = dict(kernel_size=(np.int64(3), 1), stride=[2, 1], padding=(1, 0), dilation=1)
    assert LAYERS[layer](8, 8, **settings)(torch.zeros(1, 8, 6, 6)).shape == (1, 8, 3, 6)
