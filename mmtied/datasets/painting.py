"""From a layout to the pixels of an image."""

import cv2
import numpy as np

from .occlusion_layout import Layout
from .textures import draw_background, draw_texture


def paint(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """Paint a layout: textured shapes with a dark rim, each casting a soft shadow on what lies behind it.

    Args:
        rng: Source of colours, textures, light and noise.
        layout: The shapes and their places.

    Returns:
        RGB image, uint8, shape (size, size, 3).
    """
    size = len(layout.labels)
    canvas = draw_background(rng, size)
    light = rng.uniform(0, 2 * np.pi)
    to_light = np.array([np.cos(light), np.sin(light)])
    period = size / 16
    for shape, (left, top) in zip(layout.shapes, layout.corners, strict=True):
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


def _shading(height: int, width: int, to_light: np.ndarray) -> np.ndarray:
    """Brighter on the side of the light, darker on the other, (height, width)."""
    ys, xs = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    return 1 + 0.16 * (to_light[0] * xs[None, :] + to_light[1] * ys[:, None]).astype(np.float32)


def _shadow(coverage: np.ndarray, shift: np.ndarray, sigma: float) -> np.ndarray:
    moved = cv2.warpAffine(coverage, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), coverage.shape[::-1])
    return cv2.GaussianBlur(moved, (0, 0), sigma)
