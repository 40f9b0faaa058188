"""Place the shapes of an image so that it has a given occlusion ratio r.

Shapes start in separate cells of a grid, where r is about 0. Each is pulled towards an anchor that it shares with a few others:
the stronger the pull, the larger r. Bisection finds the pull; small random moves of single shapes then close the remaining gap
and uncover shapes that are hidden too much.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mmtied.evaluation.occlusion import occlusion_ratio

from .shapes import CATEGORIES, Shape, draw_shape

#: Largest number of shapes in an image.
MAX_SHAPES = 100
#: Smallest visible area of a shape in pixels.
MIN_VISIBLE_PIXELS = 30
#: Range of a shape's longer side at r = 0, as a fraction of the image's side; a fine grid lowers it.
SIDE_RANGE = (0.22, 0.4)
#: Sides grow by 1 + GROWTH * r, which keeps visible areas about the same at every r.
GROWTH = 0.35
_BISECTIONS, _MOVES_PER_SHAPE, _RESTARTS = 8, 12, 200


@dataclass(frozen=True)
class Layout:
    """N placed shapes, back to front, and their visible parts.

    Attributes:
        corners: Left and top of each shape's bounding box in pixels, integers, shape (N, 2).
        labels: Index of the visible shape at each pixel, -1 for the background, int8, shape (size, size).
        boxes_xywh: Boxes of the visible parts in pixels, integers, shape (N, 4); empty for hidden shapes.
        visible: Visible fraction of each shape, in [0, 1], shape (N,).
        ratio: Occlusion ratio `covered` of the boxes, in [0, 1].
    """

    shapes: tuple[Shape, ...]
    corners: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    visible: np.ndarray
    ratio: float


def place(shapes: tuple[Shape, ...], corners: np.ndarray, size: int) -> Layout:
    """Place shapes in an image of (size, size) pixels, back to front."""
    labels = np.full((size, size), -1, dtype=np.int8)
    windows = [labels[top:top + shape.mask.shape[0], left:left + shape.mask.shape[1]]
               for shape, (left, top) in zip(shapes, corners, strict=True)]
    for index, (shape, window) in enumerate(zip(shapes, windows, strict=True)):
        window[shape.mask] = index
    boxes, visible = np.zeros((len(shapes), 4), dtype=np.int64), np.zeros(len(shapes))
    for index, (shape, window) in enumerate(zip(shapes, windows, strict=True)):
        seen = (window == index).view(np.uint8)
        boxes[index] = cv2.boundingRect(seen)
        visible[index] = np.count_nonzero(seen) / np.count_nonzero(shape.mask)
    boxes[:, :2] += corners
    return Layout(shapes, corners, labels, boxes, visible, occlusion_ratio(boxes, (size, size)))


def find_layout(rng: np.random.Generator, size: int, num_shapes: int, accept: tuple[float, float],
                min_visible: float) -> Layout:
    """Draw random shapes inside a size x size image so that the occlusion ratio is in the accepted range.

    The number and categories of shapes are independent of the ratio, and visible areas nearly so: images of different ratios
    differ only in occlusion. At least the fraction `min_visible` of each shape is visible.

    Raises:
        ValueError: No layout was found.

    Example:
        >>> layout = find_layout(np.random.default_rng(0), 160, 4, accept=(0.49, 0.51), min_visible=0.15)
        >>> 0.49 <= layout.ratio <= 0.51
        True
    """
    for _ in range(_RESTARTS):
        layout = _attempt(rng, size, num_shapes, accept, min_visible)
        if _badness(layout, accept, min_visible) == 0:
            return layout
    raise ValueError(f'found no layout of {num_shapes} shapes in {size} x {size} pixels with an occlusion ratio from '
                     f'{accept[0]:.3f} to {accept[1]:.3f} and {min_visible:.0%} of each shape visible; lower the ratios or '
                     'min_visible, or allow more objects')


def _attempt(rng: np.random.Generator, size: int, num: int, accept: tuple[float, float], min_visible: float) -> Layout:
    """Return the best layout of one set of random shapes."""
    cells = int(np.ceil(np.sqrt(num)))
    longest = min(SIDE_RANGE[1], 0.95 / cells) * size
    shortest = min(SIDE_RANGE[0] * size, 0.7 * longest)
    sides = rng.uniform(shortest, longest, num) * (1 + GROWTH * sum(accept) / 2)
    depth = np.argsort(-sides * rng.uniform(0.7, 1.4, num))  # large shapes tend to lie behind small ones
    shapes = tuple(
        Shape(category, draw_shape(category, side, angle)) for category, side, angle in zip(
            rng.choice(CATEGORIES, num), sides[depth], rng.uniform(0, 2 * np.pi, num), strict=True))
    extents = np.array([shape.mask.shape[::-1] for shape in shapes])

    edges = np.linspace(0, size, cells + 1).astype(int)
    column_row = np.stack(np.divmod(rng.permutation(cells**2)[:num], cells), axis=1)
    room = np.maximum(edges[column_row + 1] - edges[column_row] - extents, 0)
    apart = edges[column_row] + np.floor(rng.uniform(size=(num, 2)) * (room + 1)).astype(int)
    if accept[1] == 0:
        return place(shapes, apart, size)

    centres = apart + extents / 2
    num_anchors = rng.integers(max(num // 4, 1), max(num // 2, 1), endpoint=True)
    anchors = centres[rng.permutation(num)[:num_anchors]]
    anchor = anchors[rng.permutation(np.arange(num) % num_anchors)]
    eagerness = rng.uniform(0.6, 1.6, (num, 1))

    def pulled(pull: float) -> Layout:
        corners = centres + (anchor - centres) * pull**eagerness - extents / 2
        return place(shapes, np.clip(np.rint(corners).astype(int), 0, size - extents), size)

    return _repair(rng, _bisect(pulled, accept, min_visible), accept, min_visible)


def _badness(layout: Layout, accept: tuple[float, float], min_visible: float) -> float:
    """Return a penalty for deviations from the accepted ratios and visibility, 0 for an accepted layout."""
    areas = np.array([np.count_nonzero(shape.mask) for shape in layout.shapes])
    needed = np.maximum(min_visible, MIN_VISIBLE_PIXELS / areas)
    return max(accept[0] - layout.ratio, layout.ratio - accept[1], 0.) + np.clip(needed - layout.visible, 0, None).sum()


def _bisect(pulled: Callable[[float], Layout], accept: tuple[float, float], min_visible: float) -> Layout:
    """Bisect for the pull that gives the middle of the accepted range, and return the best layout on the way."""
    low, high = 0., 1.
    best = pulled(high)
    for _ in range(_BISECTIONS):
        if _badness(best, accept, min_visible) == 0:
            break
        middle = (low + high) / 2
        layout = pulled(middle)
        best = min(best, layout, key=lambda candidate: _badness(candidate, accept, min_visible))
        low, high = (low, middle) if layout.ratio > sum(accept) / 2 else (middle, high)
    return best


def _repair(rng: np.random.Generator, layout: Layout, accept: tuple[float, float], min_visible: float) -> Layout:
    """Move single shapes a little or swap the depths of two, and keep changes that are no worse."""
    size = len(layout.labels)
    badness = _badness(layout, accept, min_visible)
    for _ in range(_MOVES_PER_SHAPE * len(layout.shapes)):
        if badness == 0:
            break
        shapes, corners = list(layout.shapes), layout.corners.copy()
        one = rng.integers(len(shapes))
        if rng.uniform() < 0.25:
            other = rng.integers(len(shapes))
            shapes[one], shapes[other] = shapes[other], shapes[one]
            corners[[one, other]] = corners[[other, one]]
        else:
            step = np.rint(rng.normal(scale=size * rng.choice([0.01, 0.03, 0.08]), size=2)).astype(int)
            room = size - np.array(shapes[one].mask.shape[::-1])
            corners[one] = np.clip(corners[one] + step, 0, room)
        moved = place(tuple(shapes), corners, size)
        moved_badness = _badness(moved, accept, min_visible)
        if moved_badness <= badness:
            layout, badness = moved, moved_badness
    return layout
