"""Write the report for people and programs: a table, report.json and buckets.csv; and read it back."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ...atomic import atomic_path
from ..inputs.coco_json import read_json
from ..protocol import IOU_TYPES, STATISTICS
from .ascii_table import ascii_table

_COUNTS = ('images', 'instances', 'categories')
#: The statistics that may have an interval, as ``<name>_ci``.
INTERVAL_STATISTICS = ('AP', 'AP50', 'AP75')
#: Columns that a row may have besides the counts and statistics.
_MIX = ('instances_small', 'instances_medium', 'instances_large', 'instances_per_image')
_SHARED = tuple(f'{name}_shared' for name in INTERVAL_STATISTICS)
_BOUNDS = tuple(f'{name}_ci_{bound}' for name in INTERVAL_STATISTICS for bound in ('low', 'high'))
_CSV_HEADER = ('definition', 'iou_type', 'name', 'lower', 'upper', *_COUNTS, *STATISTICS, *_MIX, *_SHARED, *_BOUNDS, 'unit',
               'cumulative')


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


def format_tables(report: dict) -> str:
    """The report as plain text, a table for each IoU type: all images, then each bucket.

    The interval of AP and the AP over shared categories stand at the end, where the report has them. Further evaluations
    follow.
    """
    tables = []
    for evaluation in all_evaluations(report):
        for iou_type in reported_iou_types(evaluation):
            title = f'{iou_type}: AP by occlusion ratio r ({describe_evaluation(evaluation)})'
            found = list(named_rows(evaluation, iou_type))
            with_interval, with_shared = (any(key in row for _, row in found) for key in ('AP_ci', 'AP_shared'))
            header = ('r', *_COUNTS, *STATISTICS, *['AP interval'] * with_interval, *['AP_shared'] * with_shared)
            rows = [(name, *(row[key] for key in _COUNTS), *(format_number(row[key]) for key in STATISTICS),
                     *[format_interval(row.get('AP_ci'))] * with_interval,
                     *[format_number(row.get('AP_shared'))] * with_shared) for name, row in found]
            tables.append(ascii_table(title, header, rows, width=160, rule_after_first=True))
    return '\n'.join(tables)


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with its digits, a dash where there is none."""
    return '-' if value is None else f'{value:.{digits}f}'


def format_interval(bounds: list[float] | None) -> str:
    """An interval, a dash where there is none.

    Example:
        >>> format_interval([0.41, 0.4567])
        '0.410..0.457'
    """
    return '-' if bounds is None else '..'.join(map(format_number, bounds))


def write_report(report: dict, folder: str | os.PathLike) -> list[Path]:
    """Write report.json and, before it, buckets.csv into a folder, each whole or not at all, and return their paths."""
    paths = [Path(folder) / 'report.json', Path(folder) / 'buckets.csv']
    text = json.dumps(report, indent=2, allow_nan=False) + '\n'
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        table = csv.DictWriter(file, _CSV_HEADER, extrasaction='ignore')
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
    return (all(isinstance(row, dict) and {*_COUNTS, *STATISTICS} <= set(row) for row in rows)
            and all({'name', 'lower', 'upper'} <= set(row) for row in table['buckets']))
