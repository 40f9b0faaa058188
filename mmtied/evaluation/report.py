"""Write the report for people and programs: a table, report.json and buckets.csv; and read it back."""

import csv
import io
import json
import os
from pathlib import Path

from ..atomic import atomic_path
from .coco_json import read_json
from .protocol import IOU_TYPES, STATISTICS

_COUNTS = ('images', 'instances', 'categories')
_CSV_HEADER = ('definition', 'iou_type', 'name', 'lower', 'upper', *_COUNTS, *STATISTICS)


def reported_iou_types(report: dict) -> list[str]:
    """The IoU types that a report holds."""
    return [iou_type for iou_type in IOU_TYPES if iou_type in report]


def format_tables(report: dict) -> str:
    """The report as plain text, a table for each IoU type: all images, then each bucket."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=120, color_system=None, force_terminal=False)
    for iou_type in reported_iou_types(report):
        table = Table(title=f'{iou_type}: AP by occlusion ratio r ({report["definition"]})', box=box.ASCII_DOUBLE_HEAD,
                      title_justify='left', title_style='')
        table.add_column('r')
        for name in (*_COUNTS, *STATISTICS):
            table.add_column(name, justify='right')
        rows = [('all images', report[iou_type]['all'])]
        rows += [(bucket['name'].removeprefix('r='), bucket) for bucket in report[iou_type]['buckets']]
        for name, row in rows:
            values = ['-' if row[key] is None else f'{row[key]:.3f}' for key in STATISTICS]
            table.add_row(name, *(str(row[key]) for key in _COUNTS), *values, end_section=name == 'all images')
        console.print(table, markup=False)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines())


def write_report(report: dict, folder: str | os.PathLike) -> list[Path]:
    """Write report.json and buckets.csv into a folder, each whole or not at all, and return their paths."""
    paths = [Path(folder) / 'report.json', Path(folder) / 'buckets.csv']
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + '\n')
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        rows = csv.DictWriter(file, _CSV_HEADER, extrasaction='ignore')
        rows.writeheader()
        for iou_type in reported_iou_types(report):
            common = dict(definition=report['definition'], iou_type=iou_type)
            rows.writerow({**common, 'name': 'all', **report[iou_type]['all']})
            rows.writerows({**common, **bucket} for bucket in report[iou_type]['buckets'])
    return paths


def read_report(path: str | os.PathLike) -> dict:
    """Read a report.json back.

    Raises:
        ValueError: The file is missing, truncated, or not such a report.
    """
    report = read_json(path)
    is_report = isinstance(report, dict) and 'definition' in report and reported_iou_types(report)
    if not is_report or any(set(report[name]) != {'all', 'buckets'} for name in reported_iou_types(report)):
        raise ValueError(f"{path}: not an occlusion report, which has 'definition' and 'all' and 'buckets' for bbox or segm")
    return report
