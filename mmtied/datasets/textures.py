"""Textures: one family for each category, and the background.

A texture is a function of the coordinates u and v, counted in periods of the texture from the centre of the shape, that
returns true where the second of the two colours goes.
"""

import colorsys

import cv2
import numpy as np

from .shapes import SUPERSAMPLE


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(_fraction(u) - 0.5, _fraction(v) - 0.5) < 0.32


def _checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (_fraction(u) < 0.5) ^ (_fraction(v) < 0.5)


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(u) < 0.5


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(u + np.abs(_fraction(v) - 0.5)) < 0.5


def _rays(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(np.arctan2(v, u) * (5 / np.pi)) < 0.5


def _lattice(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_fraction(u), _fraction(v)) < 0.28


#: The texture of each category.
TEXTURES = {'circle': _dots, 'square': _checks, 'triangle': _stripes, 'star': _zigzag, 'ring': _rays, 'cross': _lattice}


def draw_texture(rng: np.random.Generator, category: str, height: int, width: int, period: float) -> np.ndarray:
    """Draw a category's texture in two random colours, turned by a random angle.

    Args:
        rng: Source of the colours, the angle and the period.
        category: One of `mmtied.datasets.CATEGORIES`.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        period: Mean period of the texture in pixels; the drawn one is 0.8 to 1.25 times as long.

    Returns:
        RGB values in [0, 1], float32, shape (height, width, 3).
    """
    angle = rng.uniform(0, 2 * np.pi)
    period *= rng.uniform(0.8, 1.25)
    ys = (np.arange(height * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - height / 2
    xs = (np.arange(width * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - width / 2
    u = (np.cos(angle) * xs[None, :] + np.sin(angle) * ys[:, None]) / period
    v = (np.cos(angle) * ys[:, None] - np.sin(angle) * xs[None, :]) / period
    second = cv2.resize(TEXTURES[category](u, v).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    main_colour, second_colour = _colour_pair(rng)
    return main_colour + second[..., None] * (second_colour - main_colour)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dull, cloudy background: RGB values in [0, 1], float32, shape (size, size, 3)."""
    clouds = sum(_smooth_noise(rng, cells, size) / cells**0.7 for cells in (3, 6, 12, 40))
    clouds = 0.5 + 0.22 * clouds[..., None] / clouds.std()
    hue = rng.uniform()
    dark, light = (_rgb(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.25), value)
                   for value in (rng.uniform(0.25, 0.45), rng.uniform(0.6, 0.85)))
    return dark + np.clip(clouds, 0, 1) * (light - dark)


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    coarse = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A strong colour and one well apart from it: lighter or darker, of another hue."""
    hue = rng.uniform()
    strong = _rgb(hue, rng.uniform(0.65, 0.95), rng.uniform(0.65, 0.95))
    other_hue = hue + rng.uniform(0.08, 0.5)
    if rng.uniform() < 0.6:
        return strong, _rgb(other_hue, rng.uniform(0.05, 0.3), rng.uniform(0.9, 1.0))
    return strong, _rgb(other_hue, rng.uniform(0.4, 0.9), rng.uniform(0.12, 0.3))


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)
