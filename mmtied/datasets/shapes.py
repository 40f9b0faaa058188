"""Draw shapes: outlines and textures of the six categories, backgrounds, light and shadows."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

#: Factor by which outlines and textures are drawn larger before they are averaged down.
SUPERSAMPLE = 4


def _around(radii: np.ndarray | float, num: int) -> np.ndarray:
    """Return points at equal angles around the origin, (num, 2), starting straight up."""
    angles = np.arange(num) * (2 * np.pi / num) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.broadcast_to(radii, num)[:, None]


def _cross(arm: float) -> np.ndarray:
    corner = np.array([[-arm, -1], [arm, -1], [arm, -arm]])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([corner @ turn for turn in turns])


# Closed polygons around the origin, filled by the even-odd rule (the ring has a hole).
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


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


#: Texture of each category: a function of the coordinates u and v, in texture periods from the shape's centre, that returns True
#: for the second of its two colors.
TEXTURES = {
    'circle': lambda u, v: np.hypot(_fraction(u) - 0.5, _fraction(v) - 0.5) < 0.32,  # dots
    'square': lambda u, v: (_fraction(u) < 0.5) ^ (_fraction(v) < 0.5),  # checks
    'triangle': lambda u, v: _fraction(u) < 0.5,  # stripes
    'star': lambda u, v: _fraction(u + np.abs(_fraction(v) - 0.5)) < 0.5,  # zigzag
    'ring': lambda u, v: _fraction(np.arctan2(v, u) * (5 / np.pi)) < 0.5,  # rays
    'cross': lambda u, v: np.minimum(_fraction(u), _fraction(v)) < 0.28,  # lattice
}


@dataclass(frozen=True)
class Shape:
    """Shape to place and paint.

    Attributes:
        category: One of `CATEGORIES`.
        coverage: Covered fraction of each pixel in the bounding box, shape (height, width).
        mask: Pixels that belong to the shape, bool, shape (height, width).
    """

    category: str
    coverage: np.ndarray
    mask: np.ndarray = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, 'mask', self.coverage >= 0.5)


def draw_shape(category: str, side: float, angle: float) -> np.ndarray:
    """Draw the filled outline of a category, rotated by an angle in radians; the longer side of its box is `side` pixels.

    Returns the covered fraction of each pixel in the bounding box, float32 in [0, 1], shape (height, width).

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


def draw_texture(rng: np.random.Generator, category: str, height: int, width: int, period: float) -> np.ndarray:
    """Draw the texture of a category in two random colors, at a random angle, with roughly the given period in pixels.

    Returns RGB values in [0, 1], float32, shape (height, width, 3).
    """
    angle = rng.uniform(0, 2 * np.pi)
    period *= rng.uniform(0.8, 1.25)
    ys = (np.arange(height * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - height / 2
    xs = (np.arange(width * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - width / 2
    u = (np.cos(angle) * xs[None, :] + np.sin(angle) * ys[:, None]) / period
    v = (np.cos(angle) * ys[:, None] - np.sin(angle) * xs[None, :]) / period
    second = cv2.resize(TEXTURES[category](u, v).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    main_color, second_color = _color_pair(rng)
    return main_color + second[..., None] * (second_color - main_color)


def paint(rng: np.random.Generator, shapes: Sequence[Shape], corners: np.ndarray, size: int) -> np.ndarray:
    """Paint textured shapes with dark rims, back to front, each casting a soft shadow on those behind it.

    `corners` are left and top of each shape's bounding box in pixels. Returns an RGB image, shape (size, size, 3) uint8.
    """
    canvas = draw_background(rng, size)
    light = rng.uniform(0, 2 * np.pi)
    to_light = np.array([np.cos(light), np.sin(light)])
    period = size / 16
    for shape, (left, top) in zip(shapes, corners, strict=True):
        height, width = shape.coverage.shape
        surface = draw_texture(rng, shape.category, height, width, period) * _shading(height, width, to_light)[..., None]
        rim = shape.coverage - cv2.erode(shape.coverage, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        surface *= 1 - 0.6 * rim[..., None]

        coverage = np.zeros((size, size, 1), dtype=np.float32)
        coverage[top:top + height, left:left + width, 0] = shape.coverage
        canvas *= 1 - 0.5 * _shadow(coverage[..., 0], -0.015 * size * to_light, sigma=0.015 * size)[..., None]
        canvas *= 1 - coverage
        canvas[top:top + height, left:left + width] += surface * shape.coverage[..., None]
    canvas += rng.normal(scale=0.02, size=canvas.shape)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a dull, cloudy background: RGB values in [0, 1], float32, shape (size, size, 3)."""
    clouds = sum(_smooth_noise(rng, cells, size) / cells**0.7 for cells in (3, 6, 12, 40))
    clouds = 0.5 + 0.22 * clouds[..., None] / clouds.std()
    hue = rng.uniform()
    dark, light = (_rgb(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.25), value)
                   for value in (rng.uniform(0.25, 0.45), rng.uniform(0.6, 0.85)))
    return dark + np.clip(clouds, 0, 1) * (light - dark)


def _shading(height: int, width: int, to_light: np.ndarray) -> np.ndarray:
    """Return brightness factors, above 1 on the lit side and below 1 on the other, shape (height, width)."""
    ys, xs = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    return 1 + 0.16 * (to_light[0] * xs[None, :] + to_light[1] * ys[:, None]).astype(np.float32)


def _shadow(coverage: np.ndarray, shift: np.ndarray, sigma: float) -> np.ndarray:
    moved = cv2.warpAffine(coverage, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), coverage.shape[::-1])
    return cv2.GaussianBlur(moved, (0, 0), sigma)


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    coarse = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _color_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a saturated color, and a lighter or darker one of another hue."""
    hue = rng.uniform()
    strong = _rgb(hue, rng.uniform(0.65, 0.95), rng.uniform(0.65, 0.95))
    other_hue = hue + rng.uniform(0.08, 0.5)
    if rng.uniform() < 0.6:
        return strong, _rgb(other_hue, rng.uniform(0.05, 0.3), rng.uniform(0.9, 1.0))
    return strong, _rgb(other_hue, rng.uniform(0.4, 0.9), rng.uniform(0.12, 0.3))


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)
