"""COCO's compressed run-length codes of many masks at once, checked and measured; pycocotools checks nothing."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mmtied.native import library
from mmtied.native.run_lengths import Codes, areas, code_lengths

from .rle_sums import code_sums

#: Characters of code that are read at a time; with NumPy what is made of them fits a processor's cache.
CHUNK = 1 << 17
COMPILED_CHUNK = 1 << 22


def rle_areas(rles: Sequence[dict], where: Callable[[int], str] = 'mask {}'.format) -> np.ndarray:
    """Pixels of each mask, shape (N,) int64, from codes that are checked to be whole.

    Args:
        rles: Dicts with ``size`` (height, width) and compressed ``counts``, str or bytes.
        where: The name of the mask at a position, for messages.

    Raises:
        ValueError: A code has other characters, is cut off, has a negative length, or its runs do not add up to the mask's
            pixels.

    Example:
        >>> rle_areas([{'size': [2, 3], 'counts': b'132'}, {'size': [1, 4], 'counts': b'4'}])
        array([3, 0])
    """
    codes, num_pixels = rle_codes(rles), rle_pixels(rles)
    measure, chunk = (_by_numpy, CHUNK) if library() is None else (_compiled, COMPILED_CHUNK)
    found = np.empty(len(rles), dtype=np.int64)
    for part in pieces(codes, chunk):
        found[part] = measure(codes[part], num_pixels[part])
        if (found[part] < 0).any():
            number = part.start + int((found[part] < 0).argmax())
            height, width = rles[number]['size']
            raise ValueError(f'{where(number)}: its run-length code is broken or cut off; runs that add up to '
                             f'{height} x {width} pixels are needed')
    return found


def rle_codes(rles: Sequence[dict]) -> list[bytes]:
    """The codes without their sizes."""
    return [rle['counts'] if isinstance(rle['counts'], bytes) else rle['counts'].encode('utf-8', 'surrogatepass')
            for rle in rles]


def rle_pixels(rles: Sequence[dict]) -> np.ndarray:
    """Pixels of the whole image of each mask, shape (N,) int64."""
    return np.array([rle['size'] for rle in rles], dtype=np.int64).reshape(-1, 2).prod(axis=1)


def pieces(codes: Sequence[bytes], limit: int) -> Iterator[slice]:
    """Slices of consecutive codes, none of them empty, that have about `limit` characters together."""
    ends = np.cumsum(code_lengths(codes))
    start = 0
    while start < len(codes):
        end = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + limit, side='right')))
        yield slice(start, end)
        start = end


def _by_numpy(codes: list[bytes], num_pixels: np.ndarray) -> np.ndarray:
    foreground, total, whole = code_sums(b''.join(codes), code_lengths(codes), num_pixels)
    return np.where(whole & (total == num_pixels), foreground, -1)


def _compiled(codes: list[bytes], num_pixels: np.ndarray) -> np.ndarray:
    return areas(Codes.of(codes, num_pixels))
