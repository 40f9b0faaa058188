"""Algorithms that compute a tied block convolution with PyTorch operators, and the rule that picks one.

Each takes an input of shape (N, C_in, H, W), the thin weight, the tied bias or None, and the `Geometry` of the layer, and
returns (N, C_out, H', W'). They differ only in copies and multiply-adds. Channels are in the group-major order of Eq. 4 of Wang &
Yu, "Tied Block Convolution", AAAI 2021: X_11 .. X_1B, ..., X_G1 .. X_GB.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtied.torch_compat import is_compiling, is_exporting


class Geometry(NamedTuple):
    """Convolution hyperparameters, as in Conv2d, and B."""

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    num_blocks: int


def fold(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Fold the blocks into the batch and convolve with the thin weight; copy-free in contiguous NCHW."""
    # Batch size -1: exporters would bake in that of their example. reshape, not view: a slice of the channels is contiguous in
    # a trace made with one image, but not when the trace runs with several.
    images = x.reshape(-1, weight.size(1), *x.shape[2:])
    y = F.conv2d(images, weight, bias, geometry.stride, geometry.padding, geometry.dilation)
    y = y.reshape(-1, weight.size(0) * geometry.num_blocks, *y.shape[2:])
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else y


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with G * B groups and the thin weight repeated."""
    if is_channels_last(x):  # repeat in the convolution's own layout, which saves a copy
        repeated = repeat_blocks(weight.permute(0, 2, 3, 1).contiguous(), geometry).permute(0, 3, 1, 2)
    else:
        repeated = repeat_blocks(weight, geometry)
    return F.conv2d(x, repeated, None if bias is None else repeat_blocks(bias, geometry), geometry.stride, geometry.padding,
                    geometry.dilation, geometry.groups * geometry.num_blocks)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Compute a 1x1 convolution as matrix products, without copying the activations.

    In channels_last each block of each pixel is a row of one product; in contiguous NCHW each block of each image is a matrix.
    """
    channels_last, thin = is_channels_last(x), weight.flatten(1)
    trains = x.requires_grad and torch.is_grad_enabled() and x.is_floating_point()
    if geometry.stride != (1, 1) and channels_last and trains and x.device.type == 'cpu':
        x = F.avg_pool2d(x, 1, geometry.stride)  # a slice's gradient would be contiguous NCHW, which is slow to accumulate
    elif geometry.stride != (1, 1):
        x = x[:, :, ::geometry.stride[0], ::geometry.stride[1]]
    if channels_last:
        pixels = x.permute(0, 2, 3, 1)
        rows = F.linear(pixels.reshape(*pixels.shape[:3], geometry.num_blocks, weight.size(1)), thin, bias)
        return rows.flatten(3).permute(0, 3, 1, 2)
    y = thin @ x.reshape(x.size(0), geometry.num_blocks, weight.size(1), x.size(2) * x.size(3))
    y = y if bias is None else y + bias.to(y.dtype)[:, None]  # autocast does not cast additions
    return y.reshape(x.size(0), weight.size(0) * geometry.num_blocks, *x.shape[2:])


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with G groups and a block-diagonal weight: B times the multiply-adds in B times fewer groups."""
    return F.conv2d(x, block_diagonal(weight, geometry), None if bias is None else repeat_blocks(bias, geometry),
                    geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with the thin weight as a k x k x 1 filter over (H, W, B).

    Copy-free in channels_last, whose memory order N, H, W, B, C / B is that of channels_last_3d.
    """
    volume = x.unflatten(1, (geometry.num_blocks, weight.size(1))).permute(0, 2, 3, 4, 1)
    padding = geometry.padding if isinstance(geometry.padding, str) else (*geometry.padding, 0)
    y = F.conv3d(volume, weight.unsqueeze(-1), bias, (*geometry.stride, 1), padding, (*geometry.dilation, 1))
    y = y.permute(0, 4, 1, 2, 3).flatten(1, 2)
    return y.contiguous(memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)


#: Algorithms by name. The rule never picks conv3d, which is no faster on CPUs and not yet measured on GPUs.
ALGORITHMS: dict[str, Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]] = {
    'fold': fold, 'grouped': grouped, 'matmul': matmul, 'dense': dense, 'conv3d': conv3d}
#: Values of `tied_conv_algorithm` and of the layers' `algorithm`.
CHOICES = ('auto', *ALGORITHMS)

_choice = 'auto'


@contextmanager
def tied_conv_algorithm(choice: str) -> Iterator[None]:
    """Use one algorithm for all tied convolutions in a ``with`` block, except for layers with their own `algorithm`.

    The choice is process-wide, threads included. Blocks with `with_cp` are recomputed in the backward pass, which must run
    inside the same ``with``.

    Args:
        choice: 'auto', 'fold', 'grouped', 'matmul', 'dense' or 'conv3d'. Layers that the algorithm cannot compute ('matmul'
            with a 3x3 filter, 'fold' and 'conv3d' with groups) follow the rule.

    Raises:
        ValueError: An unknown algorithm.

    Example:
        >>> from mmtied.layers import TBC
        >>> layer, x = TBC(8, 8, 1), torch.rand(1, 8, 4, 4)
        >>> with tied_conv_algorithm('grouped'):
        ...     layer.describe_dispatch(x)
        'grouped: as requested'
    """
    global _choice
    check_algorithm('tied_conv_algorithm', choice)
    previous, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = previous


