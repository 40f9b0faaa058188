"""Reports as text for terminals, logs and loggers; and the runs whose reports can be shown side by side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...tables import latex_table, text_table
from ..buckets import Evaluation
from ..comparison import compared_statistics
from ..protocol import STATISTICS, lower_is_better
from ..stated import PREFIX, field_of
from ..summary import (
    all_evaluations,
    describe_evaluation,
    describe_ratio_name,
    format_percent,
    frequency_statistics,
    named_rows,
    reported_iou_types,
)

#: Counts that every row of a report has.
COUNTS = ('images', 'instances', 'categories')


class PlainTable(NamedTuple):
    """A table as text: arguments of `tables.text_table` and `tables.latex_table`."""

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
    """Format what a bucket has more than random sets in points, with a star where p is below 0.01; a dash where nothing is known.

    Example:
        >>> format_excess({'AP_excess': -0.0843, 'AP_excess_p': 0.008}, 'AP_excess')
        '-8.4*'
    """
    value = row.get(key)
    return '-' if value is None else format_percent(value, signed=True) + ('*' if row[f'{key}_p'] < .01 else '')


def report_tables(report: Mapping, brief: bool = False) -> Iterator[PlainTable]:
    """Yield for each evaluation and IoU type a table of all images and each bucket, statistics in percent.

    A second table has the statistics that are details. A statistic that the report lacks is a dash, or left out where no row
    has it.

    `brief`: only images, instances and AP, AP50 and AP75 (those with intervals or logged by bucket).
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


#: Further columns on AP of a full table: title by key.
_OF_AP = {'AP_ci': 'AP interval', 'AP_null_ci': 'AP_null', 'AP_excess': 'AP_excess', 'AP_matched_excess': 'matched',
          'AP_balanced': 'AP_balanced', 'AP_shared': 'AP_shared'}


def _cell(row: Mapping, key: str) -> str:
    value = row.get(key)
    if key in COUNTS:
        return str(value)
    if key.endswith('_excess'):
        return format_excess(row, key)
    return format_interval(value) if key.endswith('_ci') else format_percent(value)


def latex_tables(tables: Iterable[PlainTable], note: str = '') -> str:
    """Format tables as a LaTeX file to be put in by ``input``, each with its title and a note as caption."""
    return '\n\n'.join(['% Needs \\usepackage{booktabs} in the preamble.', *(
        latex_table(f'{title}. {note}'.strip(), header, rows) for title, header, rows in tables)]) + '\n'


def format_tables(report: Mapping, brief: bool = False) -> str:
    """Format a report as plain text, see `report_tables`."""
    return '\n\n'.join(text_table(*table) for table in report_tables(report, brief))


def reported_statistics(report: Mapping, iou_type: str, detail: bool = False) -> list[str]:
    """Return the names of a report's statistics, in the order of `protocol.STATISTICS`: the main ones, or the details."""
    return [name for name, statistic in STATISTICS.items() if statistic.detail == detail and name in report[iou_type]['all']]


def null_statistics(report: Mapping, iou_type: str) -> list[str]:
    """Return the statistics to compare with random sets: those that have them, of AP, AP50 and AP75 the first."""
    buckets = report[iou_type]['buckets']
    names = [name for name in STATISTICS if any(row.get(f'{name}_null') is not None for row in buckets)]
    return [name for name in names if name not in ('AP50', 'AP75') or 'AP' not in names]


def comparison_tables(comparison: Mapping, statistics: Sequence[str] | None = None) -> Iterator[PlainTable]:
    """Yield for each evaluation, IoU type, run but the first, and statistic a table of values and differences in percent."""
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
    """Say in a line how the differences' intervals were made."""
    how, seeds = comparison['intervals'], comparison.get('seeds', [1])
    if max(seeds) == 1:
        covers = 'one run a side, so that the training seed is not covered'
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
                overall = part[iou_type]['all']
                names = {name: statistic.scalar for name, statistic in STATISTICS.items()}
                for name in (*names, *frequency_statistics(overall)):
                    values[f'{iou_type}_{names.get(name, name)}'] = -1. if overall[name] is None else overall[name]
            for bucket, row in zip(evaluation.buckets, part[iou_type]['buckets'], strict=True):
                for name, statistic in STATISTICS.items():
                    if statistic.logged_by_bucket and row[name] is not None:
                        values[f'{prefix}{iou_type}_{statistic.scalar}_{bucket.key}'] = row[name]
    return values


class Run(NamedTuple):
    """A detector's report, from `summary.summarize`, and its name in figures and tables."""

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


def bucket_phrase(name: str, definition: str = '') -> str:
    """Name a bucket in a sentence; a field is called by its name.

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
