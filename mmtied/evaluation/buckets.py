"""Buckets of images by occlusion ratio: r = 0, then disjoint ranges with the lower edge inclusive, the last closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

import numpy as np

#: 0, 0.1 ... 1, written as tenths so that 0.3 is 0.3.
DEFAULT_EDGES = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True)
class Bucket:
    """A range of the occlusion ratio.

    Args:
        name: How tables and reports call it, for example ``'[0.1,0.2)'``.
        lower: Lower edge.
        upper: Upper edge; equal to `lower` (both 0) for the bucket of images without occlusion.
    """

    name: str
    lower: float
    upper: float

    @property
    def key(self) -> str:
        """A name for scalars: ``'r0'`` or ``'r0.1-0.2'``."""
        return f'r{self.lower:g}' if self.lower == self.upper else f'r{self.lower:g}-{self.upper:g}'


def make_buckets(edges: Sequence[float] = DEFAULT_EDGES) -> tuple[Bucket, ...]:
    """The buckets between `edges`.

    Where the first edge is 0, a bucket of its own for r = 0 comes first and the next range is open below. Every other
    range holds its lower edge, and the last one holds its upper edge too.

    Args:
        edges: At least two numbers, finite, not negative, strictly increasing. They may pass 1, as `pairwise` ratios may.

    Raises:
        ValueError: The edges are not such numbers.

    Example:
        >>> [bucket.name for bucket in make_buckets([0, 0.5, 1])]
        ['r=0', '(0,0.5)', '[0.5,1]']
    """
    edges = list(edges)
    numeric = all(isinstance(edge, Real) and not isinstance(edge, bool) and np.isfinite(edge) for edge in edges)
    if len(edges) < 2 or not numeric or edges[0] < 0 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f'bucket edges: two or more finite, strictly increasing numbers from 0 up are needed, got {edges}')
    edges = [float(edge) for edge in edges]
    buckets = [Bucket('r=0', 0., 0.)] if edges[0] == 0 else []
    for lower, upper in pairwise(edges):
        left = '(' if lower == 0 else '['
        right = ']' if upper == edges[-1] else ')'
        buckets.append(Bucket(f'{left}{lower:g},{upper:g}{right}', lower, upper))
    return tuple(buckets)


def assign_buckets(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """The index of each ratio's bucket, -1 for none (NaN, or outside all of them).

    Example:
        >>> assign_buckets(np.array([0., 0.05, 0.1, 1., np.nan]), make_buckets()).tolist()
        [0, 1, 2, 10, -1]
    """
    ratios = np.asarray(ratios, dtype=np.float64)
    index = np.full(ratios.shape, -1, dtype=np.int64)
    for number, bucket in enumerate(buckets):
        if bucket.lower == bucket.upper:
            inside = ratios == bucket.lower
        else:
            above = ratios > bucket.lower if bucket.lower == 0 else ratios >= bucket.lower
            inside = above & ((ratios <= bucket.upper) if bucket is buckets[-1] else (ratios < bucket.upper))
        index[inside] = number
    return index
