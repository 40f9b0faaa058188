"""Draw where the boxes of an image overlap."""

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.occlusion import clip_boxes

if TYPE_CHECKING:
    from PIL import Image

#: Colour of overlaps, and how strongly two boxes on each other and every further one are tinted.
OVERLAP_COLOUR = (255, 0, 80)
_FIRST, _FURTHER, _STRONGEST = .38, .13, .78
#: Share of its colour that the photograph gives up, so that the tint stands out.
_GREY = .7


def overlap_depth(boxes_xywh: np.ndarray, image_size: tuple[int, int], categories: np.ndarray | None = None,
                  scale: float = 1.) -> np.ndarray:
    """How many boxes cover each pixel; with categories, how many of one category at most.

    Args:
        boxes_xywh: In pixels of the image, shape (N, 4).
        image_size: Height and width of the image.
        categories: Category of each box, shape (N,), where only those of one category count together.
        scale: Size of the returned map's pixels' inverse: 0.5 gives a map of half the height and width.

    Returns:
        Shape (height * scale, width * scale) int64, rounded; a pixel counts as covered where its centre is.

    Example:
        >>> overlap_depth(np.array([[0., 0., 3., 1.], [1., 0., 3., 1.]]), (1, 5)).tolist()
        [[1, 2, 2, 1, 0]]
    """
    height, width = (max(1, round(side * scale)) for side in image_size)
    boxes = clip_boxes(np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4), image_size) * scale
    xs, ys = np.arange(width) + .5, np.arange(height) + .5
    in_x = ((xs >= boxes[:, :1]) & (xs < boxes[:, 2:3])).astype(np.int64)
    in_y = ((ys >= boxes[:, 1:2]) & (ys < boxes[:, 3:])).astype(np.int64)
    if categories is None:
        return in_y.T @ in_x
    groups = [np.asarray(categories) == category for category in np.unique(categories)]
    return np.max([np.zeros((height, width), dtype=np.int64), *(in_y[group].T @ in_x[group] for group in groups)], axis=0)


def draw_overlaps(image: 'Image.Image', boxes_xywh: np.ndarray, colours: Sequence[tuple[int, int, int]],
                  image_size: tuple[int, int], height: int, categories: np.ndarray | None = None) -> 'Image.Image':
    """The image at a height, greyed, with overlaps tinted (deeper ones more strongly) and boxes outlined.

    Args:
        image: RGB.
        boxes_xywh: In pixels of the annotated image, shape (N, 4).
        colours: Outline of each box.
        image_size: Height and width of the annotated image.
        height: Height of the picture.
        categories: See `overlap_depth`.
    """
    from PIL import Image, ImageDraw

    scale = height / image_size[0]
    depth = overlap_depth(boxes_xywh, image_size, categories, scale)
    small = image.convert('RGB').resize(depth.shape[::-1], Image.Resampling.LANCZOS)
    pixels = np.asarray(small, dtype=np.float64)
    pixels = (1 - _GREY) * pixels + _GREY * np.asarray(small.convert('L'), dtype=np.float64)[..., None]
    strength = np.where(depth >= 2, np.minimum(_FIRST + _FURTHER * (depth - 2), _STRONGEST), 0.)[..., None]
    pixels = (1 - strength) * pixels + strength * np.array(OVERLAP_COLOUR)
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    corners = clip_boxes(np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4), image_size) * scale
    for (left, top, right, bottom), colour in zip(corners.round().astype(int).tolist(), colours, strict=True):
        right, bottom = max(left, min(right, picture.width - 1)), max(top, min(bottom, picture.height - 1))
        draw.rectangle([left, top, right, bottom], outline=colour, width=2 if height >= 300 else 1)
    return picture


def category_colours(num_categories: int) -> list[tuple[int, int, int]]:
    """Bright colours that differ between neighbouring categories; none is near the overlaps' red."""
    turns = (np.arange(num_categories) * .61803398875 % 1) * .75 + .08  # golden section through orange to violet
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(turn, .85, 1 if number % 2 else .85))
            for number, turn in enumerate(turns.tolist())]
