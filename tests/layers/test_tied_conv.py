"""TBC and TGC against a dense convolution whose weight is the block-diagonal expansion of the tied one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmtied.layers import TBC, TGC
from tests.helpers.dense_twins import dense_conv
from tests.helpers.torch_versions import needs_float16_autocast, needs_inductor

SETTINGS = [
    {'kernel_size': 1},
    {'kernel_size': 3, 'padding': 1},
    {'kernel_size': 3, 'stride': 2, 'padding': 1},
    {'kernel_size': (3, 1), 'stride': (2, 1), 'padding': (1, 0)},
    {'kernel_size': 3, 'padding': 2, 'dilation': 2},
    {'kernel_size': 3, 'padding': 'same'},
    {'kernel_size': 3, 'padding': 'valid'},
    {'kernel_size': 3, 'padding': 1, 'padding_mode': 'reflect'},
    {'kernel_size': 3, 'padding': 1, 'padding_mode': 'circular'},
    {'kernel_size': 3, 'padding': 'same', 'padding_mode': 'replicate'},
]
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('setting', SETTINGS, ids=str)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(('groups', 'num_blocks'), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (3, 4)])
def test_equals_dense_expansion(groups, num_blocks, bias, setting, memory_format, device):
    layer = TGC(24, 48, groups=groups, num_blocks=num_blocks, bias=bias, dtype=torch.float64, device=device, **setting)
    x = torch.randn(2, 24, 7, 8, dtype=torch.float64, device=device).to(memory_format=FORMATS[memory_format])
    torch.testing.assert_close(layer(x), dense_conv(layer)(x), atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(groups=st.integers(1, 4), num_blocks=st.integers(1, 5), ins=st.integers(1, 4), outs=st.integers(1, 4),
       kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 3), dilation=st.integers(1, 2),
       batch=st.integers(0, 3), height=st.integers(7, 10), channels_last=st.booleans())
def test_equals_dense_expansion_for_any_setting(groups, num_blocks, ins, outs, kernel, stride, padding, dilation, batch, height,
                                               channels_last):
    layer = TGC(ins * groups * num_blocks, outs * groups * num_blocks, kernel, stride, padding, dilation, groups=groups,
                num_blocks=num_blocks, dtype=torch.float64)
    x = torch.randn(batch, layer.in_channels, height, 8, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), dense_conv(layer)(x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('groups', [1, 2])
def test_gradients_equal_dense_expansion(groups, memory_format):
    layer = TGC(16, 32, 3, padding=1, groups=groups, num_blocks=4, dtype=torch.float64)
    twin = dense_conv(layer)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    (layer(x) * weights).sum().backward()
    (twin(y) * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    outs, ins = 32 // (groups * 4), 16 // (groups * 4)
    tied = torch.zeros_like(layer.weight)
    for g in range(groups):
        for b in range(4):
            row, col = (g * 4 + b) * outs, (g * 4 + b) * ins
            tied[g * outs:(g + 1) * outs] += twin.weight.grad[row:row + outs, col:col + ins]
    torch.testing.assert_close(layer.weight.grad, tied)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('groups', [1, 2])
def test_gradcheck_and_double_backward(groups, memory_format):
    layer = TGC(4, 4, 3, padding=1, groups=groups, num_blocks=2, dtype=torch.float64)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {'weight': weight, 'bias': bias}, (x, ))

    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_one_block_is_conv2d_bit_for_bit():
    torch.manual_seed(3)
    tied = TBC(6, 8, 3, padding=1, num_blocks=1)
    torch.manual_seed(3)
    plain = nn.Conv2d(6, 8, 3, padding=1)
    x = torch.randn(2, 6, 5, 5)
    assert tied.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(tied(x), plain(x))
    torch.manual_seed(3)
    tied = TGC(6, 8, 3, padding=1, groups=2, num_blocks=1)
    torch.manual_seed(3)
    assert torch.equal(tied(x), nn.Conv2d(6, 8, 3, padding=1, groups=2)(x))


def test_parameter_counts():
    standard = nn.Conv2d(64, 128, 3).weight.numel()
    assert TBC(64, 128, 3, num_blocks=4).weight.numel() * 16 == standard
    assert TGC(64, 128, 3, groups=2, num_blocks=4).weight.numel() * 32 == standard
    assert TBC(64, 128, 3, num_blocks=4).bias.shape == (32, )


@pytest.mark.parametrize('layer', [TBC(16, 16, 3, padding=1, num_blocks=4), TGC(16, 16, 3, padding=1, groups=2, num_blocks=2)])
def test_default_initialization_uses_the_tied_fan_in(layer):
    """Each output sums over C_in / (B G) * k * k inputs; PyTorch draws weight and bias uniformly within 1 / sqrt(fan_in)."""
    fan_in = 16 // 4 * 9
    bound = fan_in**-0.5
    values = torch.cat([copy.deepcopy(layer).weight.flatten(), layer.bias.flatten()])
    assert values.abs().max() <= bound
    assert layer.weight.abs().max() > 0.9 * bound


@pytest.mark.parametrize('memory_format', FORMATS)
def test_memory_format_is_kept(memory_format, device):
    layer = TBC(32, 64, 3, padding=1, num_blocks=2, device=device)
    x = torch.randn(2, 32, 9, 9, device=device).to(memory_format=FORMATS[memory_format])
    assert layer(x).is_contiguous(memory_format=FORMATS[memory_format])


def test_noncontiguous_input():
    """A slice of channels, as `chunk` returns, and a transposed image."""
    layer = TBC(8, 8, 3, padding=1, num_blocks=2)
    wide = torch.randn(2, 24, 6, 7)
    part = wide[:, 8:16]
    torch.testing.assert_close(layer(part), layer(part.contiguous()))
    turned = part.transpose(2, 3)
    torch.testing.assert_close(layer(turned), layer(turned.contiguous()))


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=needs_float16_autocast)])
def test_autocast(dtype, memory_format, device):
    layer = TBC(16, 16, 3, padding=1, num_blocks=2, device=device)
    x = torch.randn(2, 16, 8, 8, device=device).to(memory_format=FORMATS[memory_format]).requires_grad_()
    with torch.autocast(device.type, dtype):
        out = layer(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), layer(x), atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@needs_inductor
@pytest.mark.slow
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('layer', [TBC(16, 16, 3, padding=1, num_blocks=2), TGC(16, 16, 3, padding=1, groups=2, num_blocks=2)])
def test_compiles_without_graph_breaks(layer, memory_format):
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(2, 16, 6, 6).to(memory_format=FORMATS[memory_format])
    expected = layer(x)
    torch.testing.assert_close(compiled(x), expected)
    layer.zero_grad()
    compiled(x).sum().backward()
    compiled_gradient, layer.weight.grad = layer.weight.grad, None
    layer(x).sum().backward()
    torch.testing.assert_close(compiled_gradient, layer.weight.grad)


def test_empty_batch_and_single_image():
    layer = TBC(8, 16, 3, padding=1, num_blocks=2)
    empty = torch.zeros(0, 8, 5, 5, requires_grad=True)
    out = layer(empty)
    out.sum().backward()
    assert out.shape == (0, 16, 5, 5)
    assert layer.weight.grad.abs().sum() == 0
    image = torch.randn(8, 5, 5)
    torch.testing.assert_close(layer(image), layer(image[None])[0])


def test_state_dict_round_trip_and_copy():
    layer = TGC(16, 16, 3, groups=2, num_blocks=2)
    other = TGC(16, 16, 3, groups=2, num_blocks=2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 16, 5, 5)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_expanded_weight_is_a_grouped_convolution():
    layer = TGC(16, 32, 3, groups=2, num_blocks=4)
    x = torch.randn(2, 16, 5, 5)
    grouped = F.conv2d(x, layer.expanded_weight(), layer.expanded_bias(), groups=8)
    torch.testing.assert_close(grouped, dense_conv(layer)(x))


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: TBC(66, 64, 1, num_blocks=4),
     'TBC: in_channels=66 is not divisible by num_blocks=4; use one of 1, 2, 3, 6, 11, 22, 33, 66; in a conv_cfg, indivisible='),
    (lambda: TBC(64, 66, 1, num_blocks=4), 'TBC: out_channels=66 is not divisible'),
    (lambda: TGC(24, 24, 1, groups=4, num_blocks=4), 'TGC: in_channels=24 is not divisible by groups=4 times num_blocks=4'),
    (lambda: TBC(8, 8, 1, num_blocks=0), 'TBC: num_blocks=0, expected a positive integer'),
    (lambda: TBC(8, 8, 1, num_blocks=2.0), 'TBC: num_blocks=2.0, expected a positive integer'),
    (lambda: TBC(8, 8, 1, indivisible='ignore'), "TBC: indivisible='ignore', expected 'raise' or 'untie'"),
    (lambda: TBC(8, 8, 1, algorithm='fastest'), "TBC: algorithm='fastest', expected one of 'auto', 'fold', 'grouped', 'matmul'"),
    (lambda: TGC(8, 8, 1, algorithm=None), 'TGC: algorithm=None, expected one of'),
    (lambda: TBC(0, 8, 1), 'TBC: in_channels=0, expected a positive integer'),
    (lambda: TBC(8, 8, 1, groups=2), 'TBC: groups=2, expected 1; to tie blocks within each group use TGC'),
    (lambda: TBC(8, 8, 1)(torch.zeros(1, 16, 4, 4)), r'TBC: expected input of shape \(N, 8, H, W\).*got \(1, 16, 4, 4\)'),
    (lambda: TBC(8, 8, 1)(torch.zeros(4, 4)), r'TBC: expected input of shape .* got \(4, 4\)'),
])
def test_user_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('layer', [TBC, TGC])
def test_former_name_of_algorithm(layer):
    with pytest.raises(TypeError, match=f"{layer.__name__}: way='fold' is now called algorithm; use algorithm='fold'"):
        layer(8, 8, 1, way='fold')
