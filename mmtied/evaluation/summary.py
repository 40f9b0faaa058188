"""Compute the report: statistics of all images and of every bucket of each evaluation, as plain values."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .accumulate import Grouping, Positives, Records, accumulate, whole_set
from .buckets import Evaluation, EvaluationPlan
from .measures import MeasureInput, compute_measure
from .parallel import operations_in_one_thread
from .protocol import AREA_RANGES, IOU_TYPES, STATISTICS, Statistic, shared_statistics
from .stated import PREFIX, field_of
from .targets import Targets

#: The statistic of each of LVIS's category frequencies: AP over rare, common and frequent categories.
FREQUENCIES = {'r': 'APr', 'c': 'APc', 'f': 'APf'}


@operations_in_one_thread()
def summarize(plan: EvaluationPlan, records: Mapping[str, Records], targets: Targets, proposal_nums: Sequence[int],
              category_names: Sequence[str] | None = None, frequencies: Sequence[str] = ()) -> dict:
    """Compute the report of a plan's evaluations.

    Args:
        plan: The evaluations and their groups.
        records: Match records by IoU type, in the order of `join_records`.
        targets: The ground truth that the records were matched with.
        proposal_nums: Limits of detections, see `Statistic.limit`.
        category_names: Names of the K categories. If K > 1, the report has ``per_category``: their ``names``, the ``groups``
            ('all', then the buckets), and, by group and category, ``instances`` and the AP of each IoU type.
        frequencies: LVIS's frequency of each category, which adds APr, APc and APf to every row.

    Returns:
        ``{'definition', 'unit', 'cumulative', 'intervals', 'shared_categories', '<iou type>': {'all': ROW, 'buckets':
        [{'name', 'lower', 'upper', **ROW}]}, 'further': [the same of every extra evaluation]}``. A row has images,
        instances, categories, instances_small, instances_medium, instances_large, instances_per_image, every statistic of
        `protocol.STATISTICS` (AP, AP50, AP75, AP_S, AP_M, AP_L ...), and AP_shared, AP50_shared, AP75_shared over the categories
        with ground truth in every nonempty bucket. Undefined statistics are None, as is `upper` of a cumulative bucket.
    """
    device = targets.cells.device
    everything = whole_set(len(targets.starts) - 1).to(device)
    whole = {iou_type: _accumulated(table, targets, everything, proposal_nums) for iou_type, table in records.items()}
    reports = [
        _report(evaluation, grouping.to(device), everything, whole, records, targets, proposal_nums, category_names, frequencies)
        for evaluation, grouping in zip(plan.evaluations, plan.groupings, strict=True)
    ]
    return {**reports[0], 'further': reports[1:]}


def count_instances(targets: Targets, grouping: Grouping) -> Tensor:
    """Count the ground truths by group, category and area range, shape (B, K, 4) int64.

    As in COCO, an area on a bound belongs to both ranges, so the three sizes may sum to more than the instances.
    """
    positives = targets.positives()
    counts = torch.zeros(len(grouping.columns), targets.num_categories, len(AREA_RANGES), dtype=torch.int64,
                         device=positives.category.device)
    for count, members, first in zip(counts, grouping.members.T, grouping.columns.tolist(), strict=True):
        counted = positives.counted[:, first:first + len(AREA_RANGES)] & members[positives.image, None]
        count.index_add_(0, positives.category, counted.long())
    return counts


def count_images(members: Tensor, positives: Positives, column: int) -> int:
    """Count the images of a group; of a group of instances (`column` > 0), only those with a counted instance."""
    if column == 0:
        return int(members.sum())
    return len(torch.unique(positives.image[positives.counted[:, column] & members[positives.image]]))


def reported_iou_types(report: Mapping) -> list[str]:
    """Return the IoU types in a report."""
    return [iou_type for iou_type in IOU_TYPES if iou_type in report]


def all_evaluations(report: Mapping) -> list[Mapping]:
    """Return the report itself, then the reports of its extra evaluations."""
    return [report, *report.get('further', [])]


def describe_evaluation(report: Mapping) -> str:
    """Describe the definition and the unit of the buckets in a few words.

    Example:
        >>> describe_evaluation({'definition': 'covered', 'unit': 'instance', 'cumulative': True})
        'covered, by instance, cumulative'
    """
    parts = (report['definition'], 'by instance' if report.get('unit') == 'instance' else '',
             'cumulative' if report.get('cumulative') else '')
    return ', '.join(filter(None, parts))


def describe_ratio_name(report: Mapping) -> str:
    """Name the bucketed quantity for an axis or a title.

    Example:
        >>> [describe_ratio_name({'definition': name}) for name in ('covered', 'field:vis_ratio')]
        ['occlusion ratio r (covered)', 'vis_ratio']
    """
    field = field_of(report['definition'])
    return f'occlusion ratio r ({describe_evaluation(report)})' if field is None else (
        describe_evaluation(report).removeprefix(PREFIX))


def is_by_occlusion(report: Mapping) -> bool:
    """Return whether occlusion is known to increase with the bucketed value; False for ranges of a plain field.

    A plain field may measure visibility or something else; ``field:1-NAME`` and levels imply the order.

    Example:
        >>> rows = {'bbox': {'buckets': [{'name': '[0.5,1]'}]}}
        >>> [is_by_occlusion({'definition': name, **rows}) for name in ('covered', 'field:vis_ratio', 'field:1-vis_ratio')]
        [True, False, True]
    """
    definition, table = report['definition'], report[reported_iou_types(report)[0]]
    is_plain = field_of(definition) is not None and not definition.startswith(f'{PREFIX}1-')
    return not is_plain or not any(re.match(r'r>?=|[\[(].*[\])]$', bucket['name']) for bucket in table['buckets'])


def named_rows(report: Mapping, iou_type: str) -> Iterator[tuple[str, dict]]:
    """Yield the name and the row of all images, then of each bucket."""
    yield 'all', report[iou_type]['all']
    for bucket in report[iou_type]['buckets']:
        yield bucket['name'], bucket


def frequency_statistics(row: Mapping) -> list[str]:
    """Return which of LVIS's statistics APr, APc and APf a row has."""
    return [name for name in FREQUENCIES.values() if name in row]


