"""COCO's compressed run-length codes of many masks at once, checked and measured; pycocotools checks nothing."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pycocotools import mask as mask_api

from mmtied.native import library
from mmtied.native.run_lengths import Codes, areas, code_lengths

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


#: Five bits for each character, signed where it is a length's last.
_GROUPS = bytes((((byte - 48) & 31 ^ 16) - 16) % 256 if byte < 80 else (byte - 48) & 31 for byte in range(256))
#: Groups of the longest length that is read: 35 bits.
_MOST_GROUPS = 7


def code_sums(text: bytes, length: np.ndarray, longest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of foreground, pixels in all, and whether the characters make sense, of each of M codes; shape (M,) each.

    The running sums that undo the differences run on from code to code; what came before a code is then taken off its sum.

    Args:
        text: The codes one after the other.
        length: Characters of each, shape (M,) int64.
        longest: Pixels of each mask, which no run may exceed, shape (M,) int64; a code with another run makes no sense.
    """
    characters, groups = np.frombuffer(text, dtype=np.uint8), np.frombuffer(text.translate(_GROUPS), dtype=np.int8)
    ends = np.cumsum(length)
    last = np.flatnonzero(characters < 80)
    value_ends = np.searchsorted(last, ends)
    value_starts = np.append(0, value_ends[:-1])
    whole = length > 0
    whole[whole] = characters[ends[whole] - 1] < 80

    first = np.append(0, last[:-1] + 1)[:len(last)]
    num_groups = last - first + 1
    values = groups[first].astype(np.int64)
    rest = np.flatnonzero(num_groups > 1)
    for group in range(1, min(int(num_groups.max(initial=0)), _MOST_GROUPS)):
        values[rest] += groups[first[rest] + group].astype(np.int64) << 5 * group
        rest = rest[num_groups[rest] > group + 1]
    wrong = np.concatenate([np.flatnonzero((characters < 48) | (characters > 111)), last[num_groups > _MOST_GROUPS]])
    whole[np.searchsorted(ends, wrong, side='right')] = False

    # The first background stands outside the differences.
    present = value_ends > value_starts
    first_gap = np.zeros_like(length)
    first_gap[present] = values[value_starts[present]]
    values[value_starts[present]] = 0
    chains = [np.cumsum(values[parity::2]) for parity in (0, 1)]
    whole &= (first_gap >= 0) & (first_gap <= longest)
    for parity, sums in enumerate(chains):
        cuts = (value_starts - parity + 1) // 2
        some = np.flatnonzero((value_ends - parity + 1) // 2 > cuts)
        if len(some):
            before = np.append(0, sums)[cuts[some]]
            whole[some] &= np.minimum.reduceat(sums, cuts[some]) >= before
            whole[some] &= np.maximum.reduceat(sums, cuts[some]) - before <= longest[some]
    chains = [(np.append(0, sums), np.append(0, np.cumsum(sums))) for sums in chains]

    def every_second(start: np.ndarray) -> np.ndarray:
        """The sum of the lengths at `start`, `start` + 2 ... of each code."""
        found = np.empty_like(start)
        for parity, (sums, double_sums) in enumerate(chains):
            here = start % 2 == parity
            low, high = (start[here] - parity) // 2, np.maximum(value_ends[here] - parity + 1, 0) // 2
            high = np.maximum(high, low)
            found[here] = double_sums[high] - double_sums[low] - (high - low) * sums[low]
        return found

    foreground = np.where(present, every_second(np.minimum(value_starts + 1, value_ends)), 0)
    background = np.where(present, every_second(value_starts), 0) + first_gap
    return foreground, foreground + background, whole


def to_rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Polygons, uncompressed or compressed run-length code as compressed run-length code of a (height, width) image.

    That a code is whole is for `rle.rle_areas` to check, for many at once.

    Raises:
        ValueError: Broken, or of another size; starts with `where`.
    """
    if isinstance(segmentation, dict):
        size, counts = segmentation.get('size'), segmentation.get('counts')
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise ValueError(f'{where}: its mask has size {size}, its image [{height}, {width}] (height, width)')
        if isinstance(counts, str | bytes):
            return segmentation
    try:
        rle = mask_api.frPyObjects(segmentation, height, width)
        return mask_api.merge(rle) if isinstance(segmentation, list) else rle
    except Exception:  # pycocotools raises bare Exception, TypeError or IndexError, by what is broken
        raise ValueError(f'{where}: its segmentation is neither polygons nor a run-length code') from None
