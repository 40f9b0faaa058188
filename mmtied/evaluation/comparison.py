"""Compare runs on one data set: differences of AP by occlusion, with paired bootstrap intervals."""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from .buckets import Grouping, whole_set
from .intervals import Bootstrap, percentile_interval, replicates
from .protocol import IOU_TYPES, bootstrapped_statistics, check_iou_types
from .records import SavedGroups, SavedRun
from .summary import count_images, describe_evaluation, reported_iou_types

METHOD = 'paired percentile bootstrap over images'


def compare_runs(runs: Sequence[SavedRun], labels: Sequence[str], bootstrap: Bootstrap | None = None,
                 iou_types: Sequence[str] | None = None) -> dict:
    """Compare each run with the first, for all images and every bucket of the evaluations that all have.

    Args:
        runs: Two or more.
        labels: A name for each, all different.
        bootstrap: How to resample.
        iou_types: IoU types to compare, by default those that all runs have.

    Returns:
        ``{'runs', 'intervals', 'evaluations': [{'definition', 'unit', 'cumulative', '<iou type>': {'all': {...}, 'buckets':
        [{'name', 'lower', 'upper', ...}]}}]}``, ``...`` being images and, for each bootstrapped statistic (AP, AP50, AP75),
        ``values`` of all runs and ``differences`` of every run but the first: difference, low, high, share_above_zero; None
        where there is no ground truth.

    Raises:
        ValueError: Fewer than two runs, or runs that cannot be compared.

    Warns:
        UserWarning: An IoU type is left out, as only some of the runs have it.
    """
    bootstrap = bootstrap or Bootstrap()
    if len(set(labels)) != len(runs):
        raise ValueError(f'{len(runs)} runs need as many different names, got {", ".join(labels)}')
    chosen, iou_types = iou_types, check_comparable(runs, iou_types, labels)
    for iou_type in IOU_TYPES if chosen is None else ():
        having = [label for label, run in zip(labels, runs, strict=True) if iou_type in run.records]
        if having and iou_type not in iou_types:
            warnings.warn(f'{iou_type} is not compared, as only {", ".join(having)} has it', stacklevel=3)
    groups = [part for part in runs[0].evaluations if all(_find(run, part) is not None for run in runs)]
    evaluations = [{key: value for key, value in part.description.items() if key != 'buckets'} for part in groups]
    for iou_type in iou_types:
        everything = _rows(runs, iou_type, [whole_set(len(runs[0].image_ids))] * len(runs), bootstrap)
        for entry, part in zip(evaluations, groups, strict=True):
            rows = _rows(runs, iou_type, [_find(run, part).grouping for run in runs], bootstrap)
            buckets = [{**bucket, **row} for bucket, row in zip(part.description['buckets'], rows, strict=True)]
            entry[iou_type] = {'all': everything[0], 'buckets': buckets}
    return {'runs': list(labels), 'intervals': bootstrap.describe(METHOD), 'evaluations': evaluations}


def comparison_rows(comparison: Mapping) -> Iterator[dict]:
    """Yield a comparison as one flat table: a row for each set of images, statistic and run but the first."""
    baseline, *others = comparison['runs']
    for evaluation in comparison['evaluations']:
        common = {key: evaluation[key] for key in ('definition', 'unit', 'cumulative')}
        for iou_type in reported_iou_types(evaluation):
            table = evaluation[iou_type]
            for row in ({'name': 'all', 'lower': None, 'upper': None, **table['all']}, *table['buckets']):
                place = {key: row[key] for key in ('name', 'lower', 'upper', 'images')}
                for statistic in (name for name, value in row.items() if isinstance(value, dict)):
                    first, *values = row[statistic]['values']
                    for run, value, difference in zip(others, values, row[statistic]['differences'], strict=True):
                        yield {**common, 'iou_type': iou_type, **place, 'statistic': statistic, 'baseline': baseline,
                               'run': run, 'baseline_value': first, 'value': value, **difference}


def without_empty_differences(comparison: Mapping) -> dict:
    """Return a comparison without the buckets where no run has a value, in every evaluation that has others."""
    evaluations = []
    for entry in comparison['evaluations']:
        shown = dict(entry)
        for iou_type in reported_iou_types(entry):
            buckets = entry[iou_type]['buckets']
            kept = [bucket for bucket in buckets if any(value is not None for row in bucket.values() if isinstance(row, dict)
                                                        for value in row['values'])]
            shown[iou_type] = {**entry[iou_type], 'buckets': kept or buckets}
        evaluations.append(shown)
    return {**comparison, 'evaluations': evaluations}


def compared_statistics(comparison: Mapping) -> list[str]:
    """Return the names of the statistics that were compared."""
    entry = comparison['evaluations'][0]
    return [name for name, value in entry[reported_iou_types(entry)[0]]['all'].items() if isinstance(value, dict)]


