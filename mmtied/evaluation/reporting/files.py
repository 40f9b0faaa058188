"""What an evaluation writes into a folder, and reading its reports back."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic import atomic_path
from ..inputs.ground_truth import read_json
from ..protocol import IOU_TYPES, STATISTICS, bootstrapped_statistics
from ..records import write_records
from ..result import EvaluationResult
from .tables import COUNTS, INTERVAL_STATISTICS, Run, all_evaluations, reported_iou_types

if TYPE_CHECKING:
    from .pictures import WorstImages

#: Columns that a row may have besides the counts and statistics.
_MIX = ('instances_small', 'instances_medium', 'instances_large', 'instances_per_image')
_SHARED = tuple(f'{name}_shared' for name in INTERVAL_STATISTICS)
_BOUNDS = tuple(f'{name}_ci_{bound}' for name in INTERVAL_STATISTICS for bound in ('low', 'high'))
_BUCKETS_HEADER = ('definition', 'iou_type', 'name', 'lower', 'upper', *COUNTS, *STATISTICS, *_MIX, *_SHARED, *_BOUNDS, 'unit',
               'cumulative')
_COMPARISON_HEADER = ('definition', 'unit', 'cumulative', 'iou_type', 'name', 'lower', 'upper', 'images', 'statistic', 'baseline',
                      'run', 'baseline_value', 'value', 'difference', 'low', 'high', 'share_above_zero')


def write_outputs(evaluated: EvaluationResult, folder: str | os.PathLike, name: str,
                  examples: 'WorstImages | None' = None) -> Iterator[Path]:
    """Write records.npz, ap_over_r_<iou type>.png, report.html, buckets.csv and report.json, each whole or not at all.

    report.json comes last: where writing fails, there is no new one beside old files.

    Args:
        evaluated: The run.
        folder: Where to write.
        name: How the page calls the run.
        examples: Images where it did worst, for the page.

    Yields:
        Each path when it is written.
    """
    from .page import write_page
    from .plots import write_plots

    yield write_records(evaluated.saved_run(), folder)
    yield from write_plots(evaluated.report, folder).values()
    yield write_page(Path(folder) / 'report.html', [Run(name, evaluated.report)], examples)
    yield from write_report(evaluated.report, folder)


def write_report(report: dict, folder: str | os.PathLike) -> list[Path]:
    """Write report.json and, before it, buckets.csv into a folder, each whole or not at all, and return their paths."""
    paths = [Path(folder) / 'report.json', Path(folder) / 'buckets.csv']
    text = json.dumps(report, indent=2, allow_nan=False) + '\n'
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        table = csv.DictWriter(file, _BUCKETS_HEADER, extrasaction='ignore')
        table.writeheader()
        for evaluation in all_evaluations(report):
            common = dict(definition=evaluation['definition'], unit=evaluation.get('unit', 'image'),
                          cumulative=int(evaluation.get('cumulative', False)))
            for iou_type in reported_iou_types(evaluation):
                table.writerow({**common, 'iou_type': iou_type, 'name': 'all', **_flat(evaluation[iou_type]['all'])})
                table.writerows({**common, 'iou_type': iou_type, **_flat(row)} for row in evaluation[iou_type]['buckets'])
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(text)
    return paths


def read_report(path: str | os.PathLike) -> dict:
    """Read a report.json back; also one written before intervals, controls and further evaluations existed.

    Raises:
        ValueError: The file is missing, truncated, or not such a report.
    """
    report = read_json(path)
    if not _is_report(report) or not all(map(_is_report, report.get('further', []))):
        raise ValueError(f"{path}: not an occlusion report, which has 'definition' and 'all' and 'buckets' for bbox or segm")
    return report


def write_comparison(comparison: dict, folder: str | os.PathLike) -> list[Path]:
    """Write comparison.json and comparison.csv into a folder, each whole or not at all, and return their paths."""
    paths = [Path(folder) / 'comparison.json', Path(folder) / 'comparison.csv']
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(json.dumps(comparison, indent=2, allow_nan=False) + '\n')
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, _COMPARISON_HEADER, extrasaction='ignore')
        writer.writeheader()
        first, *others = comparison['runs']
        for entry in comparison['evaluations']:
            for iou_type in (name for name in IOU_TYPES if name in entry):
                for row in ({'name': 'all', **entry[iou_type]['all']}, *entry[iou_type]['buckets']):
                    for statistic in (one.name for one in bootstrapped_statistics()):
                        values, differences = row[statistic]['values'], row[statistic]['differences']
                        for label, value, difference in zip(others, values[1:], differences, strict=True):
                            writer.writerow({**entry, **row, **difference, 'iou_type': iou_type, 'statistic': statistic,
                                             'baseline': first, 'run': label, 'baseline_value': values[0], 'value': value})
    return paths


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] | None = None) -> list[Run]:
    """The runs in some folders that hold a report.json, or in such files.

    Args:
        paths: Folders or files.
        names: One for each, `name_runs` by default.

    Raises:
        ValueError: No path, an unreadable report, names that are not one for each path or not distinct.
    """
    if not paths:
        raise ValueError('no folder with a report.json is given')
    files = [Path(path) / 'report.json' if Path(path).is_dir() else Path(path) for path in paths]
    names = name_runs(files) if names is None else list(names)
    if len(names) != len(files):
        raise ValueError(f'{len(files)} runs need {len(files)} names, got {len(names)}: {", ".join(names)}')
    if len(set(names)) != len(names):
        raise ValueError(f'the runs need distinct names, got {", ".join(names)}')
    return [Run(name, read_report(file)) for name, file in zip(names, files, strict=True)]


def name_runs(files: Sequence[Path]) -> list[str]:
    """A short name for each report.json, from the folders that tell them apart.

    The folder ``occlusion``, which `OcclusionEvalHook` writes into, tells nothing.

    Example:
        >>> name_runs([Path('/runs/r50/occlusion/report.json'), Path('/runs/tied/occlusion/report.json')])
        ['r50', 'tied']
    """
    folders = [file.resolve().parent for file in files]
    if len(folders) == 1 and folders[0].name == 'occlusion':
        folders = [folders[0].parent]
    return distinct_ends([folder.parts for folder in folders])


def distinct_ends(paths: Sequence[Sequence[str]]) -> list[str]:
    """The shortest ends of some paths that tell them apart, without what all of them end with; equal paths stay equal.

    Example:
        >>> distinct_ends([('w', 'r50', 'occlusion'), ('w', 'tied', 'occlusion')])
        ['r50', 'tied']
    """
    while len(paths) > 1 and all(len(path) > 1 for path in paths) and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    for length in range(1, max(map(len, paths)) + 1):
        ends = ['/'.join(path[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            break
    return ends


def _flat(row: dict) -> dict:
    """A row with each interval as two columns."""
    intervals = {name: row.get(f'{name}_ci') or (None, None) for name in INTERVAL_STATISTICS}
    return {**row, **{f'{name}_ci_{bound}': value for name, bounds in intervals.items()
                      for bound, value in zip(('low', 'high'), bounds, strict=True)}}


def _is_report(report: object) -> bool:
    """Whether this has the layout of a report."""
    if not isinstance(report, dict) or not isinstance(report.get('definition'), str) or not reported_iou_types(report):
        return False
    tables = [report[iou_type] for iou_type in reported_iou_types(report)]
    return isinstance(report.get('further', []), list) and all(map(_is_table, tables))


def _is_table(table: object) -> bool:
    """Whether this holds a row for all images and one for each bucket."""
    if not isinstance(table, dict) or set(table) != {'all', 'buckets'} or not isinstance(table['buckets'], list):
        return False
    rows = [table['all'], *table['buckets']]
    return (all(isinstance(row, dict) and {*COUNTS, *STATISTICS} <= set(row) for row in rows)
            and all({'name', 'lower', 'upper'} <= set(row) for row in table['buckets']))
