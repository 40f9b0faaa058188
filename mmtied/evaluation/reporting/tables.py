"""Reports as text for terminals, logs and loggers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...tables import latex_table, text_table
from ..buckets import Evaluation
from ..comparison import compared_statistics
from ..protocol import STATISTICS, lower_is_better
from ..stated import PREFIX, field_of
from ..summary import (
    all_evaluations,
    describe_ratio_name,
    format_percent,
    frequency_statistics,
    named_rows,
    reported_iou_types,
)
from .runs import COUNTS


class PlainTable(NamedTuple):
    """A table of strings: the arguments of `mmtied.tables.text_table` and `latex_table`."""

    title: str
    header: list[str]
    rows: list[list[str]]


def format_interval(bounds: list[float] | None) -> str:
    """Format an interval of fractions in percent; None is a dash.

    Example:
        >>> format_interval([0.41, 0.4567])
        '41.0..45.7'
    """
    return '-' if bounds is None else '..'.join(map(format_percent, bounds))


def format_excess(row: Mapping, key: str) -> str:
    """Format the excess of a bucket over random sets in points, with a star if p is below 0.01; a dash if unknown.

    Example:
        >>> format_excess({'AP_excess': -0.0843, 'AP_excess_p': 0.008}, 'AP_excess')
        '-8.4*'
    """
    value = row.get(key)
    return '-' if value is None else format_percent(value, signed=True) + ('*' if row[f'{key}_p'] < .01 else '')


def report_tables(report: Mapping, brief: bool = False) -> Iterator[PlainTable]:
    """Yield a table of all images and each bucket, in percent, for each evaluation and IoU type.

    A second table lists the detail statistics. A missing value is a dash; a column without values is left out.

    `brief` limits the table to images, instances and the statistics with intervals or logged by bucket (AP, AP50 and AP75).
    """
    for evaluation in all_evaluations(report):
        for iou_type in reported_iou_types(evaluation):
            found = list(named_rows(evaluation, iou_type))

            def known(*keys: str, found: list = found) -> list[str]:
                return [key for key in keys if any(row.get(key) is not None for _, row in found)]

            statistics = reported_statistics(report, iou_type)
            if brief:
                statistics = [name for name in statistics if STATISTICS[name].bootstrapped or STATISTICS[name].logged_by_bucket]
                tables = {'AP': [*COUNTS[:2], *statistics]}
            else:
                tables = {'AP': [*COUNTS, *statistics, *frequency_statistics(found[0][1]), *known(*_OF_AP)], 'more': []}
                for name in reported_statistics(report, iou_type, detail=True):
                    tables['more'] += [name, *known(f'{name}_ci', f'{name}_excess', f'{name}_matched_excess')]
            for what, keys in tables.items():
                if keys:
                    header = [_OF_AP.get(key, key.replace('_ci', ' interval')) for key in keys]
                    yield PlainTable(f'{iou_type}: {what} in % by {describe_ratio_name(evaluation)}', ['r', *header],
                                     [[name, *(_cell(row, key) for key in keys)] for name, row in found])


#: Additional AP columns of a full table: title by key.
_OF_AP = {'AP_ci': 'AP interval', 'AP_null_ci': 'AP_null', 'AP_excess': 'AP_excess', 'AP_matched_excess': 'matched',
          'AP_balanced': 'AP_balanced', 'AP_shared': 'AP_shared'}
#: Explanation of the columns on random sets, by a part of their name.
_NOTES = {'_null': 'AP_null: interval over random sets of the same size',
          '_excess': 'excess: difference from the mean of random sets of the same size (*: p < 0.01)',
          'matched': 'matched: difference from the mean of random sets matched in instances, sizes and categories (*: p < 0.01)'}


def _cell(row: Mapping, key: str) -> str:
    value = row.get(key)
    if key in COUNTS:
        return str(value)
    if key.endswith('_excess'):
        return format_excess(row, key)
    return format_interval(value) if key.endswith('_ci') else format_percent(value)


def latex_tables(tables: Iterable[PlainTable], note: str = '') -> str:
    """Format tables as a LaTeX file to ``input``, each with its title and a note as caption."""
    return '\n\n'.join(['% Needs \\usepackage{booktabs} in the preamble.', *(
        latex_table(f'{title}. {note}'.strip(), header, rows) for title, header, rows in tables)]) + '\n'


def format_tables(report: Mapping, brief: bool = False) -> str:
    """Format a report as plain text, see `report_tables`, with lines that explain the columns on random sets."""
    tables = list(report_tables(report, brief))
    shown = {column for table in tables for column in table.header}
    notes = [note for column, note in _NOTES.items() if any(column in name for name in shown)]
    return '\n\n'.join([*(text_table(*table) for table in tables), *filter(None, ['\n'.join(notes)])])


def reported_statistics(report: Mapping, iou_type: str, detail: bool = False) -> list[str]:
    """Return the main statistics of a report, or its detail statistics, in the order of `protocol.STATISTICS`."""
    return [name for name, statistic in STATISTICS.items() if statistic.detail == detail and name in report[iou_type]['all']]


def null_statistics(report: Mapping, iou_type: str) -> list[str]:
    """Return the statistics with random sets to compare with; AP50 and AP75 are left out if AP has them."""
    buckets = report[iou_type]['buckets']
    names = [name for name in STATISTICS if any(row.get(f'{name}_null') is not None for row in buckets)]
    return [name for name in names if name not in ('AP50', 'AP75') or 'AP' not in names]


def comparison_tables(comparison: Mapping, statistics: Sequence[str] | None = None) -> Iterator[PlainTable]:
    """Yield a table of values and differences in percent for each evaluation, IoU type, run after the first, and statistic."""
    first, *others = comparison['runs']
    level = f'{comparison["intervals"]["level"] * 100:g} % interval'
    for entry in comparison['evaluations']:
        for iou_type in reported_iou_types(entry):
            for number, label in enumerate(others):
                for statistic in statistics or compared_statistics(comparison):
                    lower = ', lower is better,' if lower_is_better(statistic) else ''
                    title = f'{iou_type} {statistic} in %{lower} by {describe_ratio_name(entry)}: {label} - {first}'
                    rows = [[name, str(row['images']), *_difference_cells(row[statistic], number)]
                            for name, row in named_rows(entry, iou_type)]
                    yield PlainTable(title, ['r', 'images', first, label, 'difference', level, 'above 0', 'below 0'], rows)


def format_comparison(comparison: Mapping, statistics: Sequence[str] | None = None) -> str:
    """Format a comparison as plain text, see `comparison_tables`."""
    tables = [text_table(*table) for table in comparison_tables(comparison, statistics)]
    return '\n\n'.join([*tables, describe_paired_intervals(comparison)])


def comparison_latex(comparison: Mapping, statistics: Sequence[str] | None = None) -> str:
    """Format a comparison as a LaTeX file, see `comparison_tables`."""
    return latex_tables(comparison_tables(comparison, statistics), f'Intervals: {describe_paired_intervals(comparison)}.')


def describe_paired_intervals(comparison: Mapping) -> str:
    """Describe in one line how the intervals of the differences were computed."""
    how, seeds = comparison['intervals'], comparison.get('seeds', [1])
    if max(seeds) == 1:
        covers = 'one run per side, so the training seed is not covered'
    else:
        covers = ', '.join(f'{label}: {number} seed{"s" * (number > 1)}{" (not covered)" * (number == 1)}'
                           for label, number in zip(comparison['runs'], seeds, strict=True))
    return (f'{how["method"]}, {how["replicates"]} replicates, seed {how["seed"]}; {covers}; above 0, below 0: share of the '
            f'halves, ties as half; a dash: fewer than {how.get("min_images")} images')


def _difference_cells(row: Mapping, number: int) -> list[str]:
    difference = row['differences'][number]
    if difference['difference'] is None:
        return ['-'] * 6
    cells = [format_percent(row['values'][0]), format_percent(row['values'][number + 1]),
             format_percent(difference['difference'], signed=True)]
    if difference['low'] is None:
        return [*cells, *['-'] * 3]
    low, high = (format_percent(difference[key], signed=True) for key in ('low', 'high'))
    return [*cells, f'[{low}, {high}]', *(f'{difference[f"share_{side}_zero"]:.1%}' for side in ('above', 'below'))]


def scalars(report: dict, iou_types: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Return the values for loggers and `save_best`, under the names used by mmdet's CocoMetric.

    Undefined overall values are -1, as in CocoMetric; undefined bucket values are left out. Extra evaluations add the values of
    their buckets, prefixed by the evaluation's slug; a repeated slug gets a number.
    """
    values, slugs = {}, []
    for part, evaluation in zip(all_evaluations(report), evaluations, strict=True):
        slugs.append(evaluation.slug)
        times = slugs.count(evaluation.slug)
        prefix = '' if part is report else evaluation.slug + (f'_{times}_' if times > 1 else '_')
        for iou_type in iou_types:
            if part is report:
                overall = part[iou_type]['all']
                names = {name: statistic.scalar for name, statistic in STATISTICS.items()}
                for name in (*names, *frequency_statistics(overall)):
                    values[f'{iou_type}_{names.get(name, name)}'] = -1. if overall[name] is None else overall[name]
            for bucket, row in zip(evaluation.buckets, part[iou_type]['buckets'], strict=True):
                for name, statistic in STATISTICS.items():
                    if statistic.logged_by_bucket and row[name] is not None:
                        values[f'{prefix}{iou_type}_{statistic.scalar}_{bucket.key}'] = row[name]
    return values


def bucket_phrase(name: str, definition: str = '') -> str:
    """Name a bucket in a sentence; a stated field keeps its name.

    Example:
        >>> [bucket_phrase(name) for name in ('r=0', '[0.8,0.9)', 'r>=0.8')]
        ['r = 0', 'r in [0.8,0.9)', 'r ≥ 0.8']
        >>> bucket_phrase('[0.8,0.9)', 'field:vis_ratio')
        'vis_ratio in [0.8,0.9)'
    """
    what = 'r' if field_of(definition) is None else definition.removeprefix(PREFIX).partition(', ')[0]
    if name.startswith(('r=', 'r>=')):
        return what + name[1:].replace('>=', ' ≥ ').replace('=', ' = ')
    return f'{what} in {name}' if name.startswith(('(', '[')) else f'level {name}'
