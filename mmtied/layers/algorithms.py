"""Algorithms that compute a tied block convolution with PyTorch's own operators, and the rule that picks one.

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
    """Convolve with the thin weight, with the blocks folded into the batch; makes no copy in contiguous NCHW."""
    # The batch is -1 because exporters would fix the size of their example. And reshape, not view: a trace made with one image,
    # where a slice of the channels is contiguous, must also run with several, where it is not.
    images = x.reshape(-1, weight.size(1), *x.shape[2:])
    y = F.conv2d(images, weight, bias, geometry.stride, geometry.padding, geometry.dilation)
    y = y.reshape(-1, weight.size(0) * geometry.num_blocks, *y.shape[2:])
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else y


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with G * B groups and the thin weight repeated."""
    if is_channels_last(x):  # repeat in the layout that the convolution wants, so that it makes no copy of its own
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
        x = F.avg_pool2d(x, 1, geometry.stride)  # the gradient of a slice would be contiguous NCHW, and slow to add to others
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
    """Convolve with G groups and a block-diagonal weight: B times the multiply-adds, in the largest pieces."""
    return F.conv2d(x, block_diagonal(weight, geometry), None if bias is None else repeat_blocks(bias, geometry),
                    geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with the thin weight as a k x k x 1 filter over (H, W, B); makes no copy in channels_last.

    There the memory is N, H, W, C = N, H, W, B, C / B, which is channels_last_3d.
    """
    volume = x.unflatten(1, (geometry.num_blocks, weight.size(1))).permute(0, 2, 3, 4, 1)
    padding = geometry.padding if isinstance(geometry.padding, str) else (*geometry.padding, 0)
    y = F.conv3d(volume, weight.unsqueeze(-1), bias, (*geometry.stride, 1), padding, (*geometry.dilation, 1))
    y = y.permute(0, 4, 1, 2, 3).flatten(1, 2)
    return y.contiguous(memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)


#: The algorithms by name. The rule never picks conv3d: no GPU has measured it yet, and a CPU gains nothing by it.
ALGORITHMS: dict[str, Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]] = {
    'fold': fold, 'grouped': grouped, 'matmul': matmul, 'dense': dense, 'conv3d': conv3d}
#: Values of `tied_conv_algorithm` and of the layers' `algorithm`.
CHOICES = ('auto', *ALGORITHMS)

_choice = 'auto'


@contextmanager
def tied_conv_algorithm(choice: str) -> Iterator[None]:
    """Compute tied convolutions with this algorithm inside the block, unless a layer's own `algorithm` says otherwise.

    The choice holds for the whole process, threads included. A block with `with_cp` runs again in the backward pass, so that
    must be inside the same ``with``.

    Args:
        choice: 'auto', 'fold', 'grouped', 'matmul', 'dense' or 'conv3d'. A layer that the algorithm cannot compute ('matmul'
            with a 3x3 filter, 'fold' and 'conv3d' with groups) follows the rule.

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
    """Return the name of the algorithm for an input of shape (N, C_in, H, W) and the thin weight, and the reason.

    The layer's own choice 'auto' leaves it to `tied_conv_algorithm`.
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
    """Return the algorithm that won most measurements of its kind, and the reason (docs/performance.md)."""
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
    """Return the algorithm inside torch.compile: the rule's, except where inductor cannot compile its gradient.

    torch 2.13 fails on the gradient of a folded batch, and of strided products, when height and width are symbolic.
    """
    name, reason = rule_for(x, weight, geometry)
    if is_training(x, weight) and (name == 'fold' or geometry.stride != (1, 1)):
        return 'grouped', 'compiled for training, where sizes may change'
    return name, reason


def rule_for_export(x: Tensor, geometry: Geometry) -> tuple[str, str]:
    """Return the algorithm in traces and exported graphs: always a convolution, which other runtimes fuse best.

    Never 'dense', whose weight is copied into a diagonal, which ONNX exporters drop or refuse.
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
    """Return whether the channels of a pixel are adjacent, as in channels_last and in a slice of its channels."""
    return x.stride(1) == 1 and not x.is_contiguous()


def block_diagonal(weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the weight of the equivalent convolution with G groups, with zeros between the blocks of a group.

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
