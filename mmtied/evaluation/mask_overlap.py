"""Overlaps of masks from their run-length codes, without their pixels: memory grows with the outlines, not with the image."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api

from .boxes import box_areas
from .inputs.rle import inside, segments

#: Pixels of an image's masks that are decoded together, a byte each.
_MOST_PIXELS = 1 << 32


def masks_under_masks(boxes: np.ndarray, rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pixels of each mask other masks cover, and how many it has, (N,) each; `boxes` are not used.

    The compressed run-length codes are of one image, and `inputs.rle.rle_areas` has checked them.
    """
    points, ends, depth = segments(rles)
    lengths, covered, areas = np.diff(points), np.zeros(len(rles)), np.zeros(len(rles))
    for number, own in enumerate(ends):
        held = inside(own, points)
        covered[number], areas[number] = lengths[held & (depth >= 2)].sum(), lengths[held].sum()
    return covered, areas


def boxes_under_masks(boxes: np.ndarray, rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Return the area of each box that other instances' masks cover, and its own, shape (N,) each.

    Boxes are (N, 4) xyxy, clipped to the image. Pixels at the border of a box count by the share that lies inside.
    """
    points, ends, depth = segments(rles)
    covered = np.zeros(len(boxes))
    for number, (box, own) in enumerate(zip(boxes, ends, strict=True)):
        by_others = depth - inside(own, points) >= 1
        covered[number] = np.diff(_area_before(points, box, rles[number]['size'][0]))[by_others].sum()
    areas = box_areas(boxes)
    return np.clip(covered, 0, areas), areas


def array_of(codes: Sequence[dict]) -> np.ndarray:
    """Return codes as an array of objects, which indices select from as from an array of masks."""
    array = np.empty(len(codes), dtype=object)
    array[:] = codes
    return array


def encoded(masks: np.ndarray) -> np.ndarray:
    """Return the codes of masks, shape (N, height, width) bool."""
    return array_of(mask_api.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8)) if len(masks) else [])


def decoded(codes: Sequence[dict], where: str) -> np.ndarray:
    """Return the masks of codes of one image, (N, height, width) bool; a ValueError, which starts with `where`, refuses 4 GiB."""
    height, width = codes[0]['size']
    pixels = len(codes) * height * width
    if pixels > _MOST_PIXELS:
        raise ValueError(f'{where} takes the masks of {len(codes)} instances as {height} x {width} pixels, which needs '
                         f'{pixels / 2**30:.1f} GiB; register it with takes_codes=True')
    return mask_api.decode(list(codes)).transpose(2, 0, 1).astype(bool)


def _area_before(points: np.ndarray, box: np.ndarray, height: int) -> np.ndarray:
    """Return the area inside a box xyxy of all pixels before each point, counted down the columns."""
    left, top, right, bottom = box
    column = points // height
    row = points - column * height

    def overlap(low: np.ndarray | int, high: np.ndarray, start: float, end: float) -> np.ndarray:
        return np.maximum(np.minimum(high, end) - np.maximum(low, start), 0)

    whole, part = (bottom - top) * overlap(0, column, left, right), overlap(0, row, top, bottom)
    return whole + part * overlap(column, column + 1, left, right)
