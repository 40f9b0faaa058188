"""Thin convolutions by the compiled library: against a dense one in float64, with the weights written block by block."""

import itertools
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmtied.native import library
from mmtied.native.thin_convolution import Splits, can_convolve, convolve_splits, convolve_splits_scaled

pytestmark = pytest.mark.skipif(library() is None, reason='the C++ code is not compiled')


def dense_weight(weights: list[Tensor], splits: Splits) -> Tensor:
    """The weight of one ungrouped convolution over all channels: zeros but for the blocks."""
    channels = sum(weight.size(0) * blocks for weight, blocks in zip(weights, splits.blocks, strict=True))
    dense, at = weights[0].new_zeros(channels, channels, 3, 3), 0
    for weight, blocks in zip(weights, splits.blocks, strict=True):
        for _ in range(blocks):
            dense[at:at + len(weight), at:at + len(weight)] = weight
            at += len(weight)
    return dense


def expected_output(x: Tensor, weights: list[Tensor], splits: Splits) -> Tensor:
    return F.conv2d(x, dense_weight(weights, splits), None, splits.stride, splits.dilation, splits.dilation)


def channels_last(*shape: int) -> Tensor:
    """Random, and in channels_last also where PyTorch would not call it so."""
    batch, channels, height, width = shape
    return torch.randn(batch, height, width, channels).permute(0, 3, 1, 2)


def weights_of(width: int, splits: Splits) -> list[Tensor]:
    return [torch.randn(width // blocks, width // blocks, 3, 3).requires_grad_() for blocks in splits.blocks]


def assert_close(mine: Tensor, exact: Tensor, terms: int) -> None:
    """Equal but for the rounding of sums of so many products of values of size 1."""
    torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5 * terms**0.5)


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


#: The channels of a split, and strides with dilations.
WIDTHS = {width: [blocks for blocks in range(1, 7) if width % blocks == 0] for width in (1, 2, 3, 4, 6, 8, 12, 15, 18, 36, 40)}
LAYERS = st.sampled_from(list(WIDTHS)).flatmap(lambda width: st.tuples(
    st.just(width), st.lists(st.sampled_from(WIDTHS[width]), min_size=1, max_size=4),
    st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 1)])))


@settings(deadline=None, max_examples=150)
@given(layer=LAYERS, batch=st.integers(1, 5), height=st.integers(1, 19), width=st.integers(1, 40), sliced=st.booleans(),
       weights_last=st.booleans(), num_threads=st.integers(1, 3))
def test_outputs_and_gradients(layer, batch, height, width, sliced, weights_last, num_threads):
    channels, blocks, (stride, dilation) = layer
    splits = Splits(tuple(blocks), stride, dilation)
    total = channels * len(splits.blocks)
    x = channels_last(batch, total + 3 * sliced, height, width)
    x = x[:, sliced:total + sliced].requires_grad_()
    weights = weights_of(channels, splits)
    if weights_last:
        weights = [weight.detach().to(memory_format=torch.channels_last).requires_grad_() for weight in weights]
    exact_x, *exact_weights = exact = [tensor.detach().double().requires_grad_() for tensor in (x, *weights)]
    exact_output = expected_output(exact_x, exact_weights, splits)
    with threads(num_threads):
        output = convolve_splits(x, weights, splits)
        assert_close(output, exact_output, 9 * channels)
        gradients = channels_last(*output.shape)
        mine = torch.autograd.grad(output, [x, *weights], gradients)
    of_x, *of_weights = torch.autograd.grad(exact_output, exact, gradients.double())
    assert_close(mine[0], of_x, 9 * channels)
    for weight, one, other in zip(weights, mine[1:], of_weights, strict=True):
        assert one.stride() == weight.stride()
        assert_close(one, other, batch * height * width * 4)


