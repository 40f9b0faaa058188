"""The report as one self-contained HTML page."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...atomic import save_text
from ...compat import require
from ...plotting import svg_bytes
from ...version import __version__
from ..occlusion import OCCLUSION_RATIOS, STATED_RATIOS
from ..protocol import STATISTICS, lower_is_better, shared_statistics
from ..stated import field_of
from ..summary import (
    describe_evaluation,
    format_number,
    format_percent,
    frequency_statistics,
    is_by_occlusion,
    named_rows,
    reported_iou_types,
)
from .categories import FEWEST, MOST, HeatMap, heat_map
from .headlines import first_sentences, headlines, high_bucket, lead_statistic
from .plots import ap_range, plot_measure, plot_mix, plot_runs, plot_shared, write_plot
from .runs import COUNTS, Run, shared_evaluations
from .tables import bucket_phrase, format_excess, null_statistics, reported_statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .pictures import WorstImages

_MIX = {'categories': 'categories', 'instances_per_image': 'instances\nper image', 'instances_small': 'small',
        'instances_medium': 'medium', 'instances_large': 'large', 'AP': 'AP'}


class Table(NamedTuple):
    """A table of the page; headings may contain line breaks, and a cell has a number and its interval as text."""

    caption: str
    header: list[str]
    rows: list[tuple[str, list[tuple[str, str]]]]


def write_page(path: str | os.PathLike, runs: Sequence[Run], examples: 'WorstImages | None' = None,
               comparison: Mapping | None = None) -> Path:
    """Write the page atomically; return its path.

    Args:
        path: The HTML file.
        runs: Runs with the same evaluation of the same data.
        examples: Pictures from the first run.
        comparison: The result of `comparison.compare_runs` for the same runs.

    Raises:
        ValueError: The runs differ in evaluation or data.
    """
    return save_text(path, render_page(runs, examples, comparison))


def write_curves(path: str | os.PathLike, runs: Sequence[Run], format: str) -> list[Path]:
    """Write the main evaluation's curves beside the page at `path`, as ``<page>_<iou type>_<statistic>.<format>``."""
    path = Path(path)
    return [write_plot(plot_runs(runs, iou_type, name, limits), path.with_name(f'{path.stem}_{iou_type}_{name}.{format}'))
            for iou_type in reported_iou_types(runs[0].report) for name, limits in _limits(runs, iou_type).items()]


