"""Buckets by occlusion ratio: how to sort images or instances, and which go where.

Image buckets choose among the images. Instance buckets keep every image and choose among the ground truth: an annotation
outside the bucket is ignored, not negative, as COCO treats one outside an area range. So each instance bucket is another set
of "area ranges" with its own columns of match bits, and any number of evaluations shares one matching.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .inputs.ground_truth import GroundTruth
from .occlusion import DECIMALS, get_occlusion_ratio, image_ratios, instance_ratios
from .protocol import AREA_RANGES, DEFAULT_EDGES, UNITS
from .stated import field_of, stated_ratios


@dataclass(frozen=True)
class Bucket:
    """A range of the occlusion ratio.

    Args:
        name: Its name in tables and reports, for example ``'[0.1,0.2)'``.
        lower: Lower edge.
        upper: Upper edge; equal to `lower` (both 0) for the bucket without occlusion, infinite for a cumulative one.
        holds_lower: Whether the lower edge belongs to it.
        holds_upper: Whether the upper edge belongs to it.
        is_level: Whether it is a level with a name of its own.
    """

    name: str
    lower: float
    upper: float
    holds_lower: bool = True
    holds_upper: bool = False
    is_level: bool = False

    @property
    def key(self) -> str:
        """Its name in scalars: ``'r0'``, ``'r0.1-0.2'`` or, cumulative, ``'r0.1-up'``; of a level its own."""
        if self.is_level:
            return re.sub(r'\W+', '_', self.name)
        if self.lower == self.upper:
            return f'r{self.lower:g}'
        return f'r{self.lower:g}-up' if math.isinf(self.upper) else f'r{self.lower:g}-{self.upper:g}'

    def holds(self, ratios: np.ndarray) -> np.ndarray:
        """Return which ratios lie in it, bool of the same shape; NaN is in no bucket.

        Ratios and edges are rounded to 12 decimals before they are compared.
        """
        ratios, lower, upper = (_rounded(value) for value in (ratios, self.lower, self.upper))
        above = ratios >= lower if self.holds_lower else ratios > lower
        return above & (ratios <= upper if self.holds_upper else ratios < upper)


def _rounded(values: np.ndarray | float) -> np.ndarray:
    """Round ratios to `DECIMALS`; numbers of fields that are too large for that stay."""
    values = np.asarray(values, dtype=np.float64)
    small = np.abs(values) < 1e3
    return np.where(small, np.round(np.where(small, values, 0), DECIMALS), values)


def make_buckets(edges: Sequence[float] = DEFAULT_EDGES, cumulative: bool = False) -> tuple[Bucket, ...]:
    """Return the buckets between `edges`, or from each of them up.

    Disjoint: where the first edge is 0, a bucket of its own for r = 0 comes first and the next range is open below. Every
    other range holds its lower edge, and the last one holds its upper edge too.

    Cumulative: a bucket r >= t for every edge t, except for a last edge of 1, the maximum, which only ends the list. It has no
    upper edge.

    Args:
        edges: At least two numbers, finite, not negative, strictly increasing. They may pass 1, as `pairwise` ratios may.
        cumulative: Return buckets r >= t instead of disjoint ones.

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
    edges = _checked_edges(edges)
    if cumulative:
        return tuple(Bucket(f'r>={lower:g}', lower, math.inf) for lower in (edges[:-1] if edges[-1] == 1 else edges))
    zero = [bucket_between(0, 0)] if edges[0] == 0 else []
    return (*zero, *(bucket_between(lower, upper, upper == edges[-1]) for lower, upper in pairwise(edges)))


def bucket_between(lower: float, upper: float, holds_upper: bool | None = None) -> Bucket:
    """Return the bucket lower <= r < upper; 0 to 0 is r = 0, and a `lower` of 0 excludes 0.

    Args:
        lower: Lower edge.
        upper: Upper edge.
        holds_upper: Whether the upper edge belongs to it; by default where it is 1, the maximum.

    Raises:
        ValueError: The numbers are not such a range.

    Example:
        >>> [bucket_between(*ends).name for ends in ((0, 0), (0, 0.1), (0.8, 0.9), (0.9, 1))]
        ['r=0', '(0,0.1)', '[0.8,0.9)', '[0.9,1]']
    """
    if lower == upper == 0:
        return Bucket('r=0', 0., 0., holds_upper=True)
    if not (0 <= lower < upper < math.inf):
        raise ValueError(f'bucket: two numbers 0 <= lower < upper are needed, or 0 0 for r = 0, got {lower:g} {upper:g}')
    holds_upper = upper == 1 if holds_upper is None else holds_upper
    left, right = '(' if lower == 0 else '[', ']' if holds_upper else ')'
    return Bucket(f'{left}{lower:g},{upper:g}{right}', lower, upper, lower != 0, holds_upper)