@pytest.mark.parametrize(('channels', 'splits', 'shape'), [
    (18, Splits((1, 2, 2, 3), 1, 1), (4, 56, 56)),
    (36, Splits((1, 2, 2, 3), 1, 1), (1, 28, 28)),
    (72, Splits((1, 2, 2, 3), 2, 1), (2, 28, 28)),
    (144, Splits((1, 2, 2, 3), 1, 1), (3, 7, 7)),
    (32, Splits((1, 2, 4, 8), 1, 2), (1, 25, 300)),
    (6, Splits((1, 3), 1, 1), (2, 3, 5000)),
    (2, Splits((1, 2), 2, 1), (1, 700, 33)),
], ids=str)
@pytest.mark.parametrize('num_threads', [1, 2])
def test_sizes_of_networks(channels, splits, shape, num_threads):
    """Whole images and bands of rows, several images together, more threads than tasks."""
    batch, height, width = shape
    x, weights = channels_last(batch, channels * len(splits.blocks), height, width).requires_grad_(), weights_of(channels, splits)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *weights)]
    exact_output = expected_output(exact[0], exact[1:], splits)
    with threads(num_threads):
        output = convolve_splits(x, weights, splits)
        gradients = torch.randn_like(output)
        mine = torch.autograd.grad(output, [x, *weights], gradients)
    assert_close(output, exact_output, 9 * channels)
    assert output.is_contiguous(memory_format=torch.channels_last)
    for index, (one, other) in enumerate(zip(mine, torch.autograd.grad(exact_output, exact, gradients.double()), strict=True)):
        assert_close(one, other, batch * height * width * 4 if index else 9 * channels)


@pytest.mark.parametrize('relu', [True, False])
@pytest.mark.parametrize('stride', [1, 2])
def test_scaled(stride, relu):
    splits = Splits((1, 2, 3), stride, 1)
    x, weights = channels_last(2, 18, 9, 11), weights_of(6, splits)
    scale, shift = torch.randn(2, 18)
    with torch.no_grad():
        mine = convolve_splits_scaled(x, weights, splits, scale, shift, relu)
        exact = expected_output(x.double(), [weight.double() for weight in weights], splits)
        exact = exact * scale.double().view(-1, 1, 1) + shift.double().view(-1, 1, 1)
    assert_close(mine, exact.relu() if relu else exact, 9 * 6)


def test_nan_and_infinity_reach_their_neighbours_only():
    splits = Splits((1, 2), 1, 1)
    x, weights = torch.randn(1, 8, 9, 30).to(memory_format=torch.channels_last), weights_of(4, splits)
    x[0, 0, 4, 29], x[0, 7, 0, 0] = float('nan'), float('inf')
    with torch.no_grad():
        exact = expected_output(x.double(), [weight.double() for weight in weights], splits)
        mine = convolve_splits(x, weights, splits)
        relu = convolve_splits_scaled(x, weights, splits, torch.ones(8), torch.zeros(8), True)
    # the dense weight's zeros spread NaN to every channel; compare by the split that holds it
    assert mine[0, :4, 3:6, 28:].isnan().all() and mine[0, 6:, :2, :2].isinf().all()
    assert relu[0, :4, 3:6, 28:].isnan().all()
    finite = exact.isfinite()
    torch.testing.assert_close(mine[finite], exact[finite].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('wanted', [s for n in (1, 2, 3) for s in itertools.combinations(range(3), n)], ids=str)
@pytest.mark.parametrize('stride', [1, 2])
def test_gradients_of_some(wanted, stride):
    splits = Splits((1, 2), stride, 1)
    tensors = [channels_last(2, 8, 7, 7), *(weight.detach() for weight in weights_of(4, splits))]
    for index in wanted:
        tensors[index].requires_grad_()
    exact = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in tensors]
    convolve_splits(tensors[0], tensors[1:], splits).square().sum().backward()
    expected_output(exact[0], exact[1:], splits).square().sum().backward()
    for index, (one, other) in enumerate(zip(tensors, exact, strict=True)):
        assert (one.grad is not None) == (index in wanted)
        if one.grad is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('expand', ['sum', 'contiguous', 'by channel'])
def test_gradients_in_any_layout(expand):
    splits = Splits((1, 2), 1, 1)
    x, weights = channels_last(2, 8, 5, 6).requires_grad_(), weights_of(4, splits)
    gradients = {'sum': torch.ones(()).expand(2, 8, 5, 6), 'contiguous': torch.randn(2, 8, 5, 6),
                 'by channel': torch.randn(8).view(1, 8, 1, 1).expand(2, 8, 5, 6)}[expand]
    mine = torch.autograd.grad(convolve_splits(x, weights, splits), [x, *weights], gradients)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *weights)]
    theirs = torch.autograd.grad(expected_output(exact[0], exact[1:], splits), exact, gradients.double())
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
def test_second_derivatives(stride):
    splits = Splits((1, 2), stride, 1)
    x, weights = channels_last(1, 4, 5, 4).requires_grad_(), weights_of(2, splits)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *weights)]
    found = []
    for tensors, convolve in (([x, *weights], convolve_splits), (exact, expected_output)):
        first = torch.autograd.grad(convolve(tensors[0], tensors[1:], splits).tanh().sum(), tensors, create_graph=True)
        found.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