def render_page(runs: Sequence[Run], examples: 'WorstImages | None' = None, comparison: Mapping | None = None) -> str:
    """Return the page as text; see `write_page`."""
    require(['matplotlib', 'jinja2'], 'The report page')
    from jinja2 import Environment, PackageLoader, StrictUndefined

    evaluations = shared_evaluations(runs)
    main = runs[0].report
    iou_types = reported_iou_types(main)
    place = high_bucket(runs, iou_types[0])
    phrases = [bucket_phrase(bucket['name'], main['definition']) for bucket in main[iou_types[0]]['buckets']]
    environment = Environment(loader=PackageLoader(__package__, ''), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template('page.html.jinja').render(
        runs=runs, data=main.get('data'), everything=main[iou_types[0]]['all'], ratio=describe_ratio(main),
        headlines=headlines(runs, comparison), high=None if place is None else phrases[place],
        sentences=[first_sentences(run, iou_type, len(runs) > 1) for iou_type in iou_types for run in runs],
        counts=None if place is None else main[iou_types[0]]['buckets'][place],
        unit=main.get('unit', 'image'), by_occlusion=is_by_occlusion(main),
        statistics=[_describe_statistic(name) for name in reported_statistics(main, iou_types[0])],
        is_ours=main['definition'].partition(', ')[0] in OCCLUSION_RATIOS,
        sections=[_section(evaluation, number) for number, evaluation in enumerate(evaluations)], examples=examples,
        most_categories=MOST, fewest_instances=FEWEST,
        num_pictures=sum(len(bucket['images']) for bucket in examples.buckets) if examples else 0, version=__version__)


def describe_ratio(report: dict) -> str:
    """Describe the ratio r in one sentence."""
    name, _, restriction = report['definition'].partition(', ')
    unit = report.get('unit', 'image')
    ratio = OCCLUSION_RATIOS.get(name) or STATED_RATIOS.get(name)
    text = f'as defined by “{name}”' if ratio is None else ratio.own_phrase if unit == 'instance' else ratio.phrase
    if field_of(name) is not None:
        return f'The {unit}s are sorted by an annotated value: {name.partition(":")[2]}.'
    kind = f' Instances whose box is less than {restriction.rpartition(" ")[2]} pixels high are in no bucket.' if (
        'height' in restriction) else ''
    kind += ' Only instances of the same category occlude each other.' if 'same category' in restriction else ''
    return f'The occlusion ratio r of an {unit} ({name}) is {text}.{kind}'


def describe_intervals(runs: Sequence[Run]) -> str:
    """Describe how the intervals were computed, per run if that differs, or that there are none."""
    made = [_describe_bootstrap(run.report) for run in runs]
    if not any(run.report.get('intervals') for run in runs):
        return 'This report has no intervals.'
    how = made[0] if len(set(made)) == 1 else '; '.join(f'{run.name}: {text}' for run, text in zip(runs, made, strict=True))
    few = next(run.report['intervals'].get('min_images') for run in runs if run.report.get('intervals'))
    return (f'Colored bands and the small numbers below values: {how}.'
            + (f' Buckets of fewer than {few} images have none, since they would be unreliable.' if few else ''))


def _describe_bootstrap(report: dict) -> str:
    intervals = report.get('intervals')
    if not intervals:
        return 'no intervals'
    measured = '; '.join(f'{100 * low:.0f} to {100 * high:.0f} % {where}' for where, (low, high) in
                         intervals.get('coverage', {}).items())
    return (f'{100 * intervals["level"]:g} % intervals ({intervals["method"]}, {intervals["replicates"]} replicates, '
            f'seed {intervals["seed"]}{f"; measured coverage {measured}" if measured else ""})')


def _section(runs: Sequence[Run], number: int) -> dict:
    """Collect the template's values for one evaluation."""
    report, iou_types = runs[0].report, reported_iou_types(runs[0].report)
    nulls = [_null_table(runs, run, iou_type, name)
             for iou_type in iou_types for run in runs for name in null_statistics(run.report, iou_type)]
    controls = [_control_table(runs, run, iou_type) for iou_type in iou_types
                if any(key in report[iou_type]['all'] for key in ('AP_shared', 'instances_small')) for run in runs]
    return dict(title=describe_evaluation(report), anchor=f'evaluation-{number}', ratio=describe_ratio(report),
                unit=report.get('unit', 'image'), cumulative=report.get('cumulative'), intervals=describe_intervals(runs),
                null_bands=next((run.report['null_bands'] for run in runs if run.report.get('null_bands')), None), nulls=nulls,
                num_categories=max(len(run.report.get('per_category', {}).get('names', ())) for run in runs),
                by_occlusion=is_by_occlusion(report),
                of_seeds=any('seeds' in run.report for run in runs), curves=_curves(runs),
                results=[_results_table(runs, run, iou_type) for iou_type in iou_types for run in runs],
                details=_details(runs), categories=_categories(runs),
                comparison=[_comparison_table(runs, iou_type) for iou_type in iou_types] if len(runs) > 1 else [],
                control_figures=_control_figures(runs), controls=controls, shared=report.get('shared_categories'))


def _logged_statistics(runs: Sequence[Run], iou_type: str) -> list[str]:
    """Return the statistics to plot and compare: those logged by bucket and common to all runs."""
    return [name for name, statistic in STATISTICS.items()
            if statistic.logged_by_bucket and all(name in run.report[iou_type]['all'] for run in runs)]


def _describe_statistic(name: str) -> str:
    """Describe a statistic without repeating AP: ``AP50 at IoU 0.50``."""
    title = STATISTICS[name].title
    return f'{name} {title[3:]}' if title.startswith(('AP at ', 'AR at ')) else f'{name}: {title}'


def _limits(runs: Sequence[Run], iou_type: str) -> dict[str, tuple[float, float]]:
    """Return the logged statistics, all with one range of the vertical axis."""
    names = _logged_statistics(runs, iou_type)
    return dict.fromkeys(names, ap_range([run.report for run in runs], iou_type, names))


def _curves(runs: Sequence[Run]) -> list[dict]:
    """Plot over r, for each IoU type, the headline statistic if it is not AP, then AP and AP75 on one scale."""
    figures, reports = [], [run.report for run in runs]
    for iou_type in reported_iou_types(reports[0]):
        limits, lead = _limits(runs, iou_type), lead_statistic(reports[0], iou_type)
        if lead not in limits and all(lead in report[iou_type]['all'] for report in reports):
            limits = {lead: ap_range(reports, iou_type, [lead]), **limits}
        for name, ends in limits.items():
            better = ' Lower is better.' if lower_is_better(name) else ''
            caption = f'{iou_type} {_describe_statistic(name)}, over r.{better} Dashed: all images.'
            figures.append(_page_figure(plot_runs(runs, iou_type, name, ends), f'{iou_type} {name} over the occlusion ratio r',
                                        caption))
    return figures


def _control_figures(runs: Sequence[Run]) -> list[dict]:
    """Plot sizes and shared categories, if the reports contain them; old ones do not."""
    figures, report = [], runs[0].report
    iou_types = reported_iou_types(report)
    sizes = ('instances_small', 'instances_medium', 'instances_large')
    if all(row.get(key) is not None for row in report[iou_types[0]]['buckets'] for key in sizes):
        figures.append(_page_figure(plot_mix(report, iou_types[0]), 'Sizes of the instances of each bucket, and instances per '
                                    'image', 'Instances by area: small up to 32², medium up to 96², large from 96² pixels.'))
    for iou_type in iou_types:
        if all(any(row.get('AP_shared') is not None for row in run.report[iou_type]['buckets']) for run in runs):
            figures.append(_page_figure(plot_shared(runs, iou_type), f'{iou_type} AP over all and over the shared categories',
                                        f'{iou_type} AP over the categories of each bucket, and over those common to all '
                                        'buckets.'))
    return figures


def _page_figure(figure: 'Figure', alt: str, caption: str) -> dict[str, str]:
    """Return a figure as a data URI, with its texts."""
    uri = f'data:image/svg+xml;base64,{base64.b64encode(svg_bytes(figure)).decode()}'
    return dict(uri=uri, alt=f'{alt}; the numbers are in the table below.', caption=caption)


def _details(runs: Sequence[Run]) -> dict | None:
    """Collect titles, curves and tables of the detail statistics common to all runs; None if there are none."""
    main, titles, figures, tables = runs[0].report, [], [], []
    for iou_type in reported_iou_types(main):
        names = [name for name in reported_statistics(main, iou_type, detail=True)
                 if all(name in run.report[iou_type]['all'] for run in runs)]
        tables += [_results_table(runs, run, iou_type, detail=True) for run in runs if names]
        titles = titles or [_describe_statistic(name) for name in names]
        for name in names:
            known = any(bucket[name] is not None for run in runs for bucket in run.report[iou_type]['buckets'])
            if known and STATISTICS[name].measure and name != lead_statistic(main, iou_type):
                caption = f'{iou_type} {name}.{" Lower is better." if lower_is_better(name) else ""}'
                figures.append(_page_figure(plot_measure(runs, iou_type, name), f'{iou_type} {name} over the occlusion ratio r',
                                            caption))
    return dict(titles=titles, figures=figures, tables=tables) if tables else None


def _categories(runs: Sequence[Run]) -> list[tuple[str, HeatMap]]:
    """Return a label and the heat map of AP by category and bucket, for each run with one and each IoU type."""
    return [(f'{run.name}, {iou_type}', heat_map(run.report, iou_type)) for run in runs if 'per_category' in run.report
            for iou_type in reported_iou_types(run.report)]


def _table(runs: Sequence[Run], run: Run, iou_type: str, columns: Mapping[str, str], rows: Iterable[tuple[str, dict]]) -> Table:
    """Tabulate keys of rows under their titles; with several runs, the caption names the run."""
    return Table(f'{iou_type}, {run.name}' if len(runs) > 1 else iou_type, list(columns.values()),
                 [(name, [_cell(row, key) for key in columns]) for name, row in rows])


def _results_table(runs: Sequence[Run], run: Run, iou_type: str, detail: bool = False) -> Table:
    names = reported_statistics(run.report, iou_type, detail)
    names += [] if detail else frequency_statistics(run.report[iou_type]['all'])
    return _table(runs, run, iou_type, {name: name for name in ('images', 'instances', *names)}, named_rows(run.report, iou_type))


def _null_table(runs: Sequence[Run], run: Run, iou_type: str, name: str) -> Table:
    """Compare a statistic with that of random sets; the last column is the share of the bucket's own images in matched sets."""
    rows = [(row['name'], row) for row in run.report[iou_type]['buckets']]
    titles = {'images': 'images', 'instances': 'instances', name: name, f'{name}_null': 'random\nsets',
              f'{name}_excess': 'excess', f'{name}_matched_null': 'matched\nsets',
              f'{name}_matched_excess': 'matched\nexcess', f'{name}_balanced': f'{name}_balanced',
              'matched_own': 'own\nimages, %'}
    return _table(runs, run, iou_type, {key: title for key, title in titles.items() if any(key in row for _, row in rows)}, rows)


def _comparison_table(runs: Sequence[Run], iou_type: str) -> Table:
    """Show the statistics of all runs side by side."""
    statistics = _logged_statistics(runs, iou_type)
    names = [name for name, _ in named_rows(runs[0].report, iou_type)]
    columns = [[_cell(row, key) for _, row in named_rows(run.report, iou_type)] for key in statistics for run in runs]
    header = [f'{key}\n{" ".join(run.name.split())}' for key in statistics for run in runs]
    return Table(f'{iou_type}, all runs', header, list(zip(names, map(list, zip(*columns, strict=True)), strict=True)))


def _control_table(runs: Sequence[Run], run: Run, iou_type: str) -> Table:
    rows = [(name, {key: value for key, value in row.items() if not key.endswith('_ci')})
            for name, row in named_rows(run.report, iou_type)]
    titles = _MIX | {statistic.shared_key: f'{statistic.name}, shared\ncategories' for statistic in shared_statistics()}
    columns = {key: title for key, title in titles.items()
               if any(key in row and (key in _MIX or row[key] is not None) for _, row in rows)}
    return _table(runs, run, iou_type, columns, rows)


def _cell(row: dict, key: str) -> tuple[str, str]:
    """Format a number, and its interval or p-value as small print."""
    value = row.get(key)
    if value is None:
        return '-', ''
    if key in COUNTS or key.startswith('instances_'):
        return format_number(value, 1) if isinstance(value, float) else str(value), ''
    if key.endswith('_excess'):
        return format_excess(row, key), f'p {"<" if row[f"{key}_p"] < .01 else "="} {max(row[f"{key}_p"], .01):.2f}'
    bounds = row.get(f'{key}_ci')
    return format_percent(value), '–'.join(map(format_percent, bounds)) if bounds else ''
