"""The report: the numbers of the whole set and of every bucket of each evaluation, as plain values."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from .accumulate import Positives, Records, grouped_precision
from .buckets import Bucket, Evaluation, Grouping, Plan, whole_set
from .protocol import AREA_RANGES, IOU_THRESHOLDS, IOU_TYPES, limits
from .targets import Targets

#: What is also averaged over the categories that all buckets share.
_SHARED = ('AP', 'AP50', 'AP75')


def summarize(plan: Plan, records: Mapping[str, Records], targets: Targets, proposal_nums: Sequence[int]) -> dict:
    """The report of a plan's evaluations.

    Args:
        plan: The evaluations and their groups.
        records: Match records by IoU type, sorted as `join_records` sorts.
        targets: The ground truth that they were matched with.
        proposal_nums: See `protocol.limits`.

    Returns:
        ``{'definition', 'unit', 'cumulative', 'intervals', 'shared_categories', '<iou type>': {'all': ROW, 'buckets':
        [{'name', 'lower', 'upper', **ROW}]}, 'further': [the same of every further evaluation]}``. A row has images,
        instances, categories, instances_small, instances_medium, instances_large, instances_per_image, AP, AP50, AP75,
        AP_S, AP_M, AP_L, and AP_shared, AP50_shared, AP75_shared over the categories that have a ground truth in every
        bucket that has any; None where there is nothing to average. `upper` of a cumulative bucket is None.
    """
    device = targets.cells.device
    everything = whole_set(len(targets.starts) - 1).to(device)
    whole = {iou_type: _precision(table, targets, everything, proposal_nums) for iou_type, table in records.items()}
    reports = [
        _report(evaluation, grouping.to(device), everything, whole, records, targets, proposal_nums)
        for evaluation, grouping in zip(plan.evaluations, plan.groupings, strict=True)
    ]
    return {**reports[0], 'further': reports[1:]}


def _report(evaluation: Evaluation, grouping: Grouping, everything: Grouping, whole: Mapping[str, dict[str, Tensor]],
            records: Mapping[str, Records], targets: Targets, proposal_nums: Sequence[int]) -> dict:
    """The report of one evaluation."""
    (counts_all, ), _ = group_counts(targets, everything)
    counts, present = group_counts(targets, grouping)
    shared = shared_categories(present)
    report = {'definition': evaluation.name, 'unit': evaluation.unit, 'cumulative': evaluation.cumulative,
              'intervals': None, 'shared_categories': int(shared.sum())}
    for iou_type, table in records.items():
        statistics_all, = _statistics(whole[iou_type], shared)
        statistics = _statistics(_precision(table, targets, grouping, proposal_nums), shared)
        report[iou_type] = {
            'all': {**counts_all, **statistics_all},
            'buckets': [{**_edges(bucket), **count, **numbers}
                        for bucket, count, numbers in zip(evaluation.buckets, counts, statistics, strict=True)],
        }
    return report


def _edges(bucket: Bucket) -> dict:
    return dict(name=bucket.name, lower=bucket.lower, upper=None if math.isinf(bucket.upper) else bucket.upper)


def _precision(records: Records, targets: Targets, grouping: Grouping, proposal_nums: Sequence[int]) -> dict[str, Tensor]:
    """`protocol.STATISTICS` before the mean over thresholds and categories, each (B, thresholds, K)."""
    headline, largest = limits(proposal_nums)

    def ap_at(limit: int) -> Tensor:
        return grouped_precision(records, targets.positives(), grouping, targets.num_categories, limit)

    ap = ap_at(largest)
    headline_ap = ap if headline == largest else ap_at(headline)
    at = {threshold: slice(number, number + 1) for number, threshold in enumerate(IOU_THRESHOLDS.tolist())}
    size = {name: number for number, name in enumerate(AREA_RANGES)}
    return {
        'AP': headline_ap[:, size['all']],
        'AP50': ap[:, size['all'], at[.5]],
        'AP75': ap[:, size['all'], at[.75]],
        'AP_S': ap[:, size['small']],
        'AP_M': ap[:, size['medium']],
        'AP_L': ap[:, size['large']],
    }


def _statistics(precision: Mapping[str, Tensor], shared: Tensor) -> list[dict]:
    """The means for each group, over all categories and over the shared ones."""
    means = {name: _mean(values) for name, values in precision.items()}
    means |= {f'{name}_shared': _mean(precision[name][:, :, shared]) for name in _SHARED}
    return [dict(zip(means, row, strict=True)) for row in zip(*means.values(), strict=True)]


def _mean(values: Tensor) -> list[float | None]:
    """The mean of each group over what is defined in it; None where nothing is."""
    return [None if math.isnan(mean) else mean for mean in torch.nanmean(values.flatten(1), 1).tolist()]


def group_counts(targets: Targets, grouping: Grouping) -> tuple[list[dict], Tensor]:
    """Counts of each group, and which categories it has.

    An area on a bound belongs to both of its ranges, as in COCO, so the three sizes may sum to more than the instances.

    Args:
        targets: The ground truth.
        grouping: The B groups, on the same device.

    Returns:
        For each group images (for a group of instances: those with one of them), instances, categories, instances_small,
        instances_medium, instances_large, instances_per_image (None without images); and the categories with a ground truth
        that counts, shape (B, K) bool.
    """
    positives = targets.positives()
    rows, present = [], []
    for members, first in zip(grouping.members.T, grouping.columns.tolist(), strict=True):
        counted = positives.counted[:, first:first + len(AREA_RANGES)] & members[positives.image, None]
        instances, *by_size = counted.sum(0).tolist()
        here = counted[:, 0]
        images = count_images(members, positives, first)
        categories = torch.bincount(positives.category[here], minlength=targets.num_categories) > 0
        sizes = {f'instances_{size}': number for size, number in zip(list(AREA_RANGES)[1:], by_size, strict=True)}
        rows.append(dict(images=images, instances=instances, categories=int(categories.sum()), **sizes,
                         instances_per_image=instances / images if images else None))
        present.append(categories)
    return rows, torch.stack(present)


def count_images(members: Tensor, positives: Positives, column: int) -> int:
    """Images of a group, or, where it is one of instances, those with an instance that counts.

    Args:
        members: Images of the group, shape (I,) bool.
        positives: The ground truths that count, on the same device.
        column: Column of the group's match bits; 0 for a group of images.
    """
    if column == 0:
        return int(members.sum())
    return len(torch.unique(positives.image[positives.counted[:, column] & members[positives.image]]))


def shared_categories(present: Tensor) -> Tensor:
    """Categories that every group with any ground truth has, shape (K,) bool, from (B, K); none where no group has any."""
    filled = present.any(1)
    return present[filled].all(0) & filled.any()


def reported_iou_types(report: dict) -> list[str]:
    """The IoU types that a report holds."""
    return [iou_type for iou_type in IOU_TYPES if iou_type in report]


def all_evaluations(report: dict) -> list[dict]:
    """The report itself, then the further evaluations of the same pass."""
    return [report, *report.get('further', [])]


def describe_evaluation(report: dict) -> str:
    """What was bucketed and by which definition, in a few words.

    Example:
        >>> describe_evaluation({'definition': 'covered', 'unit': 'instance', 'cumulative': True})
        'covered, by instance, cumulative'
    """
    parts = (report['definition'], 'by instance' if report.get('unit') == 'instance' else '',
             'cumulative' if report.get('cumulative') else '')
    return ', '.join(filter(None, parts))


def named_rows(report: dict, iou_type: str) -> Iterator[tuple[str, dict]]:
    """The name and the row of all images, then of each bucket."""
    yield 'all images', report[iou_type]['all']
    for bucket in report[iou_type]['buckets']:
        yield bucket['name'].removeprefix('r='), bucket
