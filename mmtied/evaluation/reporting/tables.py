"""Reports as text for terminals, logs and loggers; and the runs whose reports can be shown side by side."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from ..buckets import Evaluation
from ..protocol import STATISTICS
from ..summary import all_evaluations, describe_evaluation, format_number, named_rows, reported_iou_types

#: Counts that every row of a report has.
COUNTS = ('images', 'instances', 'categories')


def ascii_table(title: str, header: Sequence[str], rows: Sequence[Sequence], width: int = 120,
                rule_after_first: bool = False) -> str:
    """Format a table with its title; the first column is left-aligned, the others right-aligned.

    Args:
        title: The line above it.
        header: A name for each column.
        rows: The cells of each row, converted by `str`; they are text, never markup.
        width: Maximum length of a line; cells that do not fit are folded.
        rule_after_first: Draw a line below the first row, for a row of totals.

    Raises:
        ImportError: rich is not installed.

    Example:
        >>> print(ascii_table('found', ('r', 'images'), [('all', 7)]))
        found
        +-----+--------+
        | r   | images |
        +=====+========+
        | all |      7 |
        +-----+--------+
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    table = Table(title=Text(title), box=box.ASCII_DOUBLE_HEAD, title_justify='left', title_style='')
    for number, name in enumerate(header):
        table.add_column(Text(name), justify='right' if number else 'left')
    for number, row in enumerate(rows):
        table.add_row(*(Text(str(cell)) for cell in row), end_section=rule_after_first and number == 0)
    console.print(table)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines())


def format_interval(bounds: list[float] | None) -> str:
    """Format an interval; None is a dash.

    Example:
        >>> format_interval([0.41, 0.4567])
        '0.410..0.457'
    """
    return '-' if bounds is None else '..'.join(map(format_number, bounds))


def format_tables(report: dict) -> str:
    """Format a report as plain text: for each evaluation and IoU type a table of all images and each bucket.

    The interval of AP and AP over the shared categories come last, where the report has values. A statistic that the report
    lacks is a dash, or left out where no row has it.
    """
    tables = []
    for evaluation in all_evaluations(report):
        for iou_type in reported_iou_types(evaluation):
            found = list(named_rows(evaluation, iou_type))
            columns = {name: [row[name] for _, row in found] for name in COUNTS}
            for name in reported_statistics(report, iou_type):
                columns[name] = [format_number(row.get(name)) for _, row in found]
            if any('AP_ci' in row for _, row in found):
                columns['AP interval'] = [format_interval(row.get('AP_ci')) for _, row in found]
            if any(row.get('AP_shared') is not None for _, row in found):
                columns['AP_shared'] = [format_number(row.get('AP_shared')) for _, row in found]
            rows = [(name, *cells) for (name, _), *cells in zip(found, *columns.values(), strict=True)]
            tables.append(ascii_table(f'{iou_type}: AP by occlusion ratio r ({describe_evaluation(evaluation)})', ('r', *columns),
                                      rows, width=160, rule_after_first=True))
    return '\n'.join(tables)


def reported_statistics(report: dict, iou_type: str) -> list[str]:
    """Return the names of the statistics that a report has, in the order of `protocol.STATISTICS`."""
    return [name for name in STATISTICS if name in report[iou_type]['all']]


def format_comparison(comparison: dict) -> str:
    """Format a comparison as plain text: a table for each evaluation, IoU type, run and statistic."""
    tables = []
    first, *others = comparison['runs']
    how = comparison['intervals']
    for entry in comparison['evaluations']:
        for iou_type in reported_iou_types(entry):
            for number, label in enumerate(others):
                for statistic in (name for name, value in entry[iou_type]['all'].items() if isinstance(value, dict)):
                    title = f'{iou_type} {statistic} by occlusion ratio ({describe_evaluation(entry)}): {label} - {first}'
                    header = ('r', 'images', first, label, 'difference', f'{how["level"] * 100:g} % interval', 'above 0')
                    rows = [(name, row['images'], *_difference_cells(row[statistic], number))
                            for name, row in named_rows(entry, iou_type)]
                    tables.append(ascii_table(title, header, rows, rule_after_first=True))
    tables.append(f'{how["method"]}, {how["replicates"]} replicates, seed {how["seed"]}; above 0: share of the replicates')
    return '\n'.join(tables)


