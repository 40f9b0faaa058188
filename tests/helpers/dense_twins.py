"""Oracles for tied layers: ordinary dense layers with the tied weight written block by block, as Eq. 3 and 4 of the paper say."""

import torch
from torch import nn

from mmtied.layers import TBC, TFC, TGC


def dense_conv(layer: TBC | TGC) -> nn.Conv2d:
    """Return the ordinary, ungrouped convolution that a tied one equals."""
    groups, blocks = layer.groups, layer.num_blocks
    twin = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, 1,
                     layer.bias is not None, layer.padding_mode, dtype=layer.weight.dtype, device=layer.weight.device)
    outs, ins = layer.out_channels // (groups * blocks), layer.in_channels // (groups * blocks)
    with torch.no_grad():
        twin.weight.zero_()
        for g in range(groups):
            for b in range(blocks):
                row, col = (g * blocks + b) * outs, (g * blocks + b) * ins
                twin.weight[row:row + outs, col:col + ins] = layer.weight[g * outs:(g + 1) * outs]
                if layer.bias is not None:
                    twin.bias[row:row + outs] = layer.bias[g * outs:(g + 1) * outs]
    return twin


def dense_linear(layer: TFC) -> nn.Linear:
    """Return the ordinary linear layer that a tied one equals."""
    twin = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=layer.weight.dtype)
    with torch.no_grad():
        twin.weight.copy_(torch.block_diag(*[layer.weight] * layer.num_blocks))
        if layer.bias is not None:
            twin.bias.copy_(layer.bias.repeat(layer.num_blocks))
    return twin
