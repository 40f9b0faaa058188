"""TFC against a dense linear layer whose weight is the block-diagonal expansion of the tied one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmtied.layers import TFC
from tests.helpers.dense_twins import dense_linear
from tests.helpers.torch_versions import needs_inductor


@settings(deadline=None, max_examples=60)
@given(num_blocks=st.integers(1, 6), ins=st.integers(1, 5), outs=st.integers(1, 5), bias=st.booleans(),
       shape=st.lists(st.integers(0, 4), max_size=3))
def test_equals_dense_expansion(num_blocks, ins, outs, bias, shape):
    layer = TFC(ins * num_blocks, outs * num_blocks, bias, num_blocks, dtype=torch.float64)
    x = torch.randn(*shape, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense_linear(layer)(x))


def test_gradcheck_and_double_backward():
    layer = TFC(6, 4, num_blocks=2, dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {'weight': weight, 'bias': bias}, (x, ))

    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_one_block_is_linear_bit_for_bit():
    torch.manual_seed(3)
    tied = TFC(6, 8, num_blocks=1)
    torch.manual_seed(3)
    plain = nn.Linear(6, 8)
    x = torch.randn(5, 6)
    assert torch.equal(tied(x), plain(x))


def test_strided_input():
    layer = TFC(6, 4, num_blocks=2)
    x = torch.randn(6, 5).t()
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_parameter_count_and_initialization():
    layer = TFC(64, 32, num_blocks=4)
    assert layer.weight.numel() * 16 == nn.Linear(64, 32).weight.numel()
    assert layer.bias.shape == (8, )
    assert layer.weight.abs().max() <= 16**-0.5
    assert layer.weight.abs().max() > 0.9 * 16**-0.5


@needs_inductor
@pytest.mark.slow
def test_compiles_without_graph_breaks():
    torch.compiler.reset()
    layer = TFC(16, 8, num_blocks=2)
    x = torch.randn(3, 16)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: TFC(10, 8, num_blocks=4), 'TFC: in_features=10 is not divisible by num_blocks=4; use one of'),
    (lambda: TFC(8, 10, num_blocks=4), 'TFC: out_features=10 is not divisible'),
    (lambda: TFC(8, 8, num_blocks=-1), 'TFC: num_blocks=-1, expected a positive integer'),
    (lambda: TFC(8, 8)(torch.zeros(2, 4)), r'TFC: expected input of shape \(\.\.\., 8\), got \(2, 4\)'),
])
def test_user_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