def without_empty_buckets(report: Mapping) -> dict:
    """Return a report without empty buckets, except in evaluations where all buckets are empty."""
    shown = with_buckets(report, lambda bucket: bucket['instances'])
    return {**shown, 'further': list(map(without_empty_buckets, report['further']))} if 'further' in report else shown


def with_buckets(report: Mapping, condition: Callable[[Mapping], Any]) -> dict:
    """Return one evaluation's report with the buckets that meet a condition, or with all if none does."""
    tables = {iou_type: report[iou_type] for iou_type in reported_iou_types(report)}
    return {**report, **{iou_type: {**table, 'buckets': list(filter(condition, table['buckets'])) or table['buckets']}
                         for iou_type, table in tables.items()}}


def report_rows(report: Mapping) -> list[dict]:
    """Flatten a report to one table: a row for all images and one per bucket, for every evaluation and IoU type.

    All rows have the same columns: evaluation, counts, statistics, statistics over shared categories, ``<name>_ci_low`` and
    ``<name>_ci_high`` for each interval, and null bands; None where the report has no value.
    """
    counts = ('images', 'instances', 'categories')
    mix = (*(f'instances_{size}' for size in list(AREA_RANGES)[1:]), 'instances_per_image')
    shared = [statistic.shared_key for statistic in shared_statistics()]
    with_intervals = [name for name, statistic in STATISTICS.items() if statistic.bootstrapped or any(
        statistic.ci_key in report[iou_type]['all'] for iou_type in reported_iou_types(report))]
    rows = []
    for evaluation in all_evaluations(report):
        for iou_type in reported_iou_types(evaluation):
            for name, row in named_rows(evaluation, iou_type):
                row = {**row, 'name': name}
                flat = {'definition': evaluation['definition'], 'iou_type': iou_type}
                flat |= {key: row.get(key) for key in ('name', 'lower', 'upper', *counts, *STATISTICS, *frequency_statistics(row),
                                                       *mix, *shared)}
                for name in with_intervals:
                    flat |= _bounds(row, f'{name}_ci')
                for name in with_intervals:
                    for null in (f'{name}_', f'{name}_matched_'):
                        flat |= {f'{null}null': row.get(f'{null}null'), **_bounds(row, f'{null}null_ci'),
                                 f'{null}excess': row.get(f'{null}excess'), **_bounds(row, f'{null}excess_ci'),
                                 f'{null}excess_p': row.get(f'{null}excess_p')}
                    flat |= {f'{name}_balanced': row.get(f'{name}_balanced'), **_bounds(row, f'{name}_balanced_ci')}
                flat['matched_own'] = row.get('matched_own')
                rows.append({**flat, 'unit': evaluation.get('unit', 'image'),
                             'cumulative': int(evaluation.get('cumulative', False))})
    return rows


def _bounds(row: Mapping, key: str) -> dict:
    """Return the ends of an interval as two columns."""
    low, high = row.get(key) or (None, None)
    return {f'{key}_low': low, f'{key}_high': high}