def bucket_members(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """Return which ratios lie in which bucket, shape (N, B) bool, from ratios of shape (N,).

    Example:
        >>> bucket_members(np.array([0., 0.7, np.nan]), make_buckets([0, 0.5, 1], cumulative=True)).tolist()
        [[True, False], [True, True], [False, False]]
    """
    return np.stack([bucket.holds(np.asarray(ratios, dtype=np.float64)) for bucket in buckets], axis=1)


@dataclass(frozen=True)
class Evaluation:
    """Settings of an evaluation by buckets.

    Args:
        definition: Occlusion ratio, a key of `occlusion.OCCLUSION_RATIOS`.
        edges: Bucket edges, see `make_buckets`.
        unit: Whether images (by the ratio of an image) or instances (by the ratio of an instance) go into buckets.
        cumulative: Use buckets r >= t instead of disjoint ones.
        same_category: Count only instances of the same category as occluders.
        levels: Levels instead of ranges between `edges`: names or values of a field, as ``('low', 'mid', 'high')``; or ranges
            by name, which may overlap, as ``{'Bare': (0, 0.1), 'Heavy': (0.35, 1)}`` (from the lower end up to, and for the
            largest with, the upper end); or `Bucket` objects. List the least occluded first.
        min_height: Height in pixels that an instance's box needs to be in a bucket; for ``unit='instance'``.

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
    levels: Any = None
    min_height: float = 0

    def __post_init__(self) -> None:
        largest = get_occlusion_ratio(self.definition).largest
        if self.unit not in UNITS:
            raise ValueError(f'unknown unit {self.unit!r} of buckets; known: {", ".join(UNITS)}')
        for name in ('cumulative', 'same_category'):
            if getattr(self, name) not in (True, False):
                raise ValueError(f'{name}: True or False is needed, got {getattr(self, name)!r}')
        if not isinstance(self.min_height, Real):
            raise ValueError(f'min_height: a number is needed, got {self.min_height!r}')
        last = _checked_edges(self.edges)[-1]
        if last > largest:
            raise ValueError(f'bucket edges: r by the definition {self.definition!r} is at most {largest:g}, got an edge of '
                             f"{last!r}; let the edges end at {largest:g}, or choose 'pairwise', which may pass 1")
        object.__setattr__(self, 'edges', tuple(self.edges))
        object.__setattr__(self, 'levels', _checked_levels(self.levels, self.definition))
        if self.levels and self.cumulative:
            raise ValueError('levels: they are not cumulative; state ranges that overlap, such as {"some": (0.1, 1)}')
        if self.min_height and self.unit != 'instance':
            raise ValueError(f"min_height={self.min_height:g}: heights are those of instances; use unit='instance'")

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, by lower edge, or the levels."""
        if not self.levels:
            return make_buckets(self.edges, self.cumulative)
        return tuple(level if isinstance(level, Bucket) else Bucket(str(level), number, number, True, True, True)
                     for number, level in enumerate(self.levels))

    def ratios(self, ground_truth: GroundTruth, unit: str | None = None) -> np.ndarray:
        """Return what the buckets sort: ratios of images, (I,), or annotations, (N,), float64; for named levels their numbers.

        Args:
            ground_truth: The annotations.
            unit: ``'image'`` or ``'instance'``, by default that of the evaluation.
        """
        unit = unit or self.unit
        if self.levels and not isinstance(self.levels[0], Bucket):
            return stated_ratios(ground_truth, self.definition, unit, self.levels)
        function = image_ratios if unit == 'image' else instance_ratios
        return function(ground_truth, self.definition, self.same_category)

    @property
    def name(self) -> str:
        """The name of the definition in reports."""
        return (self.definition + (', same category' if self.same_category else '')
                + (f', height >= {self.min_height:g}' if self.min_height else ''))

    @property
    def slug(self) -> str:
        """A prefix for scalars that says everything but the edges."""
        said = {'instance': self.unit == 'instance', 'cumulative': self.cumulative, 'same_category': self.same_category}
        return '_'.join([self.definition.replace(':', '_'), *(word for word, holds in said.items() if holds)])


class Grouping(NamedTuple):
    """The groups of one evaluation; B of them, I images, A columns in `Records.matched` and `Positives.counted`."""

    members: Tensor  # images of each group, (I, B) bool. Groups may overlap
    columns: Tensor  # column of each group's match bits for all areas; small, medium and large follow it, (B,) int64

    def to(self, device: torch.device | str) -> 'Grouping':
        """Return the same on another device."""
        return Grouping(self.members.to(device), self.columns.to(device))


def whole_set(num_images: int) -> Grouping:
    """Return one group of all images."""
    return Grouping(torch.ones(num_images, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))


class EvaluationPlan(NamedTuple):
    """Several evaluations of one data set that share a matching."""

    evaluations: tuple[Evaluation, ...]  # the first is the main one
    groupings: tuple[Grouping, ...]  # the groups of each
    #: The occlusion ratios of each: of the images, shape (I,), or of the annotations, shape (N,).
    ratios: tuple[np.ndarray, ...]
    #: Which annotations are outside each instance bucket, shape (N, C) bool, the instance buckets of all evaluations one
    #: after the other; matching has 4 + 4 C columns.
    outside: np.ndarray

    @property
    def num_columns(self) -> int:
        """Columns of the match records."""
        return len(AREA_RANGES) * (1 + self.outside.shape[1])


def make_plan(ground_truth: GroundTruth, evaluations: Sequence[Evaluation]) -> EvaluationPlan:
    """Compute the ratios that the evaluations need, and group by them."""
    block, num_images = len(AREA_RANGES), len(ground_truth.image_ids)
    groupings, ratios, known, outside = [], [], {}, [np.empty((len(ground_truth.image), 0), dtype=bool)]
    num_columns = block
    for evaluation in evaluations:
        buckets = evaluation.buckets
        key = evaluation.definition, evaluation.unit, evaluation.same_category, evaluation.levels
        if key not in known:
            known[key] = evaluation.ratios(ground_truth)
        ratios.append(known[key])
        inside = bucket_members(ratios[-1], buckets)
        if evaluation.min_height:
            inside &= (ground_truth.boxes_xywh[:, 3] >= evaluation.min_height)[:, None]
        if evaluation.unit == 'image':
            members, columns = torch.from_numpy(inside), torch.zeros(len(buckets), dtype=torch.int64)
        else:
            outside.append(~inside)
            members = torch.ones(num_images, len(buckets), dtype=torch.bool)
            columns = num_columns + block * torch.arange(len(buckets))
            num_columns += block * len(buckets)
        groupings.append(Grouping(members, columns))
    return EvaluationPlan(tuple(evaluations), tuple(groupings), tuple(ratios), np.concatenate(outside, axis=1))


def make_evaluations(extra_evaluations: Sequence[Mapping], preset: str | None = None, **options) -> tuple[Evaluation, ...]:
    """Return the main evaluation, from its options or a preset's name, and the extra ones, from their options; check all."""
    main = Evaluation(**options)
    if preset is not None:
        from . import presets

        if main != Evaluation():
            raise ValueError(f'preset={preset!r} settles definition, unit, edges and levels; leave those out, or the preset')
        main = presets.preset(preset)
    known = list(Evaluation.__dataclass_fields__)
    if not isinstance(extra_evaluations, list | tuple):
        raise ValueError('extra_evaluations: a list of dicts is needed, such as [dict(unit="instance")]; '
                         f'got {extra_evaluations!r}')
    for entry in extra_evaluations:
        if not isinstance(entry, Mapping) or set(entry) - set(known):
            raise ValueError(f'extra_evaluations: a list of dicts with options among {", ".join(known)} is needed, got {entry!r}')
    return (main, *(Evaluation(**entry) for entry in extra_evaluations))


def _checked_levels(levels: Any, definition: str) -> tuple | None:
    """Return levels as a tuple of names, numbers or buckets; raise a ValueError for others."""
    if levels is None:
        return None
    if isinstance(levels, Mapping):
        ends = list(levels.values())
        if not ends or not all(isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] < pair[1] for pair in ends):
            raise ValueError(f'levels: ranges (lower, upper) by name are needed, such as {{"Bare": (0, 0.1)}}; got {levels!r}')
        last = max(upper for _, upper in ends)
        return tuple(Bucket(str(name), float(lower), float(upper), True, upper == last, True)
                     for name, (lower, upper) in levels.items())
    given, levels = levels, () if isinstance(levels, str) or not isinstance(levels, Sequence) else tuple(levels)
    buckets = [isinstance(level, Bucket) for level in levels]
    if not levels or len(set(levels)) < len(levels) or (any(buckets) and not all(buckets)):
        raise ValueError('levels: names or values, each once, ranges by name, or buckets are needed, such as ("low", "high"); '
                         f'got {given!r}')
    if not any(buckets) and field_of(definition) is None:
        raise ValueError(f'levels: names need a field that holds them, such as definition="field:occlusion_level"; '
                         f'got {definition!r}')
    return levels


def _checked_edges(edges: Sequence[float]) -> list[float]:
    """Return the edges as floats; raise a ValueError where they are not as `make_buckets` wants them."""
    try:
        listed = [] if isinstance(edges, str) else list(edges)
    except TypeError:  # a single number, or None
        listed = []
    numeric = all(isinstance(edge, Real) and not isinstance(edge, bool) and np.isfinite(edge) for edge in listed)
    if len(listed) < 2 or not numeric or listed[0] < 0 or any(low >= high for low, high in pairwise(listed)):
        raise ValueError('bucket edges: two or more finite, strictly increasing numbers from 0 up are needed, such as '
                         f'[0, 0.5, 1]; got {listed or edges!r}')
    return [float(edge) for edge in listed]
