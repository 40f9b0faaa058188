"""Optional C++ for run-length codes, which makes mask evaluation two to three times as fast.

`setup.py` compiles it if a compiler is available. Without it, or with the environment variable ``MMTIED_NATIVE=0``, NumPy and
pycocotools compute the same results.
"""

import ctypes
import os
import sysconfig
import warnings
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

__all__ = ['Codes', 'areas', 'code_lengths', 'intersections', 'library', 'num_threads']

_in_forked_process = False


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None if it is not compiled or ``MMTIED_NATIVE=0`` turns it off."""
    return None if os.environ.get('MMTIED_NATIVE') == '0' else _load()


def num_threads(available: int | None = None) -> int:
    """Return the number of threads to use: by default PyTorch's, but 1 in a forked process, where OpenMP would hang."""
    return 1 if _in_forked_process else available or torch.get_num_threads()


class Codes(NamedTuple):
    """M compressed run-length codes.

    Attributes:
        text: The codes, concatenated.
        ends: End of each code in `text`, shape (M,) int64.
        pixels: Number of pixels of each mask's image, shape (M,) int64.
    """

    text: bytes
    ends: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, codes: Sequence[bytes], pixels: np.ndarray) -> 'Codes':
        """Concatenate codes; `pixels` has the number of pixels of each mask's image."""
        return cls(b''.join(codes), np.cumsum(code_lengths(codes)), np.ascontiguousarray(pixels, dtype=np.int64))


def code_lengths(codes: Sequence[bytes]) -> np.ndarray:
    """Return the length of each code in characters, shape (M,) int64."""
    return np.fromiter(map(len, codes), dtype=np.int64, count=len(codes))


def areas(codes: Codes) -> np.ndarray:
    """Return the area of each mask in pixels, shape (M,) int64; -1 for a code that is malformed or does not fill its image."""
    found = np.empty(len(codes.ends), dtype=np.int64)
    _functions().mmtied_rle_areas(*_arguments(codes), len(found), found.ctypes.data, num_threads())
    return found


def intersections(codes: Codes, others: Codes, first: np.ndarray, second: np.ndarray, threads: int | None = None) -> np.ndarray:
    """Return the number of pixels that the two masks of each pair share, shape (P,) int64.

    Args:
        codes: Valid codes.
        others: Valid codes.
        first: Indices into `codes`, shape (P,) int64, sorted.
        second: Indices into `others`, shape (P,) int64. Both masks of a pair must have the same image size.
        threads: Number of threads, by default PyTorch's.
    """
    first, second = (np.ascontiguousarray(column, dtype=np.int64) for column in (first, second))
    shared = np.empty(len(first), dtype=np.int64)
    _functions().mmtied_rle_intersections(*_arguments(codes), *_arguments(others), len(others.ends), first.ctypes.data,
                                          second.ctypes.data, len(shared), shared.ctypes.data, num_threads(threads))
    return shared


def _arguments(codes: Codes) -> tuple[bytes, int, int]:
    return codes.text, codes.ends.ctypes.data, codes.pixels.ctypes.data


@cache
def _functions() -> ctypes.CDLL:
    functions = library()
    codes = (c_char_p, c_void_p, c_void_p)
    functions.mmtied_rle_areas.argtypes = (*codes, c_int64, c_void_p, c_int)
    functions.mmtied_rle_intersections.argtypes = (*codes, *codes, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int)
    for function in (functions.mmtied_rle_areas, functions.mmtied_rle_intersections):
        function.restype = None
    return functions


@cache
def _load() -> ctypes.CDLL | None:
    path = Path(__file__).parent / f'_run_lengths{sysconfig.get_config_var("EXT_SUFFIX")}'
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        warnings.warn(f'mmtied: cannot load the compiled library ({error}); evaluation of masks is slower without it. Run make '
                      'setup, or install mmtied again, to compile it', RuntimeWarning, stacklevel=3)
        return None


def _after_fork() -> None:
    global _in_forked_process
    _in_forked_process = True


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
