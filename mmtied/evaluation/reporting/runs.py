"""Runs of detectors: read their reports, check that they can be shown together, and average them over seeds."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..comparison import compare_runs
from ..inputs.coco_json import read_json
from ..protocol import STATISTICS
from ..records import FILE_NAME, check_one_run, name_runs, read_records
from ..summary import all_evaluations, describe_evaluation, named_rows, reported_iou_types

#: Counts that every row of a report has.
COUNTS = ('images', 'instances', 'categories')
#: Keys of a report that describe a single run.
_OF_ONE_RUN = ('name', 'run', 'per_category', 'further')


class Run(NamedTuple):
    """A detector's report, from `summary.summarize`, and its name in figures and tables."""

    name: str
    report: dict


def read_report(path: str | os.PathLike) -> dict:
    """Read a report.json, including old ones without intervals, controls and extra evaluations.

    Raises:
        ValueError: The file is missing, truncated or not a report, or a file beside it belongs to another run.
    """
    path = Path(path)
    if not path.exists() and (path.parent / FILE_NAME).exists():
        raise ValueError(f'{path}: no such file, but {FILE_NAME} exists: the evaluation was stopped while writing; run it '
                         'again')
    report = read_json(path)
    if not _is_report(report):
        raise ValueError(f"{path}: not an occlusion report, expected 'definition', and 'all' and 'buckets' for bbox or segm")
    if path.name == 'report.json':
        check_one_run(path, report.get('run', ''))
    return report


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] | None = None) -> list[Run]:
    """Read the reports of several runs from report.json files, or from the folders that contain them.

    Without `names`, a run keeps its saved name, or takes that of its folder.

    Raises:
        ValueError: There is no path, a report cannot be read, or the number of names is wrong or they are not distinct.
    """
    if not paths:
        raise ValueError('no folder with a report.json is given')
    files = [Path(path) / 'report.json' if Path(path).is_dir() else Path(path) for path in paths]
    if names is not None and len(names) != len(files):
        raise ValueError(f'{len(files)} runs need {len(files)} names, got {len(names)}: {", ".join(names)}')
    reports = list(map(read_report, files))
    names = name_runs(files, [report.get('name', '') for report in reports]) if names is None else names
    if len(set(names)) != len(names):
        raise ValueError(f'the runs need distinct names, got {", ".join(names)}')
    return [Run(*run) for run in zip(names, reports, strict=True)]


def read_sides(sides: Sequence[Sequence[str | os.PathLike]], names: Sequence[str] | None = None) -> tuple[list[Run], dict | None]:
    """Read runs to show together, and compare them if all have match records.

    Args:
        sides: For each curve, a report.json or its folder; or several of one recipe with different seeds, to show their mean.
        names: A name for each side. Default: as for `read_runs`, or 'a', 'b' ... if a side has several runs.

    Returns:
        The runs, and their comparison with the first (see `comparison.compare_runs`). The comparison is None for one side, or if
        a records.npz is missing.

    Raises:
        ValueError: As for `read_runs`, or the runs cannot be compared.
    """
    if names is None and any(len(side) > 1 for side in sides):
        names = [chr(ord('a') + number) for number in range(len(sides))]
    firsts = read_runs([side[0] for side in sides], names)
    runs = [first if len(side) == 1 else Run(first.name, average_reports([run.report for run in read_runs(side)]))
            for first, side in zip(firsts, sides, strict=True)]
    folders = [[Path(path) if Path(path).is_dir() else Path(path).parent for path in side] for side in sides]
    if len(sides) < 2 or not all((folder / FILE_NAME).is_file() for side in folders for folder in side):
        return runs, None
    comparison = compare_runs([list(map(read_records, side)) for side in folders], [run.name for run in runs])
    for number, (side, run) in enumerate(zip(sides, runs, strict=True)):
        if len(side) > 1:
            add_seed_intervals(run.report, comparison, number)
    return runs, comparison


def shared_evaluations(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the evaluations common to all runs, the main one first; each lists the runs with that part of their reports.

    Raises:
        ValueError: There is no run, or the main evaluations cannot be shown side by side.
    """
    if not runs:
        raise ValueError('expected at least one run')
    require_same_buckets(runs)
    shared = [list(runs)]
    for evaluation in runs[0].report.get('further', []):
        others = [next((other for other in run.report.get('further', []) if _outline(other) == _outline(evaluation)), None)
                  for run in runs]
        if None not in others:
            shared.append([Run(run.name, other) for run, other in zip(runs, others, strict=True)])
    return shared


def require_same_buckets(runs: Sequence[Run]) -> None:
    """Raise a ValueError unless all reports have the same ratio, IoU types, buckets and counts."""
    first, *others = runs
    for run in others:
        for name, expected in _outline(first.report).items():
            got = _outline(run.report)[name]
            if got != expected:
                raise ValueError(f'runs shown together need the same {name}: {first.name} has {expected}, {run.name} has {got}')


def average_reports(reports: Sequence[Mapping]) -> dict:
    """Return the report of several seeds: means of the statistics and null bands, for the evaluations common to all runs.

    A value missing from some run is None. A p-value is the largest of the runs, or 1 if they lie on different sides of their null
    band. Intervals and values by category describe a single run and are left out.

    Raises:
        ValueError: The reports have no evaluation in common, or are of different images.
    """
    found = [{_identity(part): part for part in all_evaluations(report)} for report in reports]
    means = [_average([parts[key] for parts in found]) for key in found[0] if all(key in parts for parts in found)]
    if not means:
        raise ValueError('reports of different data or buckets have no mean: they have no evaluation in common')
    return {**means[0], **({'further': means[1:]} if means[1:] else {})}


def add_seed_intervals(report: dict, comparison: Mapping, number: int) -> None:
    """Add intervals over images and seeds to a mean over seeds, in place; `number` is its side in the comparison."""
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


def _is_report(report: Any) -> bool:
    """Return True for a value laid out as a report; AP is the only statistic in every report."""
    try:
        parts = [report, *report.get('further', ())]
        tables = [part[iou_type] for part in parts for iou_type in reported_iou_types(part)]
        return (all(isinstance(part['definition'], str) and reported_iou_types(part) for part in parts)
                and all({*COUNTS, 'AP'} <= row.keys() for table in tables for row in (table['all'], *table['buckets']))
                and all({'name', 'lower', 'upper'} <= bucket.keys() for table in tables for bucket in table['buckets']))
    except (AttributeError, KeyError, TypeError):
        return False


def _outline(report: dict) -> dict:
    """Describe what reports of different detectors on the same data have in common."""
    iou_types = reported_iou_types(report)
    table = report[iou_types[0]]
    return {'ratio': describe_evaluation(report), 'IoU types': iou_types,
            'buckets': [bucket['name'] for bucket in table['buckets']],
            'images and instances': [(row['images'], row['instances']) for row in (table['all'], *table['buckets'])]}


def _identity(part: Mapping) -> tuple:
    """Return a key that identifies the same evaluation in another run."""
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
                raise ValueError(f'reports of different data or buckets have no mean: {name} differs in its instances')
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
    """Return the mean of numbers, or of lists elementwise; None if one is missing, and the value itself if all are equal."""
    if all(value == values[0] for value in values):
        return values[0]
    if None in values:
        return None
    if isinstance(values[0], list):
        return [sum(column) / len(column) for column in zip(*values, strict=True)]
    return sum(values) / len(values)
