"""How occluded a data set is: by bucket, by category, by size, and how far that is a matter of crowding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..evaluation.buckets import Bucket, Evaluation, bucket_members
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.occlusion import image_ratios, instance_ratios
from ..evaluation.protocol import AREA_RANGES
from ..evaluation.targets import in_area_ranges

#: From here up an image or instance counts as highly occluded.
HIGH = 0.5


@dataclass(frozen=True)
class Members:
    """The instances of a data set, crowds left out; M of them in I images.

    Args:
        image: Position of each one's image, shape (M,) int64.
        category: Position of its category in the ground truth's `category_ids`, shape (M,) int64.
        area: The file's area in pixels, shape (M,) float64.
        own_ratio: Its own ratio, see `occlusion.instance_ratios_of`, shape (M,) float64.
        ratio: What it is bucketed by: its image's ratio, or its own; shape (M,) float64.
        image_ratio: The ratio of every image, shape (I,) float64, NaN without instances.
    """

    image: np.ndarray
    category: np.ndarray
    area: np.ndarray
    own_ratio: np.ndarray
    ratio: np.ndarray
    image_ratio: np.ndarray


def occlusion_stats(ground_truth: GroundTruth, evaluation: Evaluation | None = None, high: float = HIGH) -> dict:
    """How occluded a data set is, as plain values.

    Args:
        ground_truth: The annotations; crowd regions neither occlude nor count.
        evaluation: Definition, buckets, and whether images or instances go into them; images by `covered` by default.
        high: The ratio from which on an image or instance counts as highly occluded.

    Returns:
        - ``definition``, ``unit``, ``cumulative``, ``high``; ``images`` (all, also empty ones), ``instances``, ``categories``
          (with instances)
        - ``outside``: images or instances in no bucket (without a ratio, or beyond the edges)
        - ``mean``: mean ratio of the images or instances
        - ``buckets``: for each ``name``, ``lower``, ``upper`` (None for cumulative ones), ``images``, ``instances``,
          ``categories``, ``instances_per_image`` and ``objects``, the mean number of objects in an image of the bucket, or in
          the image of an instance of the bucket
        - ``by_category`` and ``by_size``: for each ``name`` (and ``id``), ``instances``, ``mean`` of the instances' own ratios
          and ``high_share``, the share that is highly occluded, or stands in such an image; categories by falling mean
        - ``crowding``: ``spearman``, the rank correlation of the ratio with the number of objects in the image, and
          ``objects``, their mean number

        None stands for what is undefined.

    Raises:
        ValueError: `high` is not a ratio above 0.
    """
    if not high > 0:
        raise ValueError(f'high: a ratio above 0 is needed, got {high}')
    evaluation = evaluation or Evaluation()
    members = _members(ground_truth, evaluation)
    ratios, objects = members.image_ratio, np.bincount(members.image, minlength=len(members.image_ratio))
    if evaluation.unit == 'instance':
        ratios, objects = members.ratio, objects[members.image]
    known = ~np.isnan(ratios)
    held = bucket_members(ratios, evaluation.buckets)
    return dict(definition=evaluation.name, unit=evaluation.unit, cumulative=evaluation.cumulative, high=float(high),
                images=len(ground_truth.image_ids), instances=len(members.image),
                categories=len(np.unique(members.category)), outside=int((~held.any(axis=1)).sum()), mean=_mean(ratios[known]),
                buckets=_by_bucket(members, evaluation.buckets, held, objects),
                by_category=_by_category(members, ground_truth, high), by_size=_by_size(members, high),
                crowding=dict(spearman=spearman(ratios[known], objects[known]), objects=_mean(objects[known])))


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation of two samples of shape (N,), ties sharing their mean rank; None where one is constant.

    Example:
        >>> round(spearman(np.array([1., 2., 3., 4.]), np.array([10, 20, 20, 15])), 3)
        0.316
    """
    ranks = []
    for values in (first, second):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return None
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])


def _members(ground_truth: GroundTruth, evaluation: Evaluation) -> Members:
    single = np.flatnonzero(~ground_truth.crowd)
    image = ground_truth.image[single]
    of_image = image_ratios(ground_truth, evaluation.definition, evaluation.same_category)
    own = instance_ratios(ground_truth, evaluation.definition, evaluation.same_category)[single]
    return Members(image, ground_truth.category[single], ground_truth.area[single], own,
                   of_image[image] if evaluation.unit == 'image' else own, of_image)


def _by_bucket(members: Members, buckets: Sequence[Bucket], held: np.ndarray, objects: np.ndarray) -> list[dict]:
    """Counts of each bucket; `held` (U, B) and `objects` (U,) are of the images or instances that buckets are made of."""
    inside = bucket_members(members.ratio, buckets)
    rows = []
    for number, bucket in enumerate(buckets):
        here = inside[:, number]
        images, instances = len(np.unique(members.image[here])), int(here.sum())
        rows.append(dict(name=bucket.name, lower=bucket.lower, upper=bucket.upper if np.isfinite(bucket.upper) else None,
                         images=images, instances=instances, categories=len(np.unique(members.category[here])),
                         instances_per_image=instances / images if images else None, objects=_mean(objects[held[:, number]])))
    return rows


def _by_category(members: Members, ground_truth: GroundTruth, high: float) -> list[dict]:
    ids = ground_truth.category_ids.tolist()
    rows = [dict(id=category_id, name=str(ground_truth.category_names[category_id]),
                 **_row(members, members.category == number, high)) for number, category_id in enumerate(ids)]
    return sorted(rows, key=lambda row: (row['mean'] is None, -(row['mean'] or 0), row['id']))


def _by_size(members: Members, high: float) -> list[dict]:
    """By COCO's area ranges; an area on a bound belongs to both, as in COCOeval."""
    inside = in_area_ranges(torch.from_numpy(members.area)).numpy()
    return [dict(name=name, **_row(members, inside[:, number], high))
            for number, name in enumerate(AREA_RANGES) if name != 'all']


def _row(members: Members, inside: np.ndarray, high: float) -> dict:
    own, ratio = members.own_ratio[inside], members.ratio[inside]
    return dict(instances=int(inside.sum()), mean=_mean(own[~np.isnan(own)]), high_share=_mean(ratio >= high))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
