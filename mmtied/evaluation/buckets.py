"""Buckets of a data set by occlusion ratio, disjoint or cumulative."""

import math
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
        upper: Upper edge; equal to `lower` (both 0) for the bucket without occlusion, infinite for a cumulative one.
        holds_lower: Whether the lower edge belongs to it.
        holds_upper: Whether the upper edge belongs to it.
    """

    name: str
    lower: float
    upper: float
    holds_lower: bool = True
    holds_upper: bool = False

    @property
    def key(self) -> str:
        """A name for scalars: ``'r0'``, ``'r0.1-0.2'`` or, cumulative, ``'r0.1-up'``."""
        if self.lower == self.upper:
            return f'r{self.lower:g}'
        return f'r{self.lower:g}-up' if math.isinf(self.upper) else f'r{self.lower:g}-{self.upper:g}'

    def holds(self, ratios: np.ndarray) -> np.ndarray:
        """Which ratios lie in it, bool of the same shape; NaN lies nowhere."""
        above = ratios >= self.lower if self.holds_lower else ratios > self.lower
        return above & (ratios <= self.upper if self.holds_upper else ratios < self.upper)


def make_buckets(edges: Sequence[float] = DEFAULT_EDGES, cumulative: bool = False) -> tuple[Bucket, ...]:
    """The buckets between `edges`, or from each of them up.

    Disjoint: where the first edge is 0, a bucket of its own for r = 0 comes first and the next range is open below. Every
    other range holds its lower edge, and the last one holds its upper edge too.

    Cumulative: a bucket r >= t for every edge t, except for a last edge of 1, the maximum, which only ends the list. It has no
    upper edge.

    Args:
        edges: At least two numbers, finite, not negative, strictly increasing. They may pass 1, as `pairwise` ratios may.
        cumulative: Which of the two.

    Raises:
        ValueError: The edges are not such numbers.

    Example:
        >>> [bucket.name for bucket in make_buckets([0, 0.5, 1])]
        ['r=0', '(0,0.5)', '[0.5,1]']
        >>> [bucket.name for bucket in make_buckets([0, 0.5, 1], cumulative=True)]
        ['r>=0', 'r>=0.5']
        >>> [bucket.name for bucket in make_buckets([0, 0.8], cumulative=True)]
        ['r>=0', 'r>=0.8']
    """
    edges = check_edges(edges)
    if cumulative:
        return tuple(Bucket(f'r>={lower:g}', lower, math.inf) for lower in (edges[:-1] if edges[-1] == 1 else edges))
    buckets = [Bucket('r=0', 0., 0., holds_upper=True)] if edges[0] == 0 else []
    for lower, upper in pairwise(edges):
        left = '(' if lower == 0 else '['
        right = ']' if upper == edges[-1] else ')'
        buckets.append(Bucket(f'{left}{lower:g},{upper:g}{right}', lower, upper, left == '[', right == ']'))
    return tuple(buckets)


def check_edges(edges: Sequence[float]) -> list[float]:
    """The edges as floats; a ValueError when they are not as `make_buckets` wants them."""
    try:
        listed = [] if isinstance(edges, str) else list(edges)
    except TypeError:  # a single number, or None
        listed = []
    numeric = all(isinstance(edge, Real) and not isinstance(edge, bool) and np.isfinite(edge) for edge in listed)
    if len(listed) < 2 or not numeric or listed[0] < 0 or any(low >= high for low, high in pairwise(listed)):
        raise ValueError('bucket edges: two or more finite, strictly increasing numbers from 0 up are needed, such as '
                         f'[0, 0.5, 1]; got {listed or edges!r}')
    return [float(edge) for edge in listed]


def bucket_members(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """Which ratios lie in which bucket, shape (N, B) bool, from ratios of shape (N,).

    Example:
        >>> bucket_members(np.array([0., 0.7, np.nan]), make_buckets([0, 0.5, 1], cumulative=True)).tolist()
        [[True, False], [True, True], [False, False]]
    """
    return np.stack([bucket.holds(np.asarray(ratios, dtype=np.float64)) for bucket in buckets], axis=1)


def assign_buckets(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """The index of each ratio's bucket among disjoint ones, -1 for none (NaN, or outside all of them).

    Example:
        >>> assign_buckets(np.array([0., 0.05, 0.1, 1., np.nan]), make_buckets()).tolist()
        [0, 1, 2, 10, -1]
    """
    members = bucket_members(ratios, buckets)
    return np.where(members.any(axis=1), members.argmax(axis=1), -1)
