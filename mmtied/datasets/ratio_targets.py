"""Which occlusion ratio each image of a data set is to have, so that the whole has the distribution asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: In which order the tenths of an interval are visited, so that those visited so far are spread over it.
_DIGITS = (0, 5, 2, 7, 4, 9, 1, 6, 3, 8)


@dataclass(frozen=True)
class RatioTargets:
    """A distribution of occlusion ratios: a share of images with r = 0 exactly, the others spread over buckets of r > 0.

    Args:
        edges: Edges of the buckets, increasing, in [0, 1]. A bucket includes its lower edge (unless 0), not its upper.
        weights: Weight of each bucket, at least 0, in any unit; None gives each its width: the uniform distribution.
        zero_share: Share of images with r = 0, in [0, 1].
        tolerance: How far an image's ratio may be from its target, more than 0. It never leaves the target's bucket.

    Raises:
        ValueError: An argument is out of its range, or there are not as many weights as buckets.

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
                             'one weight for each bucket is needed')
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
        """Share of the images with r = 0, then of those in each bucket; their sum is 1."""
        weights = np.asarray(self.weights)
        return np.concatenate([[self.zero_share], (1 - self.zero_share) * weights / weights.sum()])

    def accept(self, position: float) -> tuple[float, float]:
        """Lowest and highest ratio for an image at a position in [0, 1) of the distribution, r = 0 first."""
        bounds = np.concatenate([[0], np.cumsum(self.shares)])
        bucket = min(int(np.searchsorted(bounds, position, side='right')) - 1, len(self.weights))
        if bucket == 0:
            return 0., 0.
        lower, upper = self.edges[bucket - 1:bucket + 1]
        target = lower + (upper - lower) * (position - bounds[bucket]) / (bounds[bucket + 1] - bounds[bucket])
        above_zero, below_upper = np.nextafter(0, 1), np.nextafter(upper, 0)
        return float(max(target - self.tolerance, lower, above_zero)), float(min(target + self.tolerance, below_upper))


def spread_position(index: int, offset: float) -> float:
    """The index-th of a sequence of positions in [0, 1) that fills the interval evenly, however far one takes it.

    This is the radical inverse in base 10 (van der Corput's sequence) with its digits permuted, shifted by an offset: ten
    successive positions, from a multiple of ten on, lie 0.1 apart, a hundred 0.01 apart, and so on.

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
