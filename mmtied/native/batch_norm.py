"""BatchNorm on the statistics of the batch, alone, with ReLU, or with an addition and ReLU, of float32 maps in channels_last."""

from ctypes import CDLL, c_double, c_int, c_int64, c_void_p
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from .loading import library, num_threads


class Then(IntEnum):
    """What follows the normalisation; ADD_RELU adds a map of the same shape first."""

    NOTHING = 0
    RELU = 1
    ADD_RELU = 2


class Channels(NamedTuple):
    """A value for each channel of each of these, shape (C,) float32 without gaps."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    inverse_std: Tensor


def pixel_stride(x: Tensor) -> int | None:
    """Values from one pixel of a map (N, C, H, W) to the next, if its channels lie side by side and the pixels at even distances.

    So it is in channels_last, and in a slice of the channels of such a map. None for all else, and for maps of one pixel or one
    channel, whose memory format cannot be told.

    Example:
        >>> x = torch.zeros(2, 8, 3, 3).to(memory_format=torch.channels_last)
        >>> pixel_stride(x), pixel_stride(x[:, 2:5]), pixel_stride(x[:, ::2]), pixel_stride(torch.zeros(2, 8, 3, 3))
        (8, 8, None, None)
    """
    number, channels, height, width = x.shape
    if x.stride(1) != 1 or channels < 2 or height * width < 2:
        return None
    stride = x.stride(3) if width > 1 else x.stride(2)
    even = (height == 1 or x.stride(2) == width * stride) and (number == 1 or x.stride(0) == height * width * stride)
    return stride if even and stride >= channels else None


def measure(x: Tensor, eps: float, running: tuple[Tensor, Tensor] | None, momentum: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each channel of a map that has a `pixel_stride`.

    Args:
        x: Shape (N, C, H, W), with more than one pixel.
        eps: Added to the variance.
        running: Running mean and variance, which are moved in place; None where there are none.
        momentum: How far they move.
    """
    mean, inverse_std = x.new_empty(x.size(1)), x.new_empty(x.size(1))
    _functions().mmtied_norm_measure(*_map(x), *_size(x), eps, momentum, mean.data_ptr(), inverse_std.data_ptr(),
                                     *map(_address, running or (None, None)), num_threads())
    return mean, inverse_std


def apply(x: Tensor, channels: Channels, then: Then, identity: Tensor | None = None) -> Tensor:
    """The normalised map and what follows, in channels_last; to the bit the same in each call.

    Args:
        x: Shape (N, C, H, W); it and `identity` have a `pixel_stride`.
        channels: Weight, bias and statistics.
        then: What follows.
        identity: What is added with ADD_RELU, shape (N, C, H, W).
    """
    y = _empty_like(x)
    _functions().mmtied_norm_apply(*_map(x), *((None, 0) if identity is None else _map(identity)), y.data_ptr(), *_size(x),
                                   *map(Tensor.data_ptr, channels), then, num_threads())
    return y


def gradients(gradient: Tensor, x: Tensor, channels: Channels, then: Then, y: Tensor | None, of_x: bool,
              of_identity: bool) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """The gradients of x, weight, bias and identity from that of y.

    Args:
        gradient: Shape (N, C, H, W), with any strides.
        x: What was normalised.
        channels: Weight, bias and statistics, as for `apply`.
        then: What followed.
        y: What came of it, in channels_last; needed with ADD_RELU only.
        of_x: Whether x's gradient is needed; it is None else.
        of_identity: The same for identity's.
    """
    copied = pixel_stride(gradient) is None
    gradient = gradient.contiguous(memory_format=torch.channels_last) if copied else gradient
    to_x = _empty_like(x) if of_x else None
    passed = None
    if then == Then.ADD_RELU:  # it has to be written in any case, if possible over what nobody else needs
        passed = gradient if copied else to_x if of_x and not of_identity else _empty_like(x)
    to_weight, to_bias = x.new_empty(x.size(1)), x.new_empty(x.size(1))
    _functions().mmtied_norm_backward(*_map(x), _address(y), *_map(gradient), _address(passed), _address(to_x), *_size(x),
                                      *map(Tensor.data_ptr, channels), to_weight.data_ptr(), to_bias.data_ptr(), then,
                                      num_threads())
    return to_x, to_weight, to_bias, passed if of_identity else None


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _map(x: Tensor) -> tuple[int, int]:
    return x.data_ptr(), pixel_stride(x)


def _size(x: Tensor) -> tuple[int, int]:
    """Pixels of all images, and channels."""
    return x.numel() // x.size(1), x.size(1)


@cache
def _functions() -> CDLL:
    functions = library()
    x, channels, size = (c_void_p, c_int64), (c_void_p, ) * len(Channels._fields), (c_int64, c_int64)
    functions.mmtied_norm_measure.argtypes = (*x, *size, c_double, c_double, *(c_void_p, ) * 4, c_int)
    functions.mmtied_norm_apply.argtypes = (*x, *x, c_void_p, *size, *channels, c_int, c_int)
    functions.mmtied_norm_backward.argtypes = (*x, c_void_p, *x, c_void_p, c_void_p, *size, *channels, c_void_p, c_void_p, c_int,
                                               c_int)
    for function in (functions.mmtied_norm_measure, functions.mmtied_norm_apply, functions.mmtied_norm_backward):
        function.restype = None
    return functions
