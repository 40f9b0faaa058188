"""Bucket images or instances by occlusion ratio.

Image buckets select images. Instance buckets keep every image and select ground truth: an annotation outside the bucket is
ignored, as COCO ignores one outside an area range. Each instance bucket is therefore another set of "area ranges" with its own
columns of match bits, and any number of evaluations shares one matching.
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

from .accumulate import Grouping
from .inputs.ground_truth import GroundTruth
from .occlusion import DECIMALS, get_occlusion_ratio, image_ratios, instance_ratios
from .protocol import AREA_RANGES, DEFAULT_EDGES, UNITS
from .stated import field_of, stated_ratios


@dataclass(frozen=True)
class Bucket:
    """A range of the occlusion ratio.

    Args:
        name: Name in tables and reports, for example ``'[0.1,0.2)'``.
        lower: Lower edge.
        upper: Upper edge; equal to `lower` (both 0) for the bucket without occlusion, infinite for a cumulative one.
        holds_lower: Include the lower edge.
        holds_upper: Include the upper edge.
        is_level: The bucket is a named level, not a plain range.
    """

    name: str
    lower: float
    upper: float
    holds_lower: bool = True
    holds_upper: bool = False
    is_level: bool = False

    @property
    def key(self) -> str:
        """Name in scalars: ``'r0'``, ``'r0.1-0.2'`` or, cumulative, ``'r0.1-up'``; a level keeps its own name."""
        if self.is_level:
            return re.sub(r'\W+', '_', self.name)
        if self.lower == self.upper:
            return f'r{self.lower:g}'
        return f'r{self.lower:g}-up' if math.isinf(self.upper) else f'r{self.lower:g}-{self.upper:g}'

    def holds(self, ratios: np.ndarray) -> np.ndarray:
        """Return which ratios are in the bucket, bool of the same shape; NaN is in no bucket.

        Ratios and edges are rounded to 12 decimals before they are compared.
        """
        ratios, lower, upper = (_rounded(value) for value in (ratios, self.lower, self.upper))
        above = ratios >= lower if self.holds_lower else ratios > lower
        return above & (ratios <= upper if self.holds_upper else ratios < upper)


def _rounded(values: np.ndarray | float) -> np.ndarray:
    """Round ratios to `DECIMALS`; leave field values that are too large for that."""
    values = np.asarray(values, dtype=np.float64)
    small = np.abs(values) < 1e3
    return np.where(small, np.round(np.where(small, values, 0), DECIMALS), values)


def make_buckets(edges: Sequence[float] = DEFAULT_EDGES, cumulative: bool = False) -> tuple[Bucket, ...]:
    """Return the disjoint buckets between `edges`, or the cumulative buckets r >= t.

    Disjoint: if the first edge is 0, the first bucket is r = 0 and the next range excludes 0. Other ranges include their lower
    edge, and the last one also its upper edge.

    Cumulative: one bucket r >= t without an upper edge for each edge t, except a last edge of 1, the maximum.

    Args:
        edges: At least two finite, nonnegative, strictly increasing numbers. They may exceed 1, as `pairwise` ratios do.
        cumulative: Return buckets r >= t instead of disjoint ones.

    Raises:
        ValueError: Invalid edges.

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
    """Return the bucket lower <= r < upper; 0 to 0 is the bucket r = 0, and otherwise a `lower` of 0 is excluded.

    Args:
        lower: Lower edge.
        upper: Upper edge.
        holds_upper: Include the upper edge; by default only if it is 1, the maximum.

    Raises:
        ValueError: Not a range of nonnegative numbers.

    Example:
        >>> [bucket_between(*ends).name for ends in ((0, 0), (0, 0.1), (0.8, 0.9), (0.9, 1))]
        ['r=0', '(0,0.1)', '[0.8,0.9)', '[0.9,1]']
    """
    if lower == upper == 0:
        return Bucket('r=0', 0., 0., holds_upper=True)
    if not (0 <= lower < upper < math.inf):
        raise ValueError(f'bucket: expected two numbers 0 <= lower < upper, or 0 0 for r = 0, got {lower:g} {upper:g}')
    holds_upper = upper == 1 if holds_upper is None else holds_upper
    left, right = '(' if lower == 0 else '[', ']' if holds_upper else ')'
    return Bucket(f'{left}{lower:g},{upper:g}{right}', lower, upper, lower != 0, holds_upper)


