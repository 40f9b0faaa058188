"""What to evaluate: one or several ways to sort images or instances into occlusion buckets, for one and the same matching.

Image buckets choose among the images. Instance buckets keep every image and choose among the ground truth: an annotation
outside the bucket is ignored, not negative, as COCO treats one outside an area range; so each bucket is a further set of
"area ranges", with match bits of its own.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .buckets import DEFAULT_EDGES, Bucket, bucket_members, check_edges, make_buckets
from .inputs.ground_truth import GroundTruth
from .occlusion import check_definition, largest_ratio
from .protocol import AREA_RANGES
from .ratios import describe_definition, image_ratios, instance_ratios

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
