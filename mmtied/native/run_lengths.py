"""Masks as run-length codes: their pixels, and the pixels that pairs of them share."""

from collections.abc import Sequence
from ctypes import CDLL, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from typing import NamedTuple

import numpy as np

from .loading import library, num_threads


class Codes(NamedTuple):
    """M compressed run-length codes.

    Args:
        text: The codes one after the other.
        ends: Where each ends, shape (M,) int64.
        pixels: Pixels of each image, shape (M,) int64.
    """

    text: bytes
    ends: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, codes: Sequence[bytes], pixels: np.ndarray) -> 'Codes':
        """The codes of masks on images of so many pixels."""
        return cls(b''.join(codes), np.cumsum(code_lengths(codes)), np.ascontiguousarray(pixels, dtype=np.int64))


def code_lengths(codes: Sequence[bytes]) -> np.ndarray:
    """Characters of each code, shape (M,) int64."""
    return np.fromiter(map(len, codes), dtype=np.int64, count=len(codes))


def areas(codes: Codes) -> np.ndarray:
    """Pixels of each mask, shape (M,) int64; -1 for a code that is broken or does not fill its image."""
    found = np.empty(len(codes.ends), dtype=np.int64)
    _functions().mmtied_rle_areas(*_arguments(codes), len(found), found.ctypes.data, num_threads())
    return found


def intersections(codes: Codes, others: Codes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixels that both masks of each pair have, shape (P,) int64.

    Args:
        codes: Whole codes.
        others: Whole codes.
        first: Positions among `codes`, shape (P,) int64, sorted.
        second: Positions among `others`, shape (P,) int64; the images of a pair are of one size.
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
