"""The plain ways compute what TBC computes, and a network's shapes are those that its arithmetic says."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmtied.layers import TBC

FORMATS = (torch.contiguous_format, torch.channels_last)


def by_hand(layer, x):
    """Eq. 3: each block by itself."""
    return torch.cat([nn.functional.conv2d(part, layer.weight, None, layer.stride, layer.padding)
                      for part in x.chunk(layer.num_blocks, dim=1)], dim=1)


@pytest.mark.parametrize(('kernel', 'stride', 'memory_format'), list(product((1, 3), (1, 2), FORMATS)))
def test_ways_agree_and_keep_the_format(kernel, stride, memory_format):
    from plain_ways import PLAIN_WAYS, UNTIED, all_ways
    layer = TBC(12, 24, kernel, stride, kernel // 2, bias=False, num_blocks=3, dtype=torch.float64)
    x = torch.randn(2, 12, 7, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    expected = by_hand(layer, x)
    gradient = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, (x, layer.weight), gradient)
    ways = all_ways(layer)
    assert set(ways) == {'TBC', *PLAIN_WAYS, UNTIED} - ({'matrix product'} if kernel == 3 else set())
    assert ways.pop(UNTIED).weight.shape == (24, 4, kernel, kernel)
    for name, way in ways.items():
        way.to(memory_format=memory_format)
        found = way(x)
        assert found.is_contiguous(memory_format=memory_format), name
        torch.testing.assert_close(found, expected)
        for of, value in zip(torch.autograd.grad(found, (x, way.weight), gradient), expected_gradients, strict=True):
            torch.testing.assert_close(of, value)


def test_figure_3_has_the_same_multiply_adds_at_every_b():
    from figure3 import contenders
    x = torch.zeros(1, 32, 4, 4)
    counts = {}
    for name, layer in contenders(32, 6, 3, (1, 2, 8)).items():
        with FlopCounterMode(display=False) as counter:
            layer(x)
        counts[name] = counter.get_total_flops()
    assert len(counts) == 1 + 3 * 3
    assert set(counts.values()) == {2 * 32 * 6 * 9 * 16}


@pytest.mark.parametrize('base_width', [32, 18])
def test_shapes_of_a_network_make_its_tied_multiply_adds(base_width):
    """torch's counter sees all convolutions, of which the untied ones are known from their modules."""
    from tied_shapes import tied_shapes

    from mmtied.backbones import TiedResNet
    network = TiedResNet(base_width=base_width).eval()
    shapes = tied_shapes(network, 1, (64, 96))
    assert sum(shapes.values()) == 16 + 4 + 3 * 16  # entries, shortcuts, and the splits but the first
    tied = sum(count * shape.in_channels * shape.out_channels * shape.kernel**2 // shape.num_blocks
               * (shape.height // shape.stride) * (shape.width // shape.stride) for shape, count in shapes.items())
    untied = 0

    def add(module, _, output):
        nonlocal untied
        if isinstance(module, nn.Conv2d) and getattr(module, 'num_blocks', 1) == 1:
            untied += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        module.register_forward_hook(add)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))
    assert tied + untied == counter.get_total_flops() // 2


def test_a_layer_that_its_network_does_not_call_has_the_size_of_what_is_around_it():
    from tied_shapes import TiedShape, tied_shapes

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([TBC(4, 4, 3, 2, 1, bias=False)])

        def forward(self, x):
            return nn.functional.conv2d(x[:, :4], self.convs[0].expanded_weight(), None, 2, 1, 1, 2)

    network = nn.Sequential(nn.Conv2d(3, 8, 1, 2), Fused())
    assert dict(tied_shapes(network, 5, (8, 12))) == {TiedShape(5, 4, 4, 4, 6, 3, 2, 2): 1}


def test_a_layer_that_does_not_fit_the_tables_is_an_error():
    from tied_shapes import tied_shapes
    with pytest.raises(ValueError, match='0: TBC.* is not a square convolution'):
        tied_shapes(nn.Sequential(TBC(3, 3, 3, num_blocks=3)), 1, (8, 8))
