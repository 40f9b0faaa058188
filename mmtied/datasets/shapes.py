"""Draw the outlines of the six categories as masks."""

import cv2
import numpy as np

#: Outlines and textures are drawn this many times larger, and then averaged.
SUPERSAMPLE = 4


def _around(radii: np.ndarray | float, num: int) -> np.ndarray:
    """Return points at equal angles around the origin, (num, 2), starting straight up."""
    angles = np.arange(num) * (2 * np.pi / num) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.broadcast_to(radii, num)[:, None]


def _cross(arm: float) -> np.ndarray:
    corner = np.array([[-arm, -1], [arm, -1], [arm, -arm]])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([corner @ turn for turn in turns])


# Closed polygons around the origin; a point inside an even number of them is outside (the hole of the ring).
_OUTLINES = {
    'circle': [_around(1, 64)],
    'square': [_around(1, 4)],
    'triangle': [_around(1, 3)],
    'star': [_around(np.tile([1, 0.45], 5), 10)],
    'ring': [_around(1, 64), _around(0.52, 64)],
    'cross': [_cross(0.36)],
}

#: Names of the categories; a category's COCO id is its position here plus one.
CATEGORIES = tuple(_OUTLINES)


def draw_shape(category: str, side: float, angle: float) -> np.ndarray:
    """Draw a category's outline, filled.

    Args:
        category: One of `CATEGORIES`.
        side: Longer side of the bounding box after rotation, in pixels, at least 1.
        angle: Angle of rotation in radians.

    Returns:
        Covered share of each pixel of the bounding box, float32 in [0, 1], shape (height, width). The shape's mask is where this
        is at least 0.5.

    Example:
        >>> coverage = draw_shape('square', 40, angle=np.pi / 4)
        >>> coverage.shape, float(coverage.mean())
        ((40, 40), 1.0)
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    polygons = [polygon @ turn for polygon in _OUTLINES[category]]
    points = np.concatenate(polygons)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scale = SUPERSAMPLE * round(side) / extent.max()
    width, height = np.maximum(np.rint(extent * scale / SUPERSAMPLE).astype(int), 1)

    fine = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), dtype=np.float32)
    shift = 4  # fractional bits of cv2's fixed-point corners; a corner at 0 is the first pixel's centre
    corners = [np.rint(((polygon - low) * scale - 0.5) * 2**shift).astype(np.int32) for polygon in polygons]
    cv2.fillPoly(fine, corners, 1.0, shift=shift)
    return cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA)
