"""The report of a training recipe: means over runs that differ in their seed."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocol import STATISTICS
from ..summary import all_evaluations, named_rows, reported_iou_types

#: Keys that concern a single run.
_OF_ONE_RUN = ('name', 'run', 'per_category', 'further')


def average_reports(reports: Sequence[Mapping]) -> dict:
    """Return the report of several seeds: means of the statistics and null bands, over the evaluations that all runs have.

    A value that some runs do not have is None. Of p-values it has the largest, or 1 where the runs lie on different sides of
    their null band. Intervals and numbers by category, which concern a single run, are left out.

    Raises:
        ValueError: The reports are not of the same evaluation of the same images.
    """
    found = [{_identity(part): part for part in all_evaluations(report)} for report in reports]
    means = [_average([parts[key] for parts in found]) for key in found[0] if all(key in parts for parts in found)]
    if not means:
        raise ValueError('reports of different data or buckets have no mean: they have no evaluation in common')
    return {**means[0], **({'further': means[1:]} if means[1:] else {})}


def add_seed_intervals(report: dict, comparison: Mapping, number: int) -> None:
    """Give a mean over seeds, which is side `number` of a comparison, its intervals over images and seeds; in place."""
    method = f'random halves and quarters of the images and {comparison["seeds"][number]} seeds, Student t'
    made = {key: value for key, value in comparison['intervals'].items() if key != 'coverage'} | {'method': method}
    compared = {_identity(entry): entry for entry in comparison['evaluations']}
    for part in all_evaluations(report):
        entry = compared.get(_identity(part))
        for iou_type in reported_iou_types(entry) if entry else ():
            part['intervals'] = made
            rows = [entry[iou_type]['all'], *entry[iou_type]['buckets']]
            for (_, row), values in zip(named_rows(part, iou_type), rows, strict=True):
                for statistic in STATISTICS.keys() & values.keys():
                    ends = values[statistic]['value_intervals'][number]
                    row[f'{statistic}_ci'] = ends
                    for kind in ('', 'matched_'):
                        null = row.get(f'{statistic}_{kind}null')
                        if null is not None and ends is not None:
                            row[f'{statistic}_{kind}excess_ci'] = [end - null for end in ends]


def _identity(part: Mapping) -> tuple:
    """Return what an evaluation has in common with the same one of another run."""
    names = tuple(row['name'] for row in part[reported_iou_types(part)[0]]['buckets'])
    return part['definition'], part.get('unit', 'image'), bool(part.get('cumulative')), names


def _average(parts: Sequence[Mapping]) -> dict:
    """Return the mean of one evaluation of several runs."""
    mean = {key: copy.deepcopy(value) for key, value in parts[0].items() if key not in _OF_ONE_RUN}
    mean |= {'intervals': None, 'seeds': len(parts)}
    if not all(part.get('null_bands') for part in parts):
        mean.pop('null_bands', None)
    for iou_type in reported_iou_types(mean):
        if not all(iou_type in part for part in parts):
            del mean[iou_type]
            continue
        for (name, row), *others in zip(*(named_rows(part, iou_type) for part in (mean, *parts)), strict=True):
            if any(row['instances'] != same['instances'] for _, same in others):
                raise ValueError(f'reports of different data or buckets have no mean: {name} has other instances in some')
            rows = [same for _, same in others]
            for key in list(row):
                of_null = key.endswith(('_null', '_null_ci', '_excess', '_excess_p', 'matched_own'))
                values = [same.get(key) for same in rows]
                if ('null_bands' not in mean) if of_null else key.endswith('_ci'):
                    del row[key]
                elif key.endswith('_excess_p'):
                    excesses = [same.get(key.removesuffix('_p')) for same in rows]
                    row[key] = None if None in values else 1. if min(excesses) < 0 < max(excesses) else max(values)
                else:
                    row[key] = _mean(values)
    return mean


def _mean(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, or of lists of them, place by place; None where one is missing, and what all have in common."""
    if all(value == values[0] for value in values):
        return values[0]
    if None in values:
        return None
    if isinstance(values[0], list):
        return [sum(column) / len(column) for column in zip(*values, strict=True)]
    return sum(values) / len(values)