def bucket_members(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """Return which ratios (N,) are in which bucket, shape (N, B) bool.

    Example:
        >>> bucket_members(np.array([0., 0.7, np.nan]), make_buckets([0, 0.5, 1], cumulative=True)).tolist()
        [[True, False], [True, True], [False, False]]
    """
    return np.stack([bucket.holds(np.asarray(ratios, dtype=np.float64)) for bucket in buckets], axis=1)


@dataclass(frozen=True)
class Evaluation:
    """Settings of a bucketed evaluation.

    Args:
        definition: Occlusion ratio, a key of `occlusion.OCCLUSION_RATIOS`.
        edges: Bucket edges, see `make_buckets`.
        unit: ``'image'`` or ``'instance'``: bucket images by their ratio, or instances by theirs.
        cumulative: Use buckets r >= t instead of disjoint ones.
        same_category: Count only instances of the same category as occluders.
        levels: Levels instead of ranges between `edges`, least occluded first: names or values of a field, such as
            ``('low', 'mid', 'high')``; named ranges, which may overlap, such as ``{'Bare': (0, 0.1), 'Heavy': (0.35, 1)}`` (only
            the largest upper end is included); or `Bucket` objects.
        min_height: Minimum height of a box in pixels for ``unit='instance'``; smaller instances are in no bucket.

    Raises:
        ValueError: Unknown definition or unit, edges that are invalid or beyond the definition's range, or an option that is
            neither True nor False.

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
            raise ValueError(f'unknown bucket unit {self.unit!r}; known: {", ".join(UNITS)}')
        for name in ('cumulative', 'same_category'):
            if getattr(self, name) not in (True, False):
                raise ValueError(f'{name}: expected True or False, got {getattr(self, name)!r}')
        if not isinstance(self.min_height, Real):
            raise ValueError(f'min_height: expected a number, got {self.min_height!r}')
        last = _checked_edges(self.edges)[-1]
        if last > largest:
            raise ValueError(f'bucket edges: r by definition {self.definition!r} is at most {largest:g}, got an edge of '
                             f"{last!r}; let the edges end at {largest:g}, or use 'pairwise', which may exceed 1")
        object.__setattr__(self, 'edges', tuple(self.edges))
        object.__setattr__(self, 'levels', _checked_levels(self.levels, self.definition))
        if self.levels and self.cumulative:
            raise ValueError('levels: cannot be cumulative; use overlapping ranges such as {"some": (0.1, 1)}')
        if self.min_height and self.unit != 'instance':
            raise ValueError(f"min_height={self.min_height:g}: needs unit='instance'")

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets in ascending order, or the levels."""
        if not self.levels:
            return make_buckets(self.edges, self.cumulative)
        return tuple(level if isinstance(level, Bucket) else Bucket(str(level), number, number, True, True, True)
                     for number, level in enumerate(self.levels))

    def ratios(self, ground_truth: GroundTruth, unit: str | None = None) -> np.ndarray:
        """Return the ratios of images (I,) or annotations (N,), float64; for named levels, their positions.

        Args:
            ground_truth: The annotations.
            unit: ``'image'`` or ``'instance'``; by default the evaluation's own.
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
        """Prefix of scalars: every setting except the edges."""
        flags = {'instance': self.unit == 'instance', 'cumulative': self.cumulative, 'same_category': self.same_category}
        return '_'.join([self.definition.replace(':', '_'), *(flag for flag, is_set in flags.items() if is_set)])


class EvaluationPlan(NamedTuple):
    """Evaluations of one data set that share a matching."""

    evaluations: tuple[Evaluation, ...]  # the main one first
    groupings: tuple[Grouping, ...]  # the groups of each evaluation
    #: The occlusion ratios of each evaluation: of images (I,) or of annotations (N,).
    ratios: tuple[np.ndarray, ...]
    #: Annotations outside each instance bucket, (N, C) bool. The C instance buckets are those of all evaluations in order;
    #: matching has 4 + 4 C columns.
    outside: np.ndarray

    @property
    def num_columns(self) -> int:
        """Number of columns of the match records."""
        return len(AREA_RANGES) * (1 + self.outside.shape[1])


def make_plan(ground_truth: GroundTruth, evaluations: Sequence[Evaluation]) -> EvaluationPlan:
    """Compute the ratios of the evaluations and the groups they define."""
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


def make_evaluations(extra_evaluations: Sequence[Mapping], preset_name: str | None = None, /,
                     **options: Any) -> tuple[Evaluation, ...]:
    """Build and check the main evaluation, from its options or a preset, and the extra ones from their options."""
    main = Evaluation(**options)
    if preset_name is not None:
        if main != Evaluation():
            raise ValueError(f'preset={preset_name!r} sets definition, unit, edges and levels; leave those out, or the preset')
        main = preset(preset_name)
    known = list(Evaluation.__dataclass_fields__)
    if not isinstance(extra_evaluations, list | tuple):
        raise ValueError('extra_evaluations: expected a list of dicts such as [dict(unit="instance")], '
                         f'got {extra_evaluations!r}')
    for entry in extra_evaluations:
        if not isinstance(entry, Mapping) or set(entry) - set(known):
            raise ValueError(f'extra_evaluations: expected dicts with options among {", ".join(known)}, got {entry!r}')
    return (main, *(Evaluation(**entry) for entry in extra_evaluations))


def _checked_levels(levels: Any, definition: str) -> tuple | None:
    """Return levels as a tuple of names, numbers or buckets; raise a ValueError for anything else."""
    if levels is None:
        return None
    if isinstance(levels, Mapping):
        ends = list(levels.values())
        if not ends or not all(isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] < pair[1] for pair in ends):
            raise ValueError(f'levels: expected named ranges (lower, upper) such as {{"Bare": (0, 0.1)}}, got {levels!r}')
        last = max(upper for _, upper in ends)
        return tuple(Bucket(str(name), float(lower), float(upper), True, upper == last, True)
                     for name, (lower, upper) in levels.items())
    given, levels = levels, () if isinstance(levels, str) or not isinstance(levels, Sequence) else tuple(levels)
    buckets = [isinstance(level, Bucket) for level in levels]
    if not levels or len(set(levels)) < len(levels) or (any(buckets) and not all(buckets)):
        raise ValueError('levels: expected distinct names or values such as ("low", "high"), named ranges, or buckets, '
                         f'got {given!r}')
    if not any(buckets) and field_of(definition) is None:
        raise ValueError(f'levels: names need the definition of a field, such as "field:occlusion_level", got {definition!r}')
    return levels


def _checked_edges(edges: Sequence[float]) -> list[float]:
    """Return the edges as floats; raise a ValueError unless they suit `make_buckets`."""
    try:
        listed = [] if isinstance(edges, str) else list(edges)
    except TypeError:  # a single number, or None
        listed = []
    numeric = all(isinstance(edge, Real) and not isinstance(edge, bool) and np.isfinite(edge) for edge in listed)
    if len(listed) < 2 or not numeric or listed[0] < 0 or any(low >= high for low, high in pairwise(listed)):
        raise ValueError('bucket edges: expected two or more finite, nonnegative, strictly increasing numbers such as '
                         f'[0, 0.5, 1], got {listed or edges!r}')
    return [float(edge) for edge in listed]


#: Evaluations as data sets about occlusion define them, by name.
PRESETS = {
    # Zhang et al. 2017, subsets of Wang et al. 2018: pedestrians at least 50 pixels high, by the hidden share of the box.
    'citypersons': Evaluation('visible_box', unit='instance', min_height=50, levels=tuple(
        Bucket(name, lower, upper, holds_lower=name != 'Partial', holds_upper=True, is_level=True)
        for name, lower, upper in (('Reasonable', 0, .35), ('Bare', 0, .1), ('Partial', .1, .35), ('Heavy', .35, .8)))),
    # Shao et al. 2018 annotates visible boxes; the limits 0.3 and 0.7 of the hidden share are ours.
    'crowdhuman': Evaluation('visible_box', unit='instance', levels={'bare': (0, .3), 'partial': (.3, .7), 'heavy': (.7, 1)}),
    # COCO-OLAC: levels of images by human annotators, in the image field occlusion_level.
    'olac': Evaluation('field:occlusion_level', levels=('low', 'mid', 'high')),
    # Zhang et al. 2019: the largest IoU with another person; moderate and hard as defined there.
    'ochuman': Evaluation('max_iou', unit='instance', levels={'apart': (0, .5), 'moderate': (.5, .75), 'hard': (.75, 1)}),
}
#: Statistics that get intervals and lead the page, for benchmarks that do not rank by AP.
STATISTICS_OF_PRESETS = {'citypersons': ('MR-2', )}


def preset(name: str) -> Evaluation:
    """Return the evaluation that a data set defines.

    Args:
        name: One of `PRESETS`: citypersons, crowdhuman, olac, ochuman.

    Raises:
        ValueError: Unknown name.

    Example:
        >>> [bucket.name for bucket in preset('olac').buckets]
        ['low', 'mid', 'high']
    """
    if name not in PRESETS:
        raise ValueError(f'unknown preset {name!r}; use one of {", ".join(PRESETS)}')
    return PRESETS[name]