def _report(evaluation: Evaluation, grouping: Grouping, everything: Grouping, whole: Mapping[str, dict[str, Tensor]],
            records: Mapping[str, Records], targets: Targets, proposal_nums: Sequence[int],
            category_names: Sequence[str] | None, frequencies: Sequence[str]) -> dict:
    """Compute the report of one evaluation."""
    groups = Grouping(*(torch.cat(parts, dim=-1) for parts in zip(everything, grouping, strict=True)))  # all images first
    instances = count_instances(targets, groups)
    present = instances[1:, :, 0] > 0
    filled = present.any(1)
    shared = present[filled].all(0) & filled.any()  # categories in every group with ground truth
    positives = targets.positives()
    images = [count_images(members, positives, column)
              for members, column in zip(groups.members.T, groups.columns.tolist(), strict=True)]
    counts_all, *counts = [_counts(*group) for group in zip(images, instances, strict=True)]
    report = {'definition': evaluation.name, 'unit': evaluation.unit, 'cumulative': evaluation.cumulative,
              'intervals': None, 'shared_categories': int(shared.sum())}
    if category_names is not None and len(category_names) > 1:
        report['per_category'] = {'names': list(category_names), 'groups': ['all', *(one.name for one in evaluation.buckets)],
                                  'instances': instances[:, :, 0].tolist()}
    for iou_type, table in records.items():
        accumulated = _accumulated(table, targets, grouping, proposal_nums)
        by_category = {name: torch.cat([whole[iou_type][name], accumulated[name]]) if name in accumulated
                       else _measured(table, targets, groups, statistic, proposal_nums)[:, None, None]
                       for name, statistic in STATISTICS.items()}
        statistics_all, *statistics = _average(by_category, shared, frequencies)
        if 'per_category' in report:
            report['per_category'][iou_type] = [[None if math.isnan(value) else value for value in row]
                                                for row in by_category['AP'].mean(1).tolist()]
        report[iou_type] = {
            'all': {**counts_all, **statistics_all},
            'buckets': [dict(name=bucket.name, lower=bucket.lower, upper=None if math.isinf(bucket.upper) else bucket.upper,
                             **count, **numbers)
                        for bucket, count, numbers in zip(evaluation.buckets, counts, statistics, strict=True)],
        }
    return report


def _counts(images: int, instances: Tensor) -> dict:
    """Count a group's images, and its instances by size, from the instances by category and area range."""
    total, *by_size = instances.sum(0).tolist()
    sizes = {f'instances_{size}': number for size, number in zip(list(AREA_RANGES)[1:], by_size, strict=True)}
    return dict(images=images, instances=total, categories=int((instances[:, 0] > 0).sum()), **sizes,
                instances_per_image=total / images if images else None)


def _accumulated(records: Records, targets: Targets, grouping: Grouping, proposal_nums: Sequence[int]) -> dict[str, Tensor]:
    """Compute AP and AR before averaging over thresholds and categories, each (B, thresholds, K)."""
    positives = targets.positives()
    kinds: dict[tuple[int, bool], list[Statistic]] = {}
    for statistic in STATISTICS.values():
        if not statistic.measure:
            kinds.setdefault((statistic.limit(proposal_nums), statistic.recall), []).append(statistic)
    found = {}
    for (limit, recall), of_kind in kinds.items():
        areas = sorted({statistic.area_index for statistic in of_kind})
        values = accumulate(records, positives, grouping, targets.num_categories, limit, recall, areas)
        found |= {statistic.name: values[:, areas.index(statistic.area_index), statistic.thresholds] for statistic in of_kind}
    return found


def _measured(records: Records, targets: Targets, grouping: Grouping, statistic: Statistic,
              proposal_nums: Sequence[int]) -> Tensor:
    """Compute a measure of each group, (B,); groups that share match bits differ only in their image weights."""
    values = torch.empty(len(grouping.columns), dtype=torch.float64, device=records.image.device)
    num_images, positives = len(grouping.members), targets.positives()
    for column in grouping.columns.unique().tolist():
        data = MeasureInput(records, positives, num_images, targets.num_categories, column, statistic.limit(proposal_nums))
        groups = (grouping.columns == column).nonzero()[:, 0]
        weights = grouping.members[:, groups].T.double()
        values[groups.to(values.device)] = compute_measure(data, statistic, torch.arange(num_images), weights)
    return values


def _average(values: Mapping[str, Tensor], shared: Tensor, frequencies: Sequence[str]) -> list[dict]:
    """Return each group's statistics over all categories, over shared categories, and over those of each frequency."""
    means = {name: _mean(value) for name, value in values.items()}
    for letter, name in FREQUENCIES.items() if frequencies else ():
        means[name] = _mean(values['AP'][:, :, [place for place, frequency in enumerate(frequencies) if frequency == letter]])
    means |= {statistic.shared_key: _mean(values[statistic.name][:, :, shared]) for statistic in shared_statistics()}
    return [dict(zip(means, row, strict=True)) for row in zip(*means.values(), strict=True)]


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a number, None as a dash."""
    return '-' if value is None else f'{value:.{digits}f}'


def format_percent(value: float | None, signed: bool = False) -> str:
    """Format a fraction in percent, as papers print AP; None as a dash.

    Example:
        >>> format_percent(0.2527), format_percent(-0.0141, signed=True)
        ('25.3', '-1.4')
    """
    return '-' if value is None else f'{round(100 * value, 1) + 0.:{"+" if signed else ""}.1f}'


def _mean(values: Tensor) -> list[float | None]:
    """Return the mean of each group, ignoring NaN; None if all values are NaN."""
    return [None if math.isnan(mean) else mean for mean in torch.nanmean(values.flatten(1), 1).tolist()]
