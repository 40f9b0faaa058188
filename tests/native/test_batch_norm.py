"""The kernels of BatchNorm against PyTorch in float64, which they have to be as near to as PyTorch's own in float32."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmtied.native import library
from mmtied.native.batch_norm import Channels, Then, apply, gradients, measure, pixel_stride

pytestmark = pytest.mark.skipif(library() is None, reason='not compiled')
EPS = 1e-5


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def map_of(shape, slack=0, offset=0.):
    """A map in channels_last, with `slack` more channels in memory than in it."""
    number, channels, height, width = shape
    whole = torch.randn(number, channels + slack, height, width).to(memory_format=torch.channels_last)
    return whole.add_(offset)[:, slack // 2:slack // 2 + channels]


def affine(channels):
    return torch.rand(channels) + 0.5, torch.randn(channels)


def by_kernels(x, weight, bias, then, identity, gradient):
    channels = Channels(weight, bias, *measure(x, EPS, None, 0.))
    y = apply(x, channels, then, identity)
    return [y, *gradients(gradient, x, channels, then, y, True, then == Then.ADD_RELU)], channels


def by_torch(x, weight, bias, then, identity, gradient, passes, dtype=torch.float32):
    """The same, where `passes` says which values ReLU lets through, as rounding decides that for values next to zero."""
    leaves = [leaf.to(dtype, copy=True).requires_grad_() for leaf in (x, weight, bias, identity)]
    y = F.batch_norm(leaves[0], None, None, *leaves[1:3], training=True, eps=EPS)
    y = y + leaves[3] if then == Then.ADD_RELU else y
    y = y if then == Then.NOTHING else y * passes
    return [y.detach(), *torch.autograd.grad(y, leaves, gradient.to(dtype), allow_unused=True)]


def error(mine, exact):
    return 0. if exact is None else (mine - exact).abs().max().item() / (exact.abs().max().item() + 1e-30)


@pytest.mark.parametrize('then', Then)
@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 4), channels=st.integers(2, 300), height=st.integers(1, 40), width=st.integers(1, 40),
       slack=st.sampled_from([0, 0, 1, 32]), num_threads=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_values_and_gradients(then, number, channels, height, width, slack, num_threads, seed):
    assume(number * height * width > 2 and height * width > 1)
    torch.manual_seed(seed)
    torch.set_num_threads(num_threads)
    shape = number, channels, height, width
    x, identity, gradient = map_of(shape, slack), map_of(shape, slack * 2), map_of(shape, slack)
    inputs = x, *affine(channels), then, identity, gradient
    mine, _ = by_kernels(*inputs)
    passes = mine[0] > 0
    exact, theirs = by_torch(*inputs, passes, torch.float64), by_torch(*inputs, passes)
    for one, other, true in zip(mine, theirs, exact, strict=True):
        assert (one is None) == (true is None)
        assert error(one, true) <= 2 * error(other, true) + 2e-6
    assert mine[0].is_contiguous(memory_format=torch.channels_last)
    if slack == 0:
        assert mine[0].stride() == F.batch_norm(x, None, None, training=True).stride()


@pytest.mark.parametrize('shape', [(4, 72, 56, 56), (1, 32, 200, 336), (2, 2048, 7, 7)], ids=str)
@pytest.mark.parametrize('num_threads', [1, 3])
@pytest.mark.parametrize('then', Then)
def test_maps_of_networks_are_no_less_exact_than_torch(shape, num_threads, then):
    torch.set_num_threads(num_threads)
    inputs = map_of(shape), *affine(shape[1]), then, map_of(shape), map_of(shape)
    mine, _ = by_kernels(*inputs)
    passes = mine[0] > 0
    for one, other, true in zip(mine, by_torch(*inputs, passes), by_torch(*inputs, passes, torch.float64), strict=True):
        assert error(one, true) <= 1.5 * error(other, true) + 1e-7


@pytest.mark.parametrize('num_threads', [1, 3])
def test_a_mean_far_from_zero_costs_only_its_rounding(num_threads):
    torch.set_num_threads(num_threads)
    x = map_of((4, 24, 40, 40), offset=1e3)
    weight, bias = affine(24)
    gradient = map_of(x.shape)
    mine, channels = by_kernels(x, weight, bias, Then.NOTHING, x, gradient)
    exact = by_torch(x, weight, bias, Then.NOTHING, x, gradient, 1, torch.float64)
    deviation = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(channels.mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(channels.inverse_std.double(), (deviation + EPS).rsqrt(), rtol=1e-6, atol=0)
    for one, true in zip(mine[:4], exact[:4], strict=True):
        assert error(one, true) < 1e-4  # half a unit in the last place of 1000 is 3e-5


@pytest.mark.parametrize('where', [0, 5, 700])
def test_one_pixel_far_off_costs_no_digits(where):
    """Also where it comes first, when nothing is known yet of the mean."""
    x = map_of((1, 16, 40, 40))
    x.permute(0, 2, 3, 1).view(-1, 16)[where] = 1e4
    _, inverse_std = measure(x, EPS, None, 0.)
    expected = (x.double().var((0, 2, 3), correction=0) + EPS).rsqrt()
    torch.testing.assert_close(inverse_std.double(), expected, rtol=3e-6, atol=0)


def test_a_constant_channel_becomes_its_bias():
    x = torch.full((2, 3, 9, 9), 12345.678).to(memory_format=torch.channels_last)
    weight, bias = affine(3)
    y = apply(x, Channels(weight, bias, *measure(x, EPS, None, 0.)), Then.NOTHING)
    assert torch.equal(y, bias.view(1, 3, 1, 1).expand_as(y))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('then', [Then.NOTHING, Then.RELU])
def test_what_is_not_finite_stays_in_its_channel(value, then):
    x, gradient = map_of((2, 20, 6, 6)), map_of((2, 20, 6, 6))
    x[1, 3, 2, 2] = value
    inputs = x, *affine(20), then, x, gradient
    mine, _ = by_kernels(*inputs)
    leaves = [leaf.clone().requires_grad_() for leaf in inputs[:3]]
    y = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
    y = y.relu() if then == Then.RELU else y
    for one, other in zip(mine, [y, *torch.autograd.grad(y, leaves, gradient)], strict=False):
        torch.testing.assert_close(one, other.detach(), equal_nan=True, rtol=1e-4, atol=1e-5)
    assert mine[0][:, 3].isnan().all()


def test_an_added_nan_goes_through_relu():
    x, identity, gradient = (map_of((2, 20, 6, 6)) for _ in range(3))
    identity[1, 3, 2, 2] = float('nan')
    mine, _ = by_kernels(x, *affine(20), Then.ADD_RELU, identity, gradient)
    assert mine[0].isnan().sum() == 1 and mine[0][1, 3, 2, 2].isnan()
    assert mine[4][1, 3, 2, 2] == gradient[1, 3, 2, 2]  # as PyTorch's ReLU, whose gradient asks what is not above zero


@pytest.mark.parametrize('momentum', [0.1, 1.])
@pytest.mark.parametrize('num_threads', [1, 3])
def test_running_statistics(momentum, num_threads):
    torch.set_num_threads(num_threads)
    x = map_of((3, 40, 30, 30), slack=8, offset=2.)
    mine, theirs = ([torch.full((40, ), 0.5), torch.full((40, ), 2.)] for _ in range(2))
    measure(x, EPS, mine, momentum)
    expected = [values.double() for values in theirs]
    F.batch_norm(x.double(), *expected, training=True, momentum=momentum)
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-7, atol=0)


@pytest.mark.parametrize('num_threads', [1, 2, 3, 7])
@pytest.mark.parametrize('then', Then)
def test_results_are_the_same_in_each_run(num_threads, then):
    torch.set_num_threads(num_threads)
    shape = 2, 50, 41, 41
    inputs = map_of(shape), *affine(50), then, map_of(shape), map_of(shape)
    first, _ = by_kernels(*inputs)
    for _ in range(5):
        again, _ = by_kernels(*inputs)
        assert all(one is other is None or torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize('then', [Then.NOTHING, Then.RELU])
def test_a_map_is_made_anew_to_the_bit(then):
    """Whatever the strides and the number of threads."""
    x = map_of((2, 37, 41, 41), slack=11)
    channels = Channels(*affine(37), *measure(x, EPS, None, 0.))
    y = apply(x, channels, then)
    torch.set_num_threads(3)
    assert torch.equal(y, apply(x.contiguous(memory_format=torch.channels_last), channels, then))


@pytest.mark.parametrize('of_x', [True, False])
@pytest.mark.parametrize('of_identity', [True, False])
@pytest.mark.parametrize('layout', ['channels_last', 'contiguous', 'expanded'])
def test_gradients_that_nobody_needs(of_x, of_identity, layout):
    x, identity = map_of((2, 24, 9, 9)), map_of((2, 24, 9, 9))
    weight, bias = affine(24)
    gradient = {'channels_last': map_of(x.shape), 'contiguous': torch.randn(x.shape),
                'expanded': torch.ones(()).expand(x.shape)}[layout]
    before = gradient.clone()
    channels = Channels(weight, bias, *measure(x, EPS, None, 0.))
    y = apply(x, channels, Then.ADD_RELU, identity)
    mine = gradients(gradient, x, channels, Then.ADD_RELU, y, of_x, of_identity)
    exact = by_torch(x, weight, bias, Then.ADD_RELU, identity, gradient, y > 0, torch.float64)[1:]
    for one, true, wanted in zip(mine, exact, (of_x, True, True, of_identity), strict=True):
        assert (one is not None) == wanted
        assert not wanted or error(one, true) < 1e-5
    assert torch.equal(gradient, before)


@pytest.mark.parametrize(('x', 'stride'), [
    (torch.zeros(2, 8, 3, 4).to(memory_format=torch.channels_last), 8),
    (torch.zeros(2, 8, 3, 4).to(memory_format=torch.channels_last)[:, 3:6], 8),
    (torch.zeros(2, 8, 3, 1).to(memory_format=torch.channels_last), 8),
    (torch.zeros(2, 8, 1, 4).to(memory_format=torch.channels_last), 8),
    (torch.zeros(2, 8, 3, 4).to(memory_format=torch.channels_last)[:, ::2], None),
    (torch.zeros(2, 8, 3, 4).to(memory_format=torch.channels_last)[..., 1:], None),
    (torch.zeros(2, 8, 3, 4).to(memory_format=torch.channels_last)[:, :, ::2], None),
    (torch.zeros(4, 8, 3, 4).to(memory_format=torch.channels_last)[::2], None),
    (torch.zeros(2, 8, 3, 4), None),
    (torch.zeros(2, 8, 1, 1), None),
    (torch.zeros(2, 1, 3, 4), None),
    (torch.zeros(()).expand(2, 8, 3, 4), None),
    (torch.zeros(1, 8, 1, 1).expand(2, 8, 3, 4).to(memory_format=torch.preserve_format), None),
])
def test_pixel_strides(x, stride):
    assert pixel_stride(x) == stride
    if stride is not None:
        pixels = x.as_strided((x.numel() // x.size(1), x.size(1)), (stride, 1), x.storage_offset())
        assert pixels.data_ptr() == x.data_ptr()
        index = torch.arange(x.size(0) * x.size(2) * x.size(3)).view(x.size(0), x.size(2), x.size(3))
        assert all(x[n, 1, h, w].data_ptr() == pixels[index[n, h, w], 1].data_ptr()
                   for n in range(x.size(0)) for h in range(x.size(2)) for w in range(x.size(3)))
