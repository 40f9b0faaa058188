"""Four ways to compute a tied block convolution with PyTorch's own operators; they differ in copies and multiply-adds only.

Each takes an input of shape (N, C_in, H, W), the thin weight, the tied bias or None, and the `Geometry` of the layer, and returns
(N, C_out, H', W'). The group-major order of channels (X_11 .. X_1B, ..., X_G1 .. X_GB) is that of Eq. 4 of Wang & Yu, "Tied Block
Convolution", AAAI 2021.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Geometry(NamedTuple):
    """What a convolution is besides its weight: as in Conv2d, and B."""

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    num_blocks: int


Way = Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]


def fold(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution with the thin weight, the blocks as further images of the batch; without a copy in contiguous NCHW."""
    # The batch is -1: an exporter would fix that of its example, if it is one. No view: a trace made with one image, where
    # a slice of the channels is contiguous, then runs with several, where it is not.
    channels = weight.size(0) * geometry.num_blocks
    x = x.reshape(-1, weight.size(1), *x.shape[2:])
    x = F.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation)
    return x.reshape(-1, channels, *x.shape[2:])


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One grouped convolution with G * B groups, the thin weight repeated."""
    return F.conv2d(x, repeat_blocks(weight, geometry), None if bias is None else repeat_blocks(bias, geometry), geometry.stride,
                    geometry.padding, geometry.dilation, geometry.groups * geometry.num_blocks)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One matrix product for a 1x1 filter, each block of each pixel a row; without a copy in channels_last."""
    if geometry.stride != (1, 1):
        x = x[:, :, ::geometry.stride[0], ::geometry.stride[1]]
    pixels = x.permute(0, 2, 3, 1)
    rows = F.linear(pixels.reshape(*pixels.shape[:3], geometry.num_blocks, weight.size(1)), weight.flatten(1), bias)
    return rows.flatten(3).permute(0, 3, 1, 2)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution with G groups and the block-diagonal weight: B times the multiply-adds, in the largest pieces."""
    blocks = geometry.num_blocks
    grouped_weight = weight.unflatten(0, (geometry.groups, -1))
    diagonal = weight.new_zeros(geometry.groups, blocks, grouped_weight.size(1), blocks, *weight.shape[1:])
    diagonal.diagonal(dim1=1, dim2=3).copy_(grouped_weight.unsqueeze(-1).expand(*grouped_weight.shape, blocks))
    return F.conv2d(x, diagonal.flatten(3, 4).flatten(0, 2), None if bias is None else repeat_blocks(bias, geometry),
                    geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def repeat_blocks(values: Tensor, geometry: Geometry) -> Tensor:
    """Repeat each group's slice num_blocks times along the first dimension: group-major order (Eq. 4)."""
    by_group = values.unflatten(0, (geometry.groups, 1, -1))
    return by_group.expand(-1, geometry.num_blocks, *by_group.shape[2:]).flatten(0, 2)


#: The ways by name.
WAYS: dict[str, Way] = {'fold': fold, 'grouped': grouped, 'matmul': matmul, 'dense': dense}


def possible_ways(weight: Tensor, geometry: Geometry) -> list[str]:
    """The names of the ways that can compute such a layer."""
    ways = ['grouped', 'dense']
    if geometry.groups == 1:
        ways.insert(0, 'fold')
        unpadded = geometry.padding in ('valid', 'same', (0, 0))
        if tuple(weight.shape[2:]) == (1, 1) and unpadded:
            ways.append('matmul')
    return ways
