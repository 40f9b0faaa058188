"""A report as text: tables for terminals and logs, scalars for loggers, and runs that can be shown together."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from ..buckets import Evaluation
from ..protocol import IOU_TYPES, STATISTICS, bootstrapped_statistics
from ..summary import all_evaluations, describe_evaluation, named_rows, reported_iou_types

#: Counts of each row of a report.
COUNTS = ('images', 'instances', 'categories')
#: The statistics that may have an interval, as ``<name>_ci``.
INTERVAL_STATISTICS = ('AP', 'AP50', 'AP75')


def ascii_table(title: str, header: Sequence[str], rows: Sequence[Sequence], width: int = 120,
                rule_after_first: bool = False) -> str:
    """A table with its title; the first column to the left, the others to the right.

    Args:
        title: The line above it.
        header: A name for each column.
        rows: The cells of each row, written as `str` writes them.
        width: Characters of a line at most; cells that do not fit are folded.
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

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    table = Table(title=title, box=box.ASCII_DOUBLE_HEAD, title_justify='left', title_style='')
    for number, name in enumerate(header):
        table.add_column(name, justify='right' if number else 'left')
    for number, row in enumerate(rows):
        table.add_row(*map(str, row), end_section=rule_after_first and number == 0)
    console.print(table, markup=False)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines())


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
            header = ('r', *COUNTS, *STATISTICS, *['AP interval'] * with_interval, *['AP_shared'] * with_shared)
            rows = [(name, *(row[key] for key in COUNTS), *(format_number(row[key]) for key in STATISTICS),
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


def format_comparison(comparison: dict) -> str:
    """The comparison as plain text: a table for each evaluation, IoU type, run and statistic."""
    tables = []
    first, *others = comparison['runs']
    how = comparison['intervals']
    for entry in comparison['evaluations']:
        for iou_type in (name for name in IOU_TYPES if name in entry):
            for number, label in enumerate(others):
                for statistic in (one.name for one in bootstrapped_statistics()):
                    title = f'{iou_type} {statistic} by occlusion ratio ({describe_evaluation(entry)}): {label} - {first}'
                    header = ('r', 'images', first, label, 'difference', f'{how["level"] * 100:g} % interval', 'above 0')
                    rows = [(name, row['images'], *_cells(row[statistic], number)) for name, row in named_rows(entry, iou_type)]
                    tables.append(ascii_table(title, header, rows, rule_after_first=True))
    tables.append(f'{how["method"]}, {how["replicates"]} replicates, seed {how["seed"]}; above 0: share of the replicates')
    return '\n'.join(tables)


def _cells(row: dict, number: int) -> list[str]:
    difference = row['differences'][number]
    if difference['difference'] is None or difference['low'] is None:
        return ['-'] * 5
    values = [f'{value:.3f}' for value in (row['values'][0], row['values'][number + 1])]
    return [*values, f'{difference["difference"]:+.3f}', f'[{difference["low"]:+.3f}, {difference["high"]:+.3f}]',
            f'{difference["share_above_zero"]:.1%}']


#: CocoMetric's names of `STATISTICS`.
COCO_METRIC_NAMES = dict(zip(STATISTICS, ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'), strict=True))
#: What is reported of each bucket as scalars; the report has everything.
_BUCKET_SCALARS = ('AP', 'AP75')


def scalars(report: dict, iou_types: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """The report's numbers under CocoMetric's names, overall -1 where undefined, by bucket only where defined.

    Further evaluations have those of their buckets, each name after the evaluation's slug; a slug that was used before gets a
    number.
    """
    values, slugs = {}, []
    for part, evaluation in zip([report, *report['further']], evaluations, strict=True):
        slugs.append(evaluation.slug)
        times = slugs.count(evaluation.slug)
        prefix = '' if part is report else evaluation.slug + (f'_{times}_' if times > 1 else '_')
        for iou_type in iou_types:
            if part is report:
                for name, coco_name in COCO_METRIC_NAMES.items():
                    value = part[iou_type]['all'][name]
                    values[f'{iou_type}_{coco_name}'] = -1. if value is None else value
            for bucket, row in zip(evaluation.buckets, part[iou_type]['buckets'], strict=True):
                for name in _BUCKET_SCALARS:
                    if row[name] is not None:
                        values[f'{prefix}{iou_type}_{COCO_METRIC_NAMES[name]}_{bucket.key}'] = row[name]
    return values


class Run(NamedTuple):
    """A detector's evaluation.

    Args:
        name: How figures and tables call it.
        report: What `summary.summarize` returns.
    """

    name: str
    report: dict


def shared_evaluations(runs: Sequence[Run]) -> list[list[Run]]:
    """The evaluations that all runs have: the main one first, then the further ones; each with its report of every run.

    Raises:
        ValueError: No run, or main evaluations that cannot be compared.
    """
    if not runs:
        raise ValueError('at least one run is needed')
    check_comparable(runs)
    shared = [list(runs)]
    for evaluation in runs[0].report.get('further', []):
        others = [next((other for other in all_evaluations(run.report)[1:] if _outline(other) == _outline(evaluation)), None)
                  for run in runs]
        if None not in others:
            shared.append([Run(run.name, other) for run, other in zip(runs, others, strict=True)])
    return shared


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise a ValueError unless all runs were evaluated the same way on the same data."""
    first = runs[0]
    for run in runs[1:]:
        for what, of in (('ratio', describe_evaluation), ('IoU types', reported_iou_types), ('buckets', _bucket_names)):
            if of(first.report) != of(run.report):
                raise ValueError(f'runs that are shown together need the same {what}: {first.name} has '
                                 f'{of(first.report)}, {run.name} has {of(run.report)}')
        if _outline(first.report) != _outline(run.report):
            raise ValueError(f'runs that are shown together need the same images and instances: {first.name} has '
                             f'{_counts(first.report)}, {run.name} has {_counts(run.report)} (all, then each bucket)')


def _bucket_names(report: dict) -> list[str]:
    return [bucket['name'] for bucket in report[reported_iou_types(report)[0]]['buckets']]


def _counts(report: dict) -> list[tuple[int, int]]:
    table = report[reported_iou_types(report)[0]]
    return [(row['images'], row['instances']) for row in (table['all'], *table['buckets'])]


def _outline(report: dict) -> tuple:
    """Equal for reports that differ in the detector only."""
    return describe_evaluation(report), reported_iou_types(report), _bucket_names(report), _counts(report)


def bucket_phrase(name: str) -> str:
    """A bucket in a sentence.

    Example:
        >>> [bucket_phrase(name) for name in ('r=0', '[0.8,0.9)', 'r>=0.8')]
        ['r = 0', 'r in [0.8,0.9)', 'r ≥ 0.8']
    """
    if name.startswith('r'):
        return name.replace('>=', ' ≥ ').replace('r=', 'r = ')
    return f'r in {name}'
