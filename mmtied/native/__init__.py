"""Kernels in C++ for training and inference on a CPU, where PyTorch's own operators are slow; optional.

`setup.py` compiles them where there is a compiler, once for each of `BUILDS`. Without them, and wherever they do not apply,
PyTorch's operators compute the same.
"""

from .library import can_use, kernels

__all__ = ['can_use', 'kernels']
