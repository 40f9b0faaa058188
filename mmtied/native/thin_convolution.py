"""Tied 3x3 convolutions of splits of the channels, in channels_last on the CPU, by the compiled library.

PyTorch's convolutions fill vector registers with channels; blocks of 6, 9 or 18 do not fill them. The library fills them with
pixels, and reads and writes the splits where they are (`thin_convolution.cpp`).
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .conditions import is_plain, is_transformed, may_stand_in
from .loading import library, num_threads


class Splits(NamedTuple):
    """Equal parts of the channels, and their convolutions: 3x3, padded by the dilation, which is 1 with stride 2."""

    blocks: tuple[int, ...]
    stride: int
    dilation: int


def can_convolve(x: Tensor, weights: Sequence[Tensor], splits: Splits) -> bool:
    """Whether the library may convolve x so: plain float32 tensors of shapes that fit, x in channels_last."""
    return (may_stand_in(x) and splits.stride in (1, 2) and (splits.stride == 1 or splits.dilation == 1)
            and x.dim() == 4 and x.stride(1) == 1 and not x.is_contiguous() and x.numel() > 0
            and all(map(is_plain, (x, *weights))) and _fit(x, weights, splits))


def _fit(x: Tensor, weights: Sequence[Tensor], splits: Splits) -> bool:
    """Whether the weights are those of equal splits that make up the channels of x."""
    width, rest = divmod(x.size(1), len(weights))
    return not rest and len(weights) == len(splits.blocks) and all(
        weight.size(0) * blocks == width and weight.shape == (width // blocks, width // blocks, 3, 3)
        for weight, blocks in zip(weights, splits.blocks, strict=True))


def convolve_splits(x: Tensor, weights: Sequence[Tensor], splits: Splits) -> Tensor:
    """The splits of x, each convolved with its tied weight, side by side.

    Args:
        x: (N, s * width, H, W), for which `can_convolve` holds.
        weights: For each of the s splits (width / blocks, width / blocks, 3, 3).
        splits: The rest of the layer.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights)):
        return _ThinConvolution.apply(x, splits, *weights)
    return _forward(x, weights, splits)


def convolve_splits_scaled(x: Tensor, weights: Sequence[Tensor], splits: Splits, scale: Tensor, shift: Tensor,
                           relu: bool) -> Tensor:
    """`convolve_splits` times scale plus shift, which have a value for each channel, then ReLU if wanted; without gradients."""
    return _forward(x, weights, splits, scale.float().contiguous(), shift.float().contiguous(), relu)


class _ThinConvolution(torch.autograd.Function):
    """All splits at once, from x and a weight for each of them."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, splits: Splits, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.splits = splits
        return _forward(x, weights, splits)

    @staticmethod
    def backward(ctx: FunctionCtx, gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        needs_x, needs_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or is_transformed(gradients) or not all(map(is_plain, (x, *weights, gradients))):
            wanted = [tensor for tensor, needed in zip((x, *weights), (needs_x, *needs_weights), strict=True) if needed]
            found = iter(_differentiable_gradients(x, weights, ctx.splits, gradients, wanted))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        of_x, of_weights = _backward(x, weights, ctx.splits, gradients, needs_x, any(needs_weights))
        return of_x, None, *(found if needed else None for found, needed in zip(of_weights, needs_weights, strict=True))


def _forward(x: Tensor, weights: Sequence[Tensor], splits: Splits, scale: Tensor | None = None,
             shift: Tensor | None = None, relu: bool = False) -> Tensor:
    height, width = (-(-size // splits.stride) for size in x.shape[2:])
    out = _empty(x, x.size(0), x.size(1), height, width)
    weights = [_dense(weight) for weight in weights]
    _functions().mmtied_thin_convolution(_pointer(x), _strides(x), _pointer(out), _strides(out), *_layer(x, weights, splits),
                                         _pointer(scale), _pointer(shift), relu, num_threads())
    return out


def _backward(x: Tensor, weights: Sequence[Tensor], splits: Splits, gradients: Tensor, needs_x: bool,
              needs_weights: bool) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradients of x and of the weights, or None for what is not needed."""
    # gradients come in any layout, and so may what a user's hooks made of x
    x, gradients = (tensor if tensor.stride(1) == 1 else tensor.contiguous(memory_format=torch.channels_last)
                    for tensor in (x, gradients))
    of_x = _empty(x, *x.shape) if needs_x else None
    weights = [_dense(weight) for weight in weights]
    of_weights = [torch.empty_like(weight) for weight in weights] if needs_weights else [None] * len(weights)
    filters, *rest = _layer(x, weights, splits)
    _functions().mmtied_thin_convolution_backward(
        _pointer(x), _strides(x), _pointer(gradients), _strides(gradients), _pointer(of_x),
        _strides(x if of_x is None else of_x), filters, _array(ctypes.c_void_p, [w.data_ptr() for w in of_weights])
        if needs_weights else None, *rest, num_threads())
    return of_x, of_weights


def _differentiable_gradients(x: Tensor, weights: Sequence[Tensor], splits: Splits, gradients: Tensor,
                              wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients by PyTorch's convolution, with a history if there is to be one."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        parts = [F.conv2d(part, weight.repeat(blocks, 1, 1, 1), None, splits.stride, splits.dilation, splits.dilation, blocks)
                 for part, weight, blocks in zip(x.chunk(len(weights), dim=1), weights, splits.blocks, strict=True)]
        return torch.autograd.grad(torch.cat(parts, dim=1), wanted, gradients, create_graph=create_graph)


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _dense(weight: Tensor) -> Tensor:
    """The weight, its taps evenly spaced, without gaps."""
    return weight if weight.is_contiguous(memory_format=torch.channels_last) else weight.contiguous()


def _layer(x: Tensor, weights: Sequence[Tensor], splits: Splits) -> tuple:
    """The arguments that describe the layer."""
    strides = [weight.stride(dim) for weight in weights for dim in (0, 1, 3)]
    return (_array(ctypes.c_void_p, [weight.data_ptr() for weight in weights]), _array(ctypes.c_int64, strides),
            _array(ctypes.c_int64, splits.blocks), ctypes.c_int64(len(weights)), ctypes.c_int64(x.size(1) // len(weights)),
            _array(ctypes.c_int64, (x.size(0), *x.shape[2:])), ctypes.c_int64(splits.stride), ctypes.c_int64(splits.dilation))


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _strides(tensor: Tensor) -> ctypes.Array:
    """The strides of images, rows and pixels."""
    return _array(ctypes.c_int64, (tensor.stride(0), tensor.stride(2), tensor.stride(3)))


def _array(kind: type, values: Sequence[int]) -> ctypes.Array:
    return (kind * len(values))(*values)


@cache
def _functions() -> ctypes.CDLL:
    functions = library()
    functions.mmtied_thin_convolution.restype = functions.mmtied_thin_convolution_backward.restype = None
    return functions
