"""The report of one evaluation: the numbers of the whole set and of every bucket, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records, average_precision
from .buckets import Bucket, assign_buckets
from .protocol import AREA_RANGES, IOU_THRESHOLDS, limits
from .targets import Targets


def summarize(definition: str, records: Mapping[str, Records], targets: Targets, ratios: np.ndarray,
              buckets: Sequence[Bucket], proposal_nums: Sequence[int]) -> dict:
    """The report.

    Args:
        definition: How the report names the ratio's definition.
        records: Match records by IoU type, sorted as `join_records` sorts.
        targets: The ground truth that they were matched with.
        ratios: Occlusion ratio of every image, shape (I,), NaN for none.
        buckets: The buckets.
        proposal_nums: See `protocol.limits`.

    Returns:
        ``{'definition': ..., '<iou type>': {'all': {...}, 'buckets': [{'name', 'lower', 'upper', ...}]}}``, ``...`` being
        images, instances, categories, AP, AP50, AP75, AP_S, AP_M, AP_L; None where there is nothing to average.
    """
    whole = torch.zeros(len(ratios), dtype=torch.int64)
    bucket_of_image = torch.from_numpy(assign_buckets(ratios, buckets))
    report = {'definition': definition}
    counts_all = _counts(targets, whole, 1)
    counts = _counts(targets, bucket_of_image, len(buckets))
    for iou_type, table in records.items():
        everything = _statistics(table, targets, whole, 1, proposal_nums)
        by_bucket = _statistics(table, targets, bucket_of_image, len(buckets), proposal_nums)
        report[iou_type] = {
            'all': {**counts_all[0], **everything[0]},
            'buckets': [{**asdict(bucket), **counts[number], **by_bucket[number]} for number, bucket in enumerate(buckets)],
        }
    return report


def _counts(targets: Targets, group_of_image: Tensor, num_groups: int) -> list[dict]:
    """Images, instances (crowds left out) and categories with an instance, of each group."""
    positives = targets.positives()
    group, inside = group_of_image.to(positives.image.device)[positives.image], ~targets.crowd
    inside = inside & (group >= 0)
    group, category = group[inside], positives.category[inside]
    present = torch.unique(group * targets.num_categories + category)
    images = torch.bincount(group_of_image[group_of_image >= 0], minlength=num_groups).tolist()
    instances = torch.bincount(group, minlength=num_groups).tolist()
    category_groups = torch.div(present, targets.num_categories, rounding_mode='floor')
    categories = torch.bincount(category_groups, minlength=num_groups).tolist()
    return [dict(images=image, instances=instance, categories=category)
            for image, instance, category in zip(images, instances, categories, strict=True)]


def _statistics(records: Records, targets: Targets, group_of_image: Tensor, num_groups: int,
                proposal_nums: Sequence[int]) -> list[dict]:
    """`protocol.STATISTICS` of each group."""
    headline, largest = limits(proposal_nums)

    def ap_at(limit: int) -> Tensor:
        return average_precision(records, targets.positives(), group_of_image.to(records.image.device), num_groups,
                                 targets.num_categories, len(IOU_THRESHOLDS), limit)

    ap = ap_at(largest)
    headline_ap = ap if headline == largest else ap_at(headline)
    half, three_quarters = (IOU_THRESHOLDS.tolist().index(threshold) for threshold in (.5, .75))
    size = {name: number for number, name in enumerate(AREA_RANGES)}
    columns = {
        'AP': headline_ap[:, size['all']],
        'AP50': ap[:, size['all'], half],
        'AP75': ap[:, size['all'], three_quarters],
        'AP_S': ap[:, size['small']],
        'AP_M': ap[:, size['medium']],
        'AP_L': ap[:, size['large']],
    }
    means = {name: _mean(values.flatten(1)) for name, values in columns.items()}
    return [{name: values[group] for name, values in means.items()} for group in range(num_groups)]


def _mean(values: Tensor) -> list[float | None]:
    """The mean of each row over what is defined in it; None where nothing is."""
    return [None if mean != mean else mean for mean in values.nanmean(1).tolist()]
