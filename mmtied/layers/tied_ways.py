"""Four ways to compute a tied block convolution with PyTorch's own operators; they differ in copies and multiply-adds only.

Each takes an input of shape (N, C_in, H, W), the thin weight, the tied bias or None, and the `Geometry` of the layer, and returns
(N, C_out, H', W'). The group-major order of channels (X_11 .. X_1B, ..., X_G1 .. X_GB) is that of Eq. 4 of Wang & Yu, "Tied Block
Convolution", AAAI 2021.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
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
    images = x.reshape(-1, weight.size(1), *x.shape[2:])
    y = F.conv2d(images, weight, bias, geometry.stride, geometry.padding, geometry.dilation)
    y = y.reshape(-1, weight.size(0) * geometry.num_blocks, *y.shape[2:])
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else y


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One grouped convolution with G * B groups, the thin weight repeated."""
    if is_channels_last(x):  # repeated as the convolution wants it, so that it makes no copy of its own
        repeated = repeat_blocks(weight.permute(0, 2, 3, 1).contiguous(), geometry).permute(0, 3, 1, 2)
    else:
        repeated = repeat_blocks(weight, geometry)
    return F.conv2d(x, repeated, None if bias is None else repeat_blocks(bias, geometry), geometry.stride, geometry.padding,
                    geometry.dilation, geometry.groups * geometry.num_blocks)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Matrix products for a 1x1 filter, without a copy of the activations.

    In channels_last each block of each pixel is a row of one product; in contiguous NCHW each block of each image is a matrix.
    """
    channels_last, thin = is_channels_last(x), weight.flatten(1)
    trains = x.requires_grad and torch.is_grad_enabled() and x.is_floating_point()
    if geometry.stride != (1, 1) and channels_last and trains and x.device.type == 'cpu':
        x = F.avg_pool2d(x, 1, geometry.stride)  # the gradient of a slice would be contiguous NCHW, and slow to add to others
    elif geometry.stride != (1, 1):
        x = x[:, :, ::geometry.stride[0], ::geometry.stride[1]]
    if channels_last:
        pixels = x.permute(0, 2, 3, 1)
        rows = F.linear(pixels.reshape(*pixels.shape[:3], geometry.num_blocks, weight.size(1)), thin, bias)
        return rows.flatten(3).permute(0, 3, 1, 2)
    y = thin @ x.reshape(x.size(0), geometry.num_blocks, weight.size(1), x.size(2) * x.size(3))
    y = y if bias is None else y + bias.to(y.dtype)[:, None]  # autocast leaves an addition alone
    return y.reshape(x.size(0), weight.size(0) * geometry.num_blocks, *x.shape[2:])


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution with G groups and the block-diagonal weight: B times the multiply-adds, in the largest pieces."""
    return F.conv2d(x, block_diagonal(weight, geometry), None if bias is None else repeat_blocks(bias, geometry),
                    geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def block_diagonal(weight: Tensor, geometry: Geometry) -> Tensor:
    """The weight of the convolution with G groups that computes the same: zeros stand between the blocks of a group.

    Shape: (C_out / B, C_in / (B * G), k, k) to (C_out, C_in / G, k, k).
    """
    blocks, by_group = geometry.num_blocks, weight.unflatten(0, (geometry.groups, -1))
    diagonal = weight.new_zeros(geometry.groups, blocks, by_group.size(1), blocks, *weight.shape[1:])
    diagonal.diagonal(dim1=1, dim2=3).copy_(by_group.unsqueeze(-1).expand(*by_group.shape, blocks))
    return diagonal.flatten(3, 4).flatten(0, 2)


def repeat_blocks(values: Tensor, geometry: Geometry) -> Tensor:
    """Repeat each group's slice num_blocks times along the first dimension: group-major order (Eq. 4)."""
    by_group = values.unflatten(0, (geometry.groups, 1, -1))
    return by_group.expand(-1, geometry.num_blocks, *by_group.shape[2:]).flatten(0, 2)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, as in channels_last and in a slice of its channels."""
    return x.stride(1) == 1 and not x.is_contiguous()


#: The ways by name.
WAYS: dict[str, Way] = {'fold': fold, 'grouped': grouped, 'matmul': matmul, 'dense': dense}


def possible_ways(weight: Tensor, geometry: Geometry) -> list[str]:
    """The names of the ways that can compute such a layer."""
    ways = ['grouped', 'dense'] if geometry.groups > 1 else ['fold', 'grouped', 'dense']
    return [*ways, 'matmul'] if is_pointwise(weight, geometry) else ways


def is_pointwise(weight: Tensor, geometry: Geometry) -> bool:
    """Whether the layer is an unpadded 1x1 convolution without groups."""
    return weight.shape[2:] == (1, 1) and geometry.groups == 1 and geometry.padding in ((0, 0), 'valid', 'same')