def _difference_cells(row: dict, number: int) -> list[str]:
    difference = row['differences'][number]
    if difference['difference'] is None or difference['low'] is None:
        return ['-'] * 5
    values = [f'{value:.3f}' for value in (row['values'][0], row['values'][number + 1])]
    return [*values, f'{difference["difference"]:+.3f}', f'[{difference["low"]:+.3f}, {difference["high"]:+.3f}]',
            f'{difference["share_above_zero"]:.1%}']


def scalars(report: dict, iou_types: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Return the numbers that loggers and `save_best` see, under the names that mmdet's CocoMetric gives them.

    Overall numbers are -1 where undefined, as in CocoMetric; those of buckets are left out. Extra evaluations give the numbers
    of their buckets, prefixed by the evaluation's slug; a repeated slug gets a number.
    """
    values, slugs = {}, []
    for part, evaluation in zip(all_evaluations(report), evaluations, strict=True):
        slugs.append(evaluation.slug)
        times = slugs.count(evaluation.slug)
        prefix = '' if part is report else evaluation.slug + (f'_{times}_' if times > 1 else '_')
        for iou_type in iou_types:
            if part is report:
                for name, statistic in STATISTICS.items():
                    value = part[iou_type]['all'][name]
                    values[f'{iou_type}_{statistic.scalar}'] = -1. if value is None else value
            for bucket, row in zip(evaluation.buckets, part[iou_type]['buckets'], strict=True):
                for name, statistic in STATISTICS.items():
                    if statistic.logged_by_bucket and row[name] is not None:
                        values[f'{prefix}{iou_type}_{statistic.scalar}_{bucket.key}'] = row[name]
    return values


class Run(NamedTuple):
    """A detector's report.

    Attributes:
        name: Its name in figures and tables.
        report: From `summary.summarize`.
    """

    name: str
    report: dict


def shared_evaluations(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the evaluations that all runs have, the main one first, each as the runs with that part of their reports.

    Raises:
        ValueError: There is no run, or the main evaluations cannot be shown side by side.
    """
    if not runs:
        raise ValueError('at least one run is needed')
    require_same_buckets(runs)
    shared = [list(runs)]
    for evaluation in runs[0].report.get('further', []):
        others = [next((other for other in run.report.get('further', []) if _outline(other) == _outline(evaluation)), None)
                  for run in runs]
        if None not in others:
            shared.append([Run(run.name, other) for run, other in zip(runs, others, strict=True)])
    return shared


def require_same_buckets(runs: Sequence[Run]) -> None:
    """Raise a ValueError unless all reports are about the same ratio, IoU types and buckets, with the same counts in them."""
    first, *others = runs
    for run in others:
        for name, expected in _outline(first.report).items():
            came = _outline(run.report)[name]
            if came != expected:
                raise ValueError(f'runs that are shown together need the same {name}: {first.name} has {expected}, {run.name} '
                                 f'has {came}')


def _outline(report: dict) -> dict:
    """Describe what is equal in reports that differ in the detector only."""
    iou_types = reported_iou_types(report)
    table = report[iou_types[0]]
    return {'ratio': describe_evaluation(report), 'IoU types': iou_types,
            'buckets': [bucket['name'] for bucket in table['buckets']],
            'images and instances': [(row['images'], row['instances']) for row in (table['all'], *table['buckets'])]}


def bucket_phrase(name: str) -> str:
    """Name a bucket in a sentence.

    Example:
        >>> [bucket_phrase(name) for name in ('r=0', '[0.8,0.9)', 'r>=0.8')]
        ['r = 0', 'r in [0.8,0.9)', 'r ≥ 0.8']
    """
    if name.startswith('r'):
        return name.replace('>=', ' ≥ ').replace('r=', 'r = ')
    return f'r in {name}'
