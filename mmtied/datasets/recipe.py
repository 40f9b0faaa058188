"""Generate one image of occluded shapes with its annotations, from a recipe, the split and the image's index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from .layout import MAX_SHAPES, Layout, find_layout
from .painting import paint
from .shapes import CATEGORIES

#: COCO's own names, so that a config for COCO only needs another data_root and other class names.
SPLITS = ('train2017', 'val2017')
#: Order in which the tenths of an interval are visited, so that any first few are spread over it.
_DIGITS = (0, 5, 2, 7, 4, 9, 1, 6, 3, 8)


@dataclass(frozen=True)
class RatioTargets:
    """Distribution of occlusion ratios: a share of images with r = 0 exactly, and the others spread over buckets of r > 0.

    Args:
        edges: Increasing bucket edges in [0, 1]. A bucket includes its lower edge (unless that is 0) but not its upper one.
        weights: Weight of each bucket, at least 0, in any unit; None gives each bucket its width, the uniform distribution.
        zero_share: Share of images with r = 0, in [0, 1].
        tolerance: Largest difference of an image's ratio from its target, above 0. The ratio never leaves the target's bucket.

    Raises:
        ValueError: An argument is out of range, or the number of weights is not the number of buckets.

    Example:
        >>> targets = RatioTargets(edges=(0, 0.5, 0.9), weights=(3, 1), zero_share=0.2)
        >>> ranges = [targets.accept(position) for position in (0.1, 0.5, 0.9)]
        >>> [(round(low, 3), round(high, 3)) for low, high in ranges]
        [(0.0, 0.0), (0.245, 0.255), (0.695, 0.705)]
    """

    edges: Sequence[float]
    weights: Sequence[float] | None = None
    zero_share: float = 0.1
    tolerance: float = 0.005

    def __post_init__(self):
        edges = np.asarray(self.edges, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not ((np.diff(edges) > 0).all() and edges[0] >= 0 and edges[-1] <= 1):
            raise ValueError(f'ratio_edges must be two or more increasing numbers from 0 to 1, got {list(self.edges)}')
        weights = np.diff(edges) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (len(edges) - 1, ):
            raise ValueError(f'ratio_weights: {weights.size} given, but {len(edges)} edges make {len(edges) - 1} buckets; '
                             'give one weight for each bucket')
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f'ratio_weights must be numbers of at least 0, not all 0, got {list(self.weights)}')
        if not 0 <= self.zero_share <= 1:
            raise ValueError(f'zero_share must be from 0 to 1, got {self.zero_share}')
        if not 0 < self.tolerance <= 1:
            raise ValueError(f'tolerance must be more than 0 and at most 1, got {self.tolerance}')
        object.__setattr__(self, 'edges', tuple(edges.tolist()))
        object.__setattr__(self, 'weights', tuple(weights.tolist()))

    @property
    def shares(self) -> np.ndarray:
        """Share of images with r = 0, then of those in each bucket; they sum to 1."""
        weights = np.asarray(self.weights)
        return np.concatenate([[self.zero_share], (1 - self.zero_share) * weights / weights.sum()])

    def accept(self, position: float) -> tuple[float, float]:
        """Return the smallest and largest ratio for an image at a quantile in [0, 1) of the distribution."""
        bounds = np.concatenate([[0], np.cumsum(self.shares)])
        bucket = min(int(np.searchsorted(bounds, position, side='right')) - 1, len(self.weights))
        if bucket == 0:
            return 0., 0.
        lower, upper = self.edges[bucket - 1:bucket + 1]
        target = lower + (upper - lower) * (position - bounds[bucket]) / (bounds[bucket + 1] - bounds[bucket])
        above_zero, below_upper = np.nextafter(0, 1), np.nextafter(upper, 0)
        return float(max(target - self.tolerance, lower, above_zero)), float(min(target + self.tolerance, below_upper))


def spread_position(index: int, offset: float) -> float:
    """Return an element of a sequence in [0, 1) whose first elements, however many, fill the interval evenly.

    It is the radical inverse in base 10 (van der Corput's sequence) with permuted digits, shifted by an offset: ten successive
    positions, from a multiple of ten on, lie 0.1 apart, a hundred 0.01 apart, and so on.

    Example:
        >>> [round(spread_position(index, offset=0.5), 2) for index in (0, 1, 2, 3, 10, 11)]
        [0.5, 0.0, 0.7, 0.2, 0.55, 0.05]
    """
    position, weight = 0., 0.1
    while index:
        index, digit = divmod(index, 10)
        position += weight * _DIGITS[digit]
        weight /= 10
    return (offset + position) % 1


@dataclass(frozen=True)
class Recipe:
    """Settings that the images of a data set share; `mmtied.datasets.make_occluded_shapes` documents them.

    Raises:
        ValueError: A setting is out of range.
    """

    seed: int
    size: int
    objects: tuple[int, int]
    min_visible: float
    ratios: RatioTargets

    def __post_init__(self):
        check_integer('seed', self.seed, least=0)
        check_integer('size', self.size, least=64)
        if len(self.objects) != 2 or not 2 <= self.objects[0] <= self.objects[1] <= MAX_SHAPES:
            raise ValueError(f'objects must be the smallest and largest number in an image, both from 2 to {MAX_SHAPES}, got '
                             f'{list(self.objects)}')
        if not 0 <= self.min_visible < 1:
            raise ValueError(f'min_visible must be at least 0 and less than 1, got {self.min_visible}')

    def make_image(self, split: str, index: int) -> tuple[np.ndarray, float, list[dict]]:
        """Make one image, which depends only on this recipe, the split and the index.

        Returns:
            The RGB image, uint8, shape (size, size, 3); its occlusion ratio; its COCO annotations, without ids.

        Raises:
            ValueError: No layout with the wanted ratio was found.
        """
        split_key = SPLITS.index(split)
        offset = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, ))).uniform()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, index)))
        num_shapes = int(rng.integers(self.objects[0], self.objects[1], endpoint=True))
        accept = self.ratios.accept(spread_position(index, offset))
        layout = find_layout(rng, self.size, num_shapes, accept, self.min_visible)
        return paint(rng, layout), layout.ratio, _annotate(layout)


def check_integer(name: str, value: int, least: int) -> int:
    """Return the value, or raise a ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f'{name} must be an integer of at least {least}, got {value!r}')
    return int(value)


def _annotate(layout: Layout) -> list[dict]:
    """Return COCO annotations of the visible parts, back to front, without ids.

    Boxes are xywh in whole pixels and tight, areas are pixel counts, and segmentations are compressed run lengths, which are
    exact. `visible` is the visible share of the whole shape.
    """
    annotations = []
    for index, (shape, box, visible) in enumerate(zip(layout.shapes, layout.boxes_xywh, layout.visible, strict=True)):
        mask = layout.labels == index
        run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append({
            'category_id': CATEGORIES.index(shape.category) + 1,
            'bbox': [float(value) for value in box],
            'area': float(np.count_nonzero(mask)),
            'iscrowd': 0,
            'segmentation': {'size': list(run_lengths['size']), 'counts': run_lengths['counts'].decode()},
            'visible': round(float(visible), 4),
        })
    return annotations
