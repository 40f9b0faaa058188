"""Buckets of a data set by occlusion ratio, disjoint or cumulative."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .inputs.ground_truth import GroundTruth
from .occlusion import check_definition, describe_definition, image_ratios, instance_ratios, largest_ratio
from .protocol import AREA_RANGES

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


#: What a bucket is made of.
UNITS = ('image', 'instance')


@dataclass(frozen=True)
class Evaluation:
    """How to sort a data set into buckets.

    Args:
        definition: Occlusion ratio, one of `occlusion.DEFINITIONS`.
        edges: Bucket edges, see `buckets.make_buckets`.
        unit: Whether images (by the ratio of an image) or instances (by the ratio of an instance) go into buckets.
        cumulative: Buckets r >= t in place of disjoint ones.
        same_category: Count only instances of the same category as occluders.

    Raises:
        ValueError: An unknown definition or unit, edges that are unusable or beyond the definition's range, or an option that
            is neither True nor False.

    Example:
        >>> Evaluation(unit='instance', edges=(0, 0.5, 1)).slug
        'covered_instance'
    """

    definition: str = 'covered'
    edges: Sequence[float] = DEFAULT_EDGES
    unit: str = 'image'
    cumulative: bool = False
    same_category: bool = False

    def __post_init__(self) -> None:
        check_definition(self.definition)
        if self.unit not in UNITS:
            raise ValueError(f'unknown unit {self.unit!r} of buckets; known: {", ".join(UNITS)}')
        for name in ('cumulative', 'same_category'):
            if getattr(self, name) not in (True, False):
                raise ValueError(f'{name}: True or False is needed, got {getattr(self, name)!r}')
        last = check_edges(self.edges)[-1]
        if last > largest_ratio(self.definition):
            raise ValueError(f"bucket edges: r by the definition {self.definition!r} is at most 1, got an edge of {last!r}; let "
                             "the edges end at 1, or choose 'pairwise', which may pass 1")
        object.__setattr__(self, 'edges', tuple(self.edges))

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, by lower edge."""
        return make_buckets(self.edges, self.cumulative)

    @property
    def name(self) -> str:
        """How reports call the definition."""
        return describe_definition(self.definition, self.same_category)

    @property
    def slug(self) -> str:
        """A name for scalars, which says everything but the edges."""
        said = {'instance': self.unit == 'instance', 'cumulative': self.cumulative, 'same_category': self.same_category}
        return '_'.join([self.definition, *(word for word, holds in said.items() if holds)])


class Grouping(NamedTuple):
    """The groups of one evaluation; B of them, I images, A columns in `Records.matched` and `Positives.counted`.

    Args:
        members: Images of each group, shape (I, B) bool. Groups may overlap.
        columns: Column of each group's match bits for all areas; small, medium and large follow it. Shape (B,) int64.
    """

    members: Tensor
    columns: Tensor

    def to(self, device: torch.device | str) -> 'Grouping':
        """The same on another device."""
        return Grouping(self.members.to(device), self.columns.to(device))


def whole_set(num_images: int) -> Grouping:
    """One group of all images."""
    return Grouping(torch.ones(num_images, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))


class Plan(NamedTuple):
    """Several evaluations of one data set that share a matching.

    Args:
        evaluations: The first is the main one.
        groupings: The groups of each.
        ratios: The occlusion ratios of each: of the images, shape (I,), or of the annotations, shape (N,).
        outside: Which annotations are outside each instance bucket, shape (N, C) bool, all evaluations' instance buckets
            one after the other; matching has 4 + 4 C columns.
    """

    evaluations: tuple[Evaluation, ...]
    groupings: tuple[Grouping, ...]
    ratios: tuple[np.ndarray, ...]
    outside: np.ndarray

    @property
    def num_columns(self) -> int:
        """Columns of the match records."""
        return len(AREA_RANGES) * (1 + self.outside.shape[1])


def make_plan(ground_truth: GroundTruth, evaluations: Sequence[Evaluation]) -> Plan:
    """Compute the ratios that the evaluations need, and group by them.

    Args:
        ground_truth: The annotations.
        evaluations: One or more.
    """
    num_images, block = len(ground_truth.image_ids), len(AREA_RANGES)
    ratios_of = {'image': functools.cache(functools.partial(image_ratios, ground_truth)),
                 'instance': functools.cache(functools.partial(instance_ratios, ground_truth))}
    groupings, ratios, outside = [], [], [np.empty((len(ground_truth.image), 0), dtype=bool)]
    num_columns = block
    for evaluation in evaluations:
        buckets = evaluation.buckets
        ratios.append(ratios_of[evaluation.unit](evaluation.definition, evaluation.same_category))
        inside = bucket_members(ratios[-1], buckets)
        if evaluation.unit == 'image':
            members, columns = torch.from_numpy(inside), torch.zeros(len(buckets), dtype=torch.int64)
        else:
            outside.append(~inside)
            members = torch.ones(num_images, len(buckets), dtype=torch.bool)
            columns = num_columns + block * torch.arange(len(buckets))
            num_columns += block * len(buckets)
        groupings.append(Grouping(members, columns))
    return Plan(tuple(evaluations), tuple(groupings), tuple(ratios), np.concatenate(outside, axis=1))


def make_evaluations(further: Sequence[Mapping], **options) -> tuple[Evaluation, ...]:
    """The main evaluation from its options, and the further ones from theirs.

    Raises:
        ValueError: As `Evaluation`, and an option that it does not have.
    """
    known = list(Evaluation.__dataclass_fields__)
    if not isinstance(further, list | tuple):
        raise ValueError(f'further: a list of dicts is needed, such as [dict(unit="instance")]; got {further!r}')
    for entry in further:
        if not isinstance(entry, Mapping) or set(entry) - set(known):
            raise ValueError(f'further: a list of dicts with options among {", ".join(known)} is needed, got {entry!r}')
    return (Evaluation(**options), *(Evaluation(**entry) for entry in further))