def check_comparable(runs: Sequence[SavedRun], iou_types: Sequence[str] | None = None,
                     labels: Sequence[str] | None = None) -> list[str]:
    """Return the IoU types to compare, in the usual order.

    Raises:
        ValueError: Fewer than two runs, other annotations, masks, categories or limits, no common buckets or IoU type, or
            buckets that hold other images or instances.
    """
    if len(runs) < 2:
        raise ValueError(f'two runs or more are needed to compare, got {len(runs)}')
    iou_types = None if iou_types is None else check_iou_types(iou_types)
    labels = labels or [run.source for run in runs]
    first = runs[0]
    for run in runs[1:]:
        pair = f'{first.source} and {run.source} cannot be compared'
        if len(first.image_ids) != len(run.image_ids) or (first.image_ids != run.image_ids).any():
            raise ValueError(f'{pair}: they were evaluated on different images ({len(first.image_ids)} and {len(run.image_ids)})')
        if first.category_names != run.category_names:
            raise ValueError(f'{pair}: they were evaluated on different categories '
                             f'({len(first.category_names)} and {len(run.category_names)})')
        if first.fingerprint != run.fingerprint:
            raise ValueError(f'{pair}: the image ids are the same, their sizes or annotations are not')
        if first.mask_fingerprint and run.mask_fingerprint and first.mask_fingerprint != run.mask_fingerprint:
            raise ValueError(f'{pair}: the boxes of the annotations are the same, their masks are not')
        if first.proposal_nums != run.proposal_nums:
            raise ValueError(f'{pair}: proposal_nums is {first.proposal_nums} in one and {run.proposal_nums} in the other')
        for part in first.evaluations:
            if _find(run, part) is not None and not _same_members(first, part, run, _find(run, part)):
                raise ValueError(f'{pair}: they have the same buckets of {describe_evaluation(part.description)} '
                                 'with different members')
    if not any(all(_find(run, part) is not None for run in runs) for part in first.evaluations):
        found = '; '.join(f'{label} has {" and ".join(map(_describe_buckets, run.evaluations))}'
                          for label, run in zip(labels, runs, strict=True))
        raise ValueError(f'the runs have no buckets in common: {found}')
    for label, run in zip(labels, runs, strict=True):
        missing = [name for name in iou_types or () if name not in run.records]
        if missing:
            raise ValueError(f'{label} has no {missing[0]}; it has {", ".join(run.records)}')
    common = [name for name in IOU_TYPES if all(name in run.records for run in runs) and name in (iou_types or IOU_TYPES)]
    if not common:
        raise ValueError('the runs have no IoU type in common: ' + '; '.join(', '.join(run.records) for run in runs))
    return common


def _describe_buckets(groups: SavedGroups) -> str:
    ends = [bucket[end] for bucket in groups.description['buckets'] for end in ('lower', 'upper')]
    edges = ' '.join(f'{edge:g}' for edge in sorted({end for end in ends if end is not None}))
    return f'{describe_evaluation(groups.description)} (edges {edges})'


def _find(run: SavedRun, groups: SavedGroups) -> SavedGroups | None:
    """Return the evaluation of a run with the same buckets."""
    return next((part for part in run.evaluations if part.description == groups.description), None)


def _same_members(run: SavedRun, groups: SavedGroups, other: SavedRun, others: SavedGroups) -> bool:
    """Return whether two runs' groups hold the same images and count the same ground truths."""
    mine, theirs = ((*one.positives[:2], one.positives.counted[:, part.columns], part.members)
                    for one, part in ((run, groups), (other, others)))
    return all(torch.equal(left, right) for left, right in zip(mine, theirs, strict=True))


def _rows(runs: Sequence[SavedRun], iou_type: str, groups: Sequence[Grouping], bootstrap: Bootstrap) -> list[dict]:
    """Return for each group its images, and values and differences by statistic; every run reads columns of its own."""
    values = torch.stack([
        replicates(run.records[iou_type], run.positives, own, len(run.category_names), bootstrap, run.proposal_nums)
        for run, own in zip(runs, groups, strict=True)])
    rows = []
    for number, (members, column) in enumerate(zip(groups[0].members.T, groups[0].columns.tolist(), strict=True)):
        row = {'images': count_images(members, runs[0].positives, column)}
        for place, statistic in enumerate(bootstrapped_statistics()):
            first, *others = values[:, :, number, place]
            differences = [_difference(other - first, bootstrap.level) for other in others]
            row[statistic.name] = {'values': [_plain(run[0]) for run in (first, *others)], 'differences': differences}
        rows.append(row)
    return rows


def _difference(values: Tensor, level: float) -> dict:
    """Describe one difference from its value in the data (first) and in every replicate."""
    defined = values[1:][~values[1:].isnan()]
    low, high = percentile_interval(defined, level) or (None, None)
    share = (defined > 0).double().mean().item() if len(defined) else None
    return dict(difference=_plain(values[0]), low=low, high=high, share_above_zero=share)


def _plain(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else value.item()
