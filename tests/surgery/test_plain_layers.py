"""Compare each layer of the package with its plain form, alone and with a folded normalization."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmtied.layers import IGC, TFC, TGC, DGConv, FilterBasis, SharedBasisConv, SharedConv2d, SumFusion
from mmtied.surgery import deploy, freeze_groups
from tests.helpers.deployed import difference, packages, shake

BASIS = FilterBasis(16, 8, kernel_size=3)
WIDE_BASIS = FilterBasis(16, 32, kernel_size=3)


def closed(layer: DGConv, *gates: float) -> DGConv:
    layer.gates.data.copy_(torch.tensor(gates))
    return layer


LAYERS = {
    'SharedConv2d': SharedConv2d(16, 8, 3, padding=1, filters=BASIS),
    'SharedBasisConv': SharedBasisConv(16, 24, 3, padding=1, filters=BASIS, num_unique=2),
    'SharedBasisConv, norm': SharedBasisConv(16, 24, 3, padding=1, filters=BASIS, norm=shake(nn.BatchNorm2d(8))),
    'SharedBasisConv, group norm': SharedBasisConv(16, 24, 3, padding=1, filters=BASIS, norm=nn.GroupNorm(2, 8)),
    'SharedBasisConv, wide': SharedBasisConv(16, 8, 3, stride=2, bias=False, filters=WIDE_BASIS, norm=shake(nn.BatchNorm2d(32))),
    'SumFusion': SumFusion(16, 24, 3, padding=1, num_branches=3),
    'IGC, few zeros': IGC(16, 24, 3, padding=1, num_primary=8),
    'IGC, shuffled': IGC(16, 256, 3, stride=2, num_primary=16),
    'IGC, one partition': IGC(16, 24, 3, num_primary=1),
    'IGC, 3x3 secondary': IGC(16, 24, 3, stride=2, padding=1, num_primary=8, spatial='secondary'),
    'IGC, dense and activated': IGC(16, 24, 3, num_primary=8, dense_secondary=True, activation=True),
    'DGConv': closed(DGConv(16, 32, 3, padding=1), -1, 1, -1, -1),
    'DGConv, neighbours': closed(DGConv(16, 32, 3, padding=1), -1, -1, 1, 1),
    'DGConv, frozen': freeze_groups(closed(DGConv(16, 32, 3), 1, -1, 1, -1)),
}
WIDTHS = {'SharedConv2d': 8, 'SharedBasisConv, wide': 8, 'IGC, shuffled': 256, **dict.fromkeys(
    ('DGConv', 'DGConv, neighbours', 'DGConv, frozen'), 32)}


@pytest.mark.parametrize('with_norm', [False, True])
@pytest.mark.parametrize('name', LAYERS)
def test_plain_layer_keeps_outputs(name, with_norm):
    torch.nn.init.normal_(LAYERS[name].bias) if getattr(LAYERS[name], 'bias', None) is not None else None
    model = nn.Sequential(LAYERS[name], *([shake(nn.BatchNorm2d(WIDTHS.get(name, 24)))] if with_norm else []))
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(2, 16, 9, 7)) < 1e-5
    assert packages(deployed) == {'torch'}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())


@pytest.mark.parametrize(('name', 'convs'), [
    ('SharedBasisConv', 2), ('SharedBasisConv, norm', 2), ('SharedBasisConv, wide', 1), ('IGC, one partition', 2)])
def test_uses_the_form_with_fewer_multiply_adds(name, convs):
    deployed = deploy(nn.Sequential(LAYERS[name]))
    assert sum(isinstance(module, nn.Conv2d) for module in deployed.modules()) == convs


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_tied_convolution_and_norm(data):
    """Eq. 3 and 4 with random sizes, and a normalization that unties the blocks."""
    def choose(*choices):
        return data.draw(st.sampled_from(choices))

    groups, blocks, kernel = choose(1, 2, 3), choose(1, 2, 4), choose(1, 3)
    parts = groups * blocks
    layer = TGC(parts * choose(1, 3, 16), parts * choose(1, 2, 16), kernel, choose(1, 2), padding=choose(0, 1),
                dilation=choose(1, 2), groups=groups, bias=choose(True, False), num_blocks=blocks,
                padding_mode=choose('zeros', 'reflect', 'circular'))
    model = nn.Sequential(layer, shake(nn.BatchNorm2d(layer.out_channels, affine=choose(True, False)))).double()
    deployed = deploy(model)
    assert type(deployed[0]) is nn.Conv2d
    assert type(deployed[1]) is nn.Identity
    assert difference(model, deployed, torch.randn(2, layer.in_channels, 7, 6, dtype=torch.float64)) < 1e-10


@settings(max_examples=20, deadline=None)
@given(blocks=st.integers(1, 4), inside=st.integers(1, 3), outside=st.integers(1, 3), bias=st.booleans(),
       leading=st.lists(st.integers(0, 3), max_size=2))
def test_tied_linear_stays_tied(blocks, inside, outside, bias, leading):
    layer = TFC(blocks * inside, blocks * outside, bias, num_blocks=blocks)
    deployed = deploy(layer)
    x = torch.randn(*leading, blocks * inside)
    torch.testing.assert_close(deployed(x), layer(x))
    assert packages(deployed) == {'torch'}
    assert sum(p.numel() for p in deployed.parameters()) == sum(p.numel() for p in layer.parameters())
