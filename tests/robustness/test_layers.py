"""Layers refuse what they cannot do in their own words, and weights of other layers that fit by chance."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import fusion

from mmtied.layers import IGC, TBC, TFC, TGC, DGConv, FilterBasis, SharedBasisConv, SharedConv2d, SumFusion


@pytest.mark.parametrize('settings', [
    dict(kernel_size=0), dict(kernel_size=-1), dict(kernel_size='3'), dict(kernel_size=(3, 3, 3)), dict(kernel_size=3, stride=0),
    dict(kernel_size=3, dilation=0), dict(kernel_size=3, padding=-1), dict(kernel_size=2.5), dict(kernel_size=None)])
@pytest.mark.parametrize('layer', [TBC, TGC])
def test_settings(layer, settings):
    with pytest.raises(ValueError, match=f'^{layer.__name__}: (kernel_size|stride|dilation|padding)=.*expected'):
        layer(8, 8, **settings)


@pytest.mark.parametrize('layer', [TBC(8, 8, 1), TGC(8, 8, 1), TFC(8, 8)])
@pytest.mark.parametrize('value', [[1.], 'x', None, torch.zeros(2, 3).numpy()])
def test_inputs(layer, value):
    with pytest.raises(TypeError, match=f'^{type(layer).__name__}: expected a tensor, got'):
        layer(value)


@pytest.mark.parametrize('layer', [TBC(8, 12, 3, padding=1, num_blocks=4), TGC(8, 12, 1, groups=2, num_blocks=2, bias=False),
                                   TBC(8, 8, 3, padding=1, padding_mode='reflect', num_blocks=2), TBC(8, 8, 1, num_blocks=1)])
def test_script(layer):
    x = torch.randn(2, 8, 6, 5)
    with pytest.raises(ValueError, match=f'{type(layer).__name__}: torch.jit.script unties layers, .*torch.jit.trace'):
        torch.jit.script(nn.Sequential(layer.train()))
    scripted = torch.jit.script(nn.Sequential(layer.eval(), nn.ReLU()))
    torch.testing.assert_close(scripted(x), layer(x).relu())


def test_script_of_linear():
    layer, x = TFC(8, 12, num_blocks=4), torch.randn(2, 3, 8)
    torch.testing.assert_close(torch.jit.script(nn.Sequential(layer))(x), layer(x))


def fused_by_torch(layer, norm):
    fuse = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else torch.nn.utils.fuse_conv_bn_eval
    return fuse(layer, norm)


def fused_by_mmcv(layer, norm):
    return pytest.importorskip('mmcv.cnn').fuse_conv_bn(nn.Sequential(copy.deepcopy(layer), norm))


@pytest.mark.parametrize('fuse', [fused_by_torch, fused_by_mmcv])
@pytest.mark.parametrize('layer', [
    TBC(8, 4, 1, num_blocks=4), TBC(8, 8, 3, num_blocks=2), TGC(8, 8, 1, groups=2, num_blocks=2, bias=False), SumFusion(8, 4, 1),
    TFC(8, 8, num_blocks=2), TBC(8, 8, 1, num_blocks=1), DGConv(8, 8, 3, padding=1)], ids=lambda layer: type(layer).__name__)
def test_a_fused_normalization_computes_the_same_or_is_refused(layer, fuse):
    """mmcv and torch multiply the weight by a factor for each channel; with one thin filter that would broadcast."""
    layer, is_linear = layer.eval(), isinstance(layer, nn.Linear)
    x = torch.randn(3, 8) if is_linear else torch.randn(2, 8, 5, 5)
    norm = (nn.BatchNorm1d if is_linear else nn.BatchNorm2d)(layer(x).size(1)).eval()
    for value in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        value.uniform_(.5, 2)
    if len(layer.weight) == layer(x).size(1) or (is_linear and fuse is fused_by_mmcv):  # mmcv leaves linear layers
        torch.testing.assert_close(fuse(layer, norm)(x), norm(layer(x)))
    else:
        with pytest.raises(ValueError, match=f'^{type(layer).__name__}: weight of shape .*use mmtied.surgery.deploy instead of'):
            fuse(layer, norm)


FILTERS = FilterBasis(8, 6, 3)
#: Layers whose weight is in parts, or in another module.
IN_PARTS = [IGC(8, 8, 3, padding=1), SharedConv2d(8, 6, 3, padding=1, filters=FILTERS),
            SharedBasisConv(8, 8, 3, padding=1, filters=FILTERS)]


@pytest.mark.parametrize('layer', IN_PARTS, ids=lambda layer: type(layer).__name__)
def test_a_normalization_after_a_layer_without_a_weight(layer):
    """torch's function says what to use; mmcv's leaves the normalization where it is."""
    layer, x = layer.eval(), torch.randn(2, 8, 5, 5)
    norm = nn.BatchNorm2d(layer.out_channels).eval()
    norm.running_mean.uniform_(.5, 2)
    with pytest.raises(ValueError, match=f'^{type(layer).__name__}: has no weight of its own .*use mmtied.surgery.deploy'):
        fused_by_torch(layer, norm)
    expected = norm(layer(x))
    torch.testing.assert_close(pytest.importorskip('mmcv.cnn').fuse_conv_bn(nn.Sequential(layer, norm))(x), expected)


@pytest.mark.filterwarnings('ignore:.*torch.ao.quantization:DeprecationWarning')
@pytest.mark.parametrize('layer', [TBC(8, 8, 1), TGC(8, 8, 1), DGConv(8, 8, 3), SumFusion(8, 4, 1), *IN_PARTS],
                         ids=lambda layer: type(layer).__name__)
def test_modules_of_other_types_are_not_fused(layer):
    """torch.ao.quantization.fuse_modules knows exact types: it names a layer that it cannot fuse, and changes nothing."""
    from torch.ao.quantization import fuse_modules
    network = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()).eval()
    for names in (['0', '1'], ['0', '1', '2']):
        with pytest.raises((AssertionError, NotImplementedError), match=type(layer).__name__) as caught:
            fuse_modules(network, names)
        assert '\n' not in str(caught.value).strip()


@pytest.mark.parametrize('layer', [TBC(8, 8, 1), TGC(8, 8, 1), TFC(8, 8), DGConv(8, 8, 3), SumFusion(8, 4, 1), *IN_PARTS],
                         ids=lambda layer: type(layer).__name__)
def test_symbolic_trace_is_a_line(layer):
    with pytest.raises(TypeError, match=f'^{type(layer).__name__}: torch.fx.symbolic_trace cannot .*torch.export'):
        torch.fx.symbolic_trace(nn.Sequential(layer))


def test_a_fused_normalization_that_is_set_by_hand_is_refused():
    layer = TBC(8, 4, 1, num_blocks=4)
    with pytest.raises(ValueError, match='TBC: weight of shape .*use mmtied.surgery.deploy instead of fuse_conv_bn'):
        layer.weight = nn.Parameter(layer.weight * torch.ones(4, 1, 1, 1))


@pytest.mark.parametrize(('saved', 'loaded'), [
    (TBC(8, 8, 1, num_blocks=2), TBC(16, 16, 1, num_blocks=4)), (TFC(8, 8, num_blocks=2), TFC(16, 16, num_blocks=4)),
    (TGC(8, 8, 1, groups=2, num_blocks=2), TGC(16, 16, 1, groups=2, num_blocks=4))])
def test_weights_of_other_blocks(tmp_path, saved, loaded):
    """The thin shapes agree; the state_dict says the blocks, also after torch.save."""
    assert saved.weight.shape == loaded.weight.shape
    torch.save(nn.Sequential(saved).state_dict(), tmp_path / 'weights.pth')
    weights = torch.load(tmp_path / 'weights.pth', weights_only=True)
    nn.Sequential(copy.deepcopy(saved)).load_state_dict(weights)
    with pytest.raises(ValueError, match='0: the weights are from a layer with num_blocks=2, but this one has 4'):
        nn.Sequential(loaded).load_state_dict(weights)
    nn.Sequential(loaded).load_state_dict(dict(weights))  # an old file does not say it
