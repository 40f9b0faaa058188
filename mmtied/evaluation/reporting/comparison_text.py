"""A comparison of runs for people and programs: tables, comparison.json and comparison.csv."""

import csv
import json
import os
from pathlib import Path

from ...atomic import atomic_path
from ..bootstrap import BOOTSTRAPPED
from ..protocol import IOU_TYPES
from .ascii_table import ascii_table
from .report import describe_evaluation, named_rows

_CSV_HEADER = ('definition', 'unit', 'cumulative', 'iou_type', 'name', 'lower', 'upper', 'images', 'statistic', 'baseline', 'run',
               'baseline_value', 'value', 'difference', 'low', 'high', 'share_above_zero')


def format_comparison(comparison: dict) -> str:
    """The comparison as plain text: a table for each evaluation, IoU type, run and statistic."""
    tables = []
    first, *others = comparison['runs']
    how = comparison['intervals']
    for entry in comparison['evaluations']:
        for iou_type in (name for name in IOU_TYPES if name in entry):
            for number, label in enumerate(others):
                for statistic in BOOTSTRAPPED:
                    title = f'{iou_type} {statistic} by occlusion ratio ({describe_evaluation(entry)}): {label} - {first}'
                    header = ('r', 'images', first, label, 'difference', f'{how["level"] * 100:g} % interval', 'above 0')
                    rows = [(name, row['images'], *_cells(row[statistic], number)) for name, row in named_rows(entry, iou_type)]
                    tables.append(ascii_table(title, header, rows, rule_after_first=True))
    tables.append(f'{how["method"]}, {how["replicates"]} replicates, seed {how["seed"]}; above 0: share of the replicates')
    return '\n'.join(tables)


def write_comparison(comparison: dict, folder: str | os.PathLike) -> list[Path]:
    """Write comparison.json and comparison.csv into a folder, each whole or not at all, and return their paths."""
    paths = [Path(folder) / 'comparison.json', Path(folder) / 'comparison.csv']
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(json.dumps(comparison, indent=2, allow_nan=False) + '\n')
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='') as file:
        writer = csv.DictWriter(file, _CSV_HEADER, extrasaction='ignore')
        writer.writeheader()
        first, *others = comparison['runs']
        for entry in comparison['evaluations']:
            for iou_type in (name for name in IOU_TYPES if name in entry):
                for row in ({'name': 'all', **entry[iou_type]['all']}, *entry[iou_type]['buckets']):
                    for statistic in BOOTSTRAPPED:
                        values, differences = row[statistic]['values'], row[statistic]['differences']
                        for label, value, difference in zip(others, values[1:], differences, strict=True):
                            writer.writerow({**entry, **row, **difference, 'iou_type': iou_type, 'statistic': statistic,
                                             'baseline': first, 'run': label, 'baseline_value': values[0], 'value': value})
    return paths


def _cells(row: dict, number: int) -> list[str]:
    difference = row['differences'][number]
    if difference['difference'] is None or difference['low'] is None:
        return ['-'] * 5
    values = [f'{value:.3f}' for value in (row['values'][0], row['values'][number + 1])]
    return [*values, f'{difference["difference"]:+.3f}', f'[{difference["low"]:+.3f}, {difference["high"]:+.3f}]',
            f'{difference["share_above_zero"]:.1%}']