def test_batched_gradients():
    splits = Splits((1, 2), 1, 1)
    x, weights = channels_last(1, 4, 5, 4).requires_grad_(), weights_of(2, splits)
    output, directions = convolve_splits(x, weights, splits), torch.randn(3, 1, 4, 5, 4)
    together = torch.autograd.grad(output, [x, *weights], directions, retain_graph=True, is_grads_batched=True)
    for index, direction in enumerate(directions):
        for one, other in zip(together, torch.autograd.grad(output, [x, *weights], direction, retain_graph=True), strict=True):
            torch.testing.assert_close(one[index], other)


@pytest.mark.parametrize('num_threads', [1, 2, 5])
def test_the_same_bits_every_time(num_threads):
    splits = Splits((1, 2, 2, 3), 1, 1)
    x, weights = channels_last(3, 72, 28, 28).requires_grad_(), weights_of(18, splits)
    with threads(num_threads):
        runs = []
        for _ in range(5):
            output = convolve_splits(x, weights, splits)
            runs.append([output, *torch.autograd.grad(output.square().sum(), [x, *weights])])
    for run in runs[1:]:
        assert all(map(torch.equal, runs[0], run))


@pytest.mark.parametrize('hook', ['contiguous', 'double'])
def test_hooks_may_change_what_is_kept(hook):
    splits = Splits((1, 2), 1, 1)
    x, weights = channels_last(2, 8, 5, 6).requires_grad_(), weights_of(4, splits)
    gradients = torch.randn(2, 8, 5, 6)
    expected = torch.autograd.grad(convolve_splits(x, weights, splits), [x, *weights], gradients)
    unpack = {'contiguous': Tensor.contiguous, 'double': Tensor.double}[hook]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: unpack(tensor.detach())):
        output = convolve_splits(x, weights, splits)
        found = torch.autograd.grad(output, [x, *weights], gradients)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_default_dtype_does_not_matter():
    splits = Splits((1, 2), 1, 1)
    x, weights = channels_last(2, 8, 5, 6), weights_of(4, splits)
    expected = convolve_splits(x, weights, splits)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        mine = convolve_splits(x, weights, splits)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(mine, expected)


def test_an_input_that_changed_is_noticed():
    splits = Splits((1, ), 1, 1)
    x, weights = channels_last(1, 4, 5, 5) * 1, weights_of(4, splits)
    output = convolve_splits(x, weights, splits)
    x += 1
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        output.sum().backward()


class Marked(Tensor):
    """A tensor that may do anything."""


def test_what_the_library_cannot_convolve(monkeypatch):
    splits = Splits((1, 2), 1, 1)
    x, weights = channels_last(2, 8, 5, 5), weights_of(4, splits)
    assert can_convolve(x, weights, splits)
    assert can_convolve(channels_last(2, 16, 5, 5)[:, 1:9], weights, splits)
    assert not can_convolve(x[:, 1:5], weights, splits)
    assert not can_convolve(x, weights[:1], splits)
    for other in (x.double(), x.contiguous(), x[:0], x[0], x.as_subclass(Marked), x.to('meta'), x[:, ::2], x.bfloat16(),
                  torch._neg_view(x)):
        assert not can_convolve(other, weights, splits)
    assert not can_convolve(x, [weights[0], weights[1].double()], splits)
    assert not can_convolve(x, weights, splits._replace(stride=3))
    assert not can_convolve(x, weights, splits._replace(stride=2, dilation=2))
    with torch.autocast('cpu'):
        assert not can_convolve(x, weights, splits)
    with torch.autograd.forward_ad.dual_level():
        assert not can_convolve(x, weights, splits)
    torch.func.vmap(lambda part: (assert_not(can_convolve(x, weights, splits)), part)[1])(x)
    with FlopCounterMode(display=False):
        assert not can_convolve(x, weights, splits)
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert not can_convolve(x, weights, splits)


def assert_not(value: bool) -> None:
    assert not value
