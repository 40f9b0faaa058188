"""Load the kernels that fit this processor, and say when they may be used."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mmtied.layers.choice import is_exporting


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled kernels for this processor, or None where `setup.py` could not compile them."""
    name = f'_{torch.backends.cpu.get_cpu_capability().lower()}'
    found = sorted(Path(__file__).parent.glob(f'{name}.*.so')) + sorted(Path(__file__).parent.glob(f'{name}.so'))
    return ctypes.CDLL(str(found[0])) if found else None


def can_use(x: Tensor) -> bool:
    """Whether kernels may work on this tensor: float32 in channels_last (or a slice of its channels) on the CPU, eagerly.

    Not in traced, exported or compiled graphs, under torch.func, forward-mode differentiation or autocast, nor for subclasses
    of tensors.
    """
    return (type(x) is Tensor and x.device.type == 'cpu' and x.dtype == torch.float32 and x.dim() == 4 and x.numel() > 0
            and _is_channels_last(x) and not torch.compiler.is_compiling() and not is_exporting()
            and not torch._C._are_functorch_transforms_active() and torch.autograd.forward_ad._current_level < 0
            and not torch.is_autocast_enabled('cpu') and kernels() is not None)


def pixel_stride(x: Tensor) -> int:
    """Values from one pixel of a row to the next, for a tensor that `can_use` accepts."""
    return x.stride(3)


def _is_channels_last(x: Tensor) -> bool:
    """Whether the pixels of all images follow each other at one distance, each with its channels side by side."""
    _, channels, height, width = x.shape
    step = x.stride(3)
    return x.stride(1) == 1 and step >= channels and x.stride(2) == width * step and x.stride(0) == height * width * step
