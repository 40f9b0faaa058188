"""Validate and measure COCO's compressed run-length codes of many masks at once; pycocotools validates nothing.

A code lists the lengths of alternating runs of background and foreground, column by column. From the fourth on, each length is
stored as the difference from the length two before it. A number takes one character per five bits, lowest first, offset by 48;
bit 5 marks that another character follows, and bit 4 of the last one is the sign (`rleFrString` in maskApi.c).
"""

from collections.abc import Callable, Iterator, Sequence
from numbers import Real

import numpy as np
from pycocotools import mask as mask_api

from mmtied.native import Codes, areas, code_lengths, library

from .faults import shown

#: Characters of code processed at a time; NumPy's intermediate arrays then fit a processor's cache.
CHUNK = 1 << 17
COMPILED_CHUNK = 1 << 22
#: Coordinates of polygons, in pixels, are limited to this plus ten times the image's longer side; memory in pycocotools grows
#: with them.
FARTHEST = 10_000
#: Number of pixels from which codes are merged run by run.
_LARGE = 1 << 26
#: The five bits of each character, signed if it is the last of a length.
_GROUPS = bytes((((byte - 48) & 31 ^ 16) - 16) % 256 if byte < 80 else (byte - 48) & 31 for byte in range(256))
#: Maximum number of characters of a length: 35 bits.
_MAX_GROUPS = 7


def to_rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Convert polygons or a run-length code, compressed or not, to the compressed code of a (height, width) image.

    Does not check that compressed codes are complete; `rle_areas` does, for many at once.
    """
    if height * width >= 2**32:
        raise ValueError(f'{where}: its image has {height} x {width} pixels, but masks may have at most 4294967295; evaluate '
                         'bbox only (--iou-type bbox)')
    if isinstance(segmentation, dict):
        size, counts = segmentation.get('size'), segmentation.get('counts')
        if not isinstance(size, list | tuple) or list(size) != [height, width] or bool in map(type, size):
            raise ValueError(f'{where}: its mask has size {shown(size)}, its image [{height}, {width}] (height, width)')
        if isinstance(counts, str | bytes):
            return segmentation if type(size[0]) is type(size[1]) is int else {'size': [height, width], 'counts': counts}
        whole = isinstance(counts, list) and set(map(type, counts)) <= {int}
        if isinstance(counts, list) and not (whole and min(counts, default=0) >= 0 and sum(counts) == height * width):
            raise ValueError(f'{where}: its run-length code is broken: expected non-negative integers that add up to '
                             f'{height} x {width} pixels, got {shown(counts)}')
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width, where)
    try:
        rle = mask_api.frPyObjects(segmentation, height, width)
        return _merged(rle) if isinstance(segmentation, list) else {'size': [height, width], 'counts': rle['counts']}
    except Exception:  # pycocotools raises bare Exception, TypeError or IndexError
        raise ValueError(f'{where}: its segmentation is neither polygons nor a run-length code') from None


def _merged(rles: list[dict]) -> dict:
    """Return the code of the union of masks of one image."""
    height, width = rles[0]['size']
    if len(rles) < 2 or height * width < _LARGE:
        return mask_api.merge(rles)
    points, _, depth = segments(rles)  # mask_api.merge allocates a run per pixel
    starts = np.flatnonzero(np.diff(depth > 0, prepend=False))  # of runs, beginning with foreground
    counts = np.diff(points[starts], prepend=0, append=height * width)
    return mask_api.frPyObjects({'size': [height, width], 'counts': counts.tolist()}, height, width)


def run_lengths(code: str | bytes) -> np.ndarray:
    """Return the lengths of alternating runs of background and foreground in a complete compressed code, int64.

    Example:
        >>> run_lengths(mask_api.encode(np.asfortranarray(np.eye(3, dtype=np.uint8)))['counts']).tolist()
        [0, 1, 3, 1, 3, 1]
    """
    characters = np.frombuffer(code.encode() if isinstance(code, str) else code, dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(characters < 32)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(len(characters)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((characters & 31) << 5 * place, first)
    values -= np.where(characters[last] & 16, 1 << 5 * (last - first + 1), 0)
    for start in (1, 2):  # from the fourth on, a length is stored as the difference from the one two before it
        values[start::2] = np.cumsum(values[start::2])
    return values


def segments(rles: Sequence[dict]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Cut the pixels, counted column by column, wherever a run of a mask ends.

    Returns the S + 1 segment boundaries, the run ends of each mask, and the number of masks that cover each segment, shape (S,).
    """
    ends = [np.cumsum(run_lengths(rle['counts'])) for rle in rles]
    points = np.unique(np.concatenate([[0], *ends]))
    depth = np.zeros(len(points) - 1, dtype=np.int64)
    for own in ends:
        depth += inside(own, points)
    return points, ends, depth