def check_algorithm(layer: str, choice: str) -> None:
    """Raise a ValueError for an unknown or removed algorithm."""
    if choice == 'measured':
        raise ValueError(f"{layer}: 'measured' was removed; use 'auto', whose rule was chosen by measurements")
    if choice not in CHOICES:
        raise ValueError(f'{layer}: algorithm={choice!r}, expected one of {", ".join(map(repr, CHOICES))}')


def choose_algorithm(x: Tensor, weight: Tensor, geometry: Geometry, layer_choice: str = 'auto') -> tuple[str, str]:
    """Return the name of the algorithm for an input (N, C_in, H, W) and a thin weight, and the reason.

    With `layer_choice` 'auto', `tied_conv_algorithm` decides.
    """
    choice = layer_choice if layer_choice != 'auto' else _choice
    check_algorithm('tied convolution', choice)
    if choice == 'auto':
        return _automatic(x, weight, geometry)
    if can_compute(choice, weight, geometry) and not (choice == 'dense' and is_exporting()):
        return choice, 'as requested'
    name, reason = _automatic(x, weight, geometry)
    return name, f'{choice} was requested but cannot compute this layer; {reason}'


def _automatic(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[str, str]:
    if is_exporting():
        return rule_for_export(x, geometry)
    return rule_for_compilation(x, weight, geometry) if is_compiling() else rule_for(x, weight, geometry)


def rule_for(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[str, str]:
    """Return the algorithm that was fastest in our measurements (docs/performance.md), and the reason."""
    channels, on_cpu = weight.size(1), x.device.type == 'cpu'
    if is_channels_last(x):
        if is_pointwise(weight, geometry):
            return 'matmul', 'a 1x1 filter in channels_last is one matrix product without copies'
        if geometry.groups == 1 and channels >= 64 and x.size(2) * x.size(3) <= 196 and on_cpu:
            return 'fold', 'for wide blocks on a small map, folding is worth its copies in channels_last'
        return 'grouped', 'in channels_last, folding would copy input and output; repeating the weight is cheap'
    if geometry.groups > 1:
        return 'grouped', 'with groups, the blocks of a group cannot be folded'
    if on_cpu:
        trains, strided = is_training(x, weight), geometry.stride != (1, 1)
        if trains and strided and is_pointwise(weight, geometry):
            return 'matmul', 'with a stride, the backward pass of a matrix product writes fewer pixels than that of a convolution'
        thin = (4, 8, 16) if strided else (4, 8)
        if weight.size(2) > 1 and channels in thin and (trains or not strided):
            return 'grouped', 'thin blocks fill the vector registers only as groups'
    return 'fold', 'in contiguous NCHW, folding is a view and the weight stays thin'


def rule_for_compilation(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[str, str]:
    """Return the algorithm inside torch.compile: the rule's, unless inductor cannot compile its gradient.

    With symbolic height and width, torch 2.13 fails on the gradients of a folded batch and of strided products.
    """
    name, reason = rule_for(x, weight, geometry)
    if is_training(x, weight) and (name == 'fold' or geometry.stride != (1, 1)):
        return 'grouped', 'compiled for training, where sizes may change'
    return name, reason


def rule_for_export(x: Tensor, geometry: Geometry) -> tuple[str, str]:
    """Return the algorithm in traces and exported graphs: always a convolution, which other runtimes fuse best.

    Never 'dense': ONNX exporters drop or reject the copy into a diagonal.
    """
    if x.is_contiguous() and geometry.groups == 1:
        return 'fold', 'exported as one convolution with the thin weight'
    return 'grouped', 'exported as one grouped convolution'


def can_compute(name: str, weight: Tensor, geometry: Geometry) -> bool:
    """Return whether an algorithm can compute a layer."""
    if name in ('fold', 'conv3d'):
        return geometry.groups == 1
    return name != 'matmul' or is_pointwise(weight, geometry)


def is_pointwise(weight: Tensor, geometry: Geometry) -> bool:
    """Return whether the layer is an unpadded 1x1 convolution without groups."""
    return weight.shape[2:] == (1, 1) and geometry.groups == 1 and geometry.padding in ((0, 0), 'valid', 'same')


def is_training(x: Tensor, weight: Tensor) -> bool:
    """Return whether autograd records the call."""
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def is_channels_last(x: Tensor) -> bool:
    """Return whether the channels of a pixel are adjacent, as in channels_last and in channel slices of it."""
    return x.stride(1) == 1 and not x.is_contiguous()


def block_diagonal(weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the weight of the equivalent convolution with G groups, zero outside the diagonal blocks of each group.

    Shape: (C_out / B, C_in / (B * G), k, k) to (C_out, C_in / G, k, k).
    """
    blocks, by_group = geometry.num_blocks, weight.unflatten(0, (geometry.groups, -1))
    diagonal = weight.new_zeros(geometry.groups, blocks, by_group.size(1), blocks, *weight.shape[1:])
    diagonal.diagonal(dim1=1, dim2=3).copy_(by_group.unsqueeze(-1).expand(*by_group.shape, blocks))
    return diagonal.flatten(3, 4).flatten(0, 2)


def repeat_blocks(values: Tensor, geometry: Geometry) -> Tensor:
    """Repeat each group's slice num_blocks times along the first dimension, in group-major order (Eq. 4)."""
    by_group = values.unflatten(0, (geometry.groups, 1, -1))
    return by_group.expand(-1, geometry.num_blocks, *by_group.shape[2:]).flatten(0, 2)
