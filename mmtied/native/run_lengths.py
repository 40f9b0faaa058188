"""Areas and pairwise intersections of masks given as COCO's compressed run-length codes."""

from collections.abc import Sequence
from ctypes import CDLL, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from typing import NamedTuple

import numpy as np

from .loading import library, num_threads


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
        """Concatenate the codes of masks, whose images have these numbers of pixels."""
        return cls(b''.join(codes), np.cumsum(code_lengths(codes)), np.ascontiguousarray(pixels, dtype=np.int64))


def code_lengths(codes: Sequence[bytes]) -> np.ndarray:
    """Return the length of each code in characters, shape (M,) int64."""
    return np.fromiter(map(len, codes), dtype=np.int64, count=len(codes))


def areas(codes: Codes) -> np.ndarray:
    """Return the area of each mask in pixels, shape (M,) int64; -1 for a code that is malformed or does not fill its image."""
    found = np.empty(len(codes.ends), dtype=np.int64)
    _functions().mmtied_rle_areas(*_arguments(codes), len(found), found.ctypes.data, num_threads())
    return found


def intersections(codes: Codes, others: Codes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of pixels that the two masks of each pair share, shape (P,) int64.

    Args:
        codes: Valid codes.
        others: Valid codes.
        first: Indices into `codes`, shape (P,) int64, sorted.
        second: Indices into `others`, shape (P,) int64; both masks of a pair must have the same image size.
    """
    first, second = (np.ascontiguousarray(column, dtype=np.int64) for column in (first, second))
    shared = np.empty(len(first), dtype=np.int64)
    _functions().mmtied_rle_intersections(*_arguments(codes), *_arguments(others), len(others.ends), first.ctypes.data,
                                          second.ctypes.data, len(shared), shared.ctypes.data, num_threads())
    return shared


def _arguments(codes: Codes) -> tuple[bytes, int, int]:
    return codes.text, codes.ends.ctypes.data, codes.pixels.ctypes.data


@cache
def _functions() -> CDLL:
    functions = library()
    codes = (c_char_p, c_void_p, c_void_p)
    functions.mmtied_rle_areas.argtypes = (*codes, c_int64, c_void_p, c_int)
    functions.mmtied_rle_intersections.argtypes = (*codes, *codes, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int)
    for function in (functions.mmtied_rle_areas, functions.mmtied_rle_intersections):
        function.restype = None
    return functions