def inside(ends: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which segments between `points` are foreground in a mask whose runs end at `ends`."""
    return np.searchsorted(ends, points[:-1], side='right') % 2 == 1


def _check_polygons(polygons: list, height: int, width: int, where: str) -> None:
    """Raise a ValueError for polygons that pycocotools would clip or misread, or that would crash it or fill the memory."""
    limit = FARTHEST + 10 * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list | tuple | np.ndarray):
            raise ValueError(f'{where}: its segmentation is neither polygons nor a run-length code, got {shown(polygons)}')
        numbers = set(map(type, polygon)) <= {int, float} or all(
            isinstance(value, Real) and not isinstance(value, bool) for value in polygon)
        if not (numbers and len(polygon) >= 6 and len(polygon) % 2 == 0 and -limit <= min(polygon) and max(polygon) <= limit
                and sum(polygon) == sum(polygon)):
            raise ValueError(f'{where}: its segmentation has the polygon {shown(polygon)}; x and y of at least three corners are '
                             f'needed, in or near the image of {width} x {height} pixels')


def rle_areas(rles: Sequence[dict], where: Callable[[int], str] = 'mask {}'.format) -> np.ndarray:
    """Return the pixel count of each mask, shape (N,) int64, and check that the codes are complete.

    Masks are dicts with ``size`` (height, width) and compressed ``counts``, str or bytes. `where` returns the name of the mask
    at an index for messages.

    Example:
        >>> rle_areas([{'size': [2, 3], 'counts': b'132'}, {'size': [1, 4], 'counts': b'4'}])
        array([3, 0])
    """
    codes, num_pixels = rle_codes(rles), rle_pixels(rles)
    compiled = library() is not None
    found = np.empty(len(rles), dtype=np.int64)
    for part in iter_chunks(codes, COMPILED_CHUNK if compiled else CHUNK):
        found[part] = areas(Codes.of(codes[part], num_pixels[part])) if compiled else _areas_numpy(codes[part], num_pixels[part])
        if (found[part] < 0).any():
            number = part.start + int((found[part] < 0).argmax())
            height, width = rles[number]['size']
            raise ValueError(f'{where(number)}: its run-length code is broken or truncated: expected runs that add up to '
                             f'{height} x {width} pixels')
    return found


def rle_codes(rles: Sequence[dict]) -> list[bytes]:
    """Return the codes as bytes, without sizes."""
    return [rle['counts'] if isinstance(rle['counts'], bytes) else rle['counts'].encode('utf-8', 'surrogatepass')
            for rle in rles]


def rle_pixels(rles: Sequence[dict]) -> np.ndarray:
    """Return the number of pixels of each mask's image, shape (N,) int64."""
    return np.array([rle['size'] for rle in rles], dtype=np.int64).reshape(-1, 2).prod(axis=1)


def iter_chunks(codes: Sequence[bytes], limit: int) -> Iterator[slice]:
    """Yield non-empty slices of consecutive codes with about `limit` characters in total."""
    ends = np.cumsum(code_lengths(codes))
    start = 0
    while start < len(codes):
        end = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + limit, side='right')))
        yield slice(start, end)
        start = end


def _areas_numpy(codes: list[bytes], num_pixels: np.ndarray) -> np.ndarray:
    foreground, total, valid = code_sums(b''.join(codes), code_lengths(codes), num_pixels)
    return np.where(valid & (total == num_pixels), foreground, -1)


def code_sums(text: bytes, length: np.ndarray, longest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum the runs of M codes: return foreground pixels, all pixels, and which codes are valid, shape (M,) each.

    Cumulative sums undo the differences; they run across codes, so the sum of the preceding codes is subtracted.

    `text` has the codes concatenated, `length` the characters of each, and `longest` the pixels of each mask, which no run may
    exceed.
    """
    characters, groups = np.frombuffer(text, dtype=np.uint8), np.frombuffer(text.translate(_GROUPS), dtype=np.int8)
    ends = np.cumsum(length)
    last = np.flatnonzero(characters < 80)
    value_ends = np.searchsorted(last, ends)
    counts = np.diff(value_ends, prepend=0)
    valid = length > 0
    valid[valid] = characters[ends[valid] - 1] < 80

    first = np.append(0, last[:-1] + 1)[:len(last)]
    num_groups = last - first + 1
    values = groups[first].astype(np.int64)
    rest = np.flatnonzero(num_groups > 1)
    for group in range(1, min(int(num_groups.max(initial=0)), _MAX_GROUPS)):
        values[rest] += groups[first[rest] + group].astype(np.int64) << 5 * group
        rest = rest[num_groups[rest] > group + 1]
    wrong = np.concatenate([np.flatnonzero((characters < 48) | (characters > 111)), last[num_groups > _MAX_GROUPS]])
    valid[np.searchsorted(ends, wrong, side='right')] = False

    # One row for the lengths of background, one for those of foreground: sums along the rows undo the differences.
    pairs = (counts + 1) // 2
    pair_ends, some = np.cumsum(pairs), counts > 0
    starts, places = (pair_ends - pairs)[some], 2 * (pair_ends - pairs) - (value_ends - counts)
    table = np.zeros(2 * int(pairs.sum()), dtype=np.int64)
    table[np.arange(len(values)) + np.repeat(places, counts)] = values
    first_gap = table[2 * starts]  # the third length is not stored as a difference from the first
    table[2 * starts] = 0
    sums = np.zeros((2, len(length)), dtype=np.int64)
    for kind, lengths in enumerate(table.reshape(-1, 2).T):
        lengths = np.cumsum(lengths)
        lengths -= np.repeat(np.append(0, lengths)[starts], pairs[some])
        if kind:
            lengths[pair_ends[counts % 2 == 1] - 1] = 0  # padding after an odd number of lengths
        else:
            lengths[starts] = first_gap
        valid[some] &= (np.minimum.reduceat(lengths, starts) >= 0) & (np.maximum.reduceat(lengths, starts) <= longest[some])
        sums[kind, some] = np.add.reduceat(lengths, starts)
    return sums[1], sums.sum(axis=0), valid
