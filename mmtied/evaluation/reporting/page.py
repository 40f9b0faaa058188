"""The report that people read: one HTML page with everything in it."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...atomic import atomic_path
from ...compat import require
from ...version import __version__
from .plots import ap_range, has_mix, has_shared, plot_mix, plot_runs, plot_shared
from .tables import (
    INTERVAL_STATISTICS,
    Run,
    bucket_phrase,
    describe_evaluation,
    format_interval,
    format_number,
    named_rows,
    reported_iou_types,
    shared_evaluations,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .pictures import WorstImages

_COLUMNS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')
#: Columns of the second table, with their headings; those that the report lacks are left out.
_CONTROLS = {'categories': 'categories', 'instances_per_image': 'instances per image', 'instances_small': 'small',
             'instances_medium': 'medium', 'instances_large': 'large', 'AP': 'AP', 'AP_shared': 'AP, shared categories',
             'AP50_shared': 'AP50, shared', 'AP75_shared': 'AP75, shared'}


class PageFigure(NamedTuple):
    """A figure of the page: an image as a data URI, and its text."""

    uri: str
    alt: str
    caption: str


class Table(NamedTuple):
    """A table of the page; each cell is a number and its interval, both as text."""

    caption: str
    header: list[str]  # each may have two lines
    rows: list[tuple[str, list[tuple[str, str]]]]


def write_page(path: str | os.PathLike, runs: Sequence[Run], examples: 'WorstImages | None' = None) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        runs: One run, or several that were evaluated the same way on the same data.
        examples: Images where the first run did worst, see `examples.worst_examples`.

    Returns:
        The path.

    Raises:
        ValueError: No run, or runs that cannot be shown together.
        ImportError: matplotlib or jinja2 is not installed.
    """
    page = render_page(runs, examples)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding='utf-8')
    return Path(path)


def render_page(runs: Sequence[Run], examples: 'WorstImages | None' = None) -> str:
    """The page as text; see `write_page`."""
    for package in ('matplotlib', 'jinja2'):
        require(package, 'The report page')
    from jinja2 import Environment, PackageLoader, StrictUndefined

    evaluations = shared_evaluations(runs)
    main = runs[0].report
    iou_types = reported_iou_types(main)
    place = high_bucket(runs, iou_types[0])
    phrases = [bucket_phrase(bucket['name']) for bucket in main[iou_types[0]]['buckets']]
    environment = Environment(loader=PackageLoader(__package__, ''), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template('page.html.jinja').render(
        runs=runs, data=main.get('data'), everything=main[iou_types[0]]['all'], ratio=describe_ratio(main),
        headlines=headlines(runs), high=None if place is None else phrases[place], lowest=next(iter(phrases), ''),
        unit=main.get('unit', 'image'),
        sections=[_section(evaluation, number) for number, evaluation in enumerate(evaluations)], examples=examples,
        num_pictures=sum(len(bucket.images) for bucket in examples.buckets) if examples else 0, version=__version__)


def svg_uri(figure: 'Figure') -> str:
    """A figure as a data URI of an SVG, the same text for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': 'mmtied', 'svg.fonttype': 'path'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'


def _section(runs: Sequence[Run], number: int) -> dict:
    """Everything that the template shows of one evaluation."""
    report = runs[0].report
    iou_types = reported_iou_types(report)
    results, controls = [], []
    for iou_type in iou_types:
        results += [_results_table(run, iou_type, len(runs) > 1) for run in runs]
        if any(key in report[iou_type]['all'] for key in ('AP_shared', 'instances_small')):
            controls += [_control_table(run, iou_type, len(runs) > 1) for run in runs]
    return dict(title=describe_evaluation(report), anchor=f'evaluation-{number}', ratio=describe_ratio(report),
                buckets=describe_buckets(report), intervals=describe_intervals(runs), curves=_curves(runs), results=results,
                comparison=[_comparison_table(runs, iou_type) for iou_type in iou_types] if len(runs) > 1 else [],
                control_figures=_control_figures(runs), controls=controls, shared=report.get('shared_categories'))


def _curves(runs: Sequence[Run]) -> list[PageFigure]:
    """AP and AP75 over r of each IoU type, on one scale."""
    figures, reports = [], [run.report for run in runs]
    for iou_type in reported_iou_types(reports[0]):
        limits = ap_range(reports, iou_type, ('AP', 'AP75'))
        for statistic, meaning in (('AP', 'mean over IoU 0.50 to 0.95'), ('AP75', 'at IoU 0.75')):
            alt = f'{iou_type} {statistic} over the occlusion ratio r; the numbers are in the table below.'
            figures.append(PageFigure(svg_uri(plot_runs(runs, iou_type, statistic, limits)), alt,
                                   f'{iou_type} {statistic} ({meaning}) over r. Dashed: all images.'))
    return figures


def _control_figures(runs: Sequence[Run]) -> list[PageFigure]:
    figures, report = [], runs[0].report
    iou_types = reported_iou_types(report)
    if has_mix(report, iou_types[0]):
        figures.append(PageFigure(svg_uri(plot_mix(report, iou_types[0])), 'Sizes of the instances of each bucket, and instances '
                               'per image; the numbers are in the table below.',
                               'Instances by area: small up to 32², medium up to 96², large from 96² pixels.'))
    for iou_type in iou_types:
        if all(has_shared(run.report, iou_type) for run in runs):
            figures.append(PageFigure(svg_uri(plot_shared(runs, iou_type)), f'{iou_type} AP over all and over the shared '
                                   'categories; the numbers are in the table below.',
                                   f'{iou_type} AP over the categories of each bucket, and over those that every bucket has.'))
    return figures


def _results_table(run: Run, iou_type: str, several: bool) -> Table:
    rows = [(name, [(str(row['images']), ''), (str(row['instances']), ''), *(_cell(row, key) for key in _COLUMNS)])
            for name, row in named_rows(run.report, iou_type)]
    return Table(f'{iou_type}, {run.name}' if several else iou_type, ['images', 'instances', *_COLUMNS], rows)


def _comparison_table(runs: Sequence[Run], iou_type: str) -> Table:
    """AP and AP75 of all runs side by side."""
    names = [name for name, _ in named_rows(runs[0].report, iou_type)]
    columns = [[_cell(row, key) for _, row in named_rows(run.report, iou_type)] for key in ('AP', 'AP75') for run in runs]
    header = [f'{key}\n{" ".join(run.name.split())}' for key in ('AP', 'AP75') for run in runs]
    return Table(f'{iou_type}, all runs', header, list(zip(names, map(list, zip(*columns, strict=True)), strict=True)))


def _control_table(run: Run, iou_type: str, several: bool) -> Table:
    rows = list(named_rows(run.report, iou_type))
    keys = [key for key in _CONTROLS if any(key in row for _, row in rows)]
    return Table(f'{iou_type}, {run.name}' if several else iou_type, [_CONTROLS[key] for key in keys],
                 [(name, [_cell(row, key, with_interval=False) for key in keys]) for name, row in rows])


def _cell(row: dict, key: str, with_interval: bool = True) -> tuple[str, str]:
    """A number and its interval as text."""
    value = row.get(key)
    if key.startswith('AP'):
        bounds = row.get(f'{key}_ci') if with_interval and key in INTERVAL_STATISTICS else None
        return format_number(value), '–'.join(map(format_number, bounds)) if bounds else ''
    return (format_number(value, 1) if isinstance(value, float) else '-' if value is None else str(value)), ''


#: r in words, for an image and for an instance of it.
_RATIOS = {
    'covered': 'the share of the area of its instances’ boxes that boxes of other instances cover',
    'union': 'the area under two boxes or more over the area under one or more',
    'pairwise': 'the overlap areas of all pairs of boxes, summed, over the summed areas of the boxes (it may pass 1)',
    'instance_mean': 'the mean, over its instances, of the share of each box that other boxes cover',
    'box_mask': 'the share of the area of its instances’ boxes that the masks of other instances cover',
    'mask': 'the share of the area of its instances’ masks that the masks of other instances cover',
}
_OWN = {'mask': 'the share of its mask that the masks of other instances cover',
        'box_mask': 'the share of its box that the masks of other instances cover'}
#: The highest ratio that the paper reports.
PAPER_RATIO = .8


class Headline(NamedTuple):
    """The numbers that matter of one run and IoU type, as text; changes carry their sign.

    Args:
        run: Name of the run.
        iou_type: The IoU type.
        overall: AP of all images.
        overall_ci: Its interval, or an empty text.
        high: AP at high occlusion.
        high_ci: Its interval, or an empty text.
        change: AP at high occlusion minus AP of the first bucket.
        gain: AP at high occlusion minus that of the first run; empty for the first run.
        gain75: The same of AP75.
    """

    run: str
    iou_type: str
    overall: str
    overall_ci: str
    high: str
    high_ci: str
    change: str
    gain: str
    gain75: str


def describe_ratio(report: dict) -> str:
    """One sentence that says what r is."""
    name, _, restriction = report['definition'].partition(',')
    if report.get('unit') == 'instance':
        text = _OWN.get(name, 'the share of its box that boxes of other instances cover')
    else:
        text = _RATIOS.get(name, f'as defined by “{name}”')
    kind = ' Only instances of the same category count as covering.' if 'same category' in restriction else ''
    return f'The occlusion ratio r of an {report.get("unit", "image")} ({name}) is {text}.{kind}'


def describe_buckets(report: dict) -> str:
    """What the buckets hold."""
    if report.get('unit') == 'instance':
        what = ('Instances are sorted into buckets by their own r; in each bucket the other instances are ignored, neither '
                'found nor missed.')
    else:
        what = 'Images are sorted into buckets by r; each row is COCO’s AP of the images of one bucket.'
    return what + (' The buckets are cumulative: each holds all with r from its edge up.' if report.get('cumulative') else '')


def describe_intervals(runs: Sequence[Run]) -> str:
    """How the intervals were made, run by run where that differs, or that there are none."""
    made = [_intervals_made(run.report) for run in runs]
    if not any(run.report.get('intervals') for run in runs):
        return 'This report has no intervals.'
    how = made[0] if len(set(made)) == 1 else '; '.join(f'{run.name}: {text}' for run, text in zip(runs, made, strict=True))
    return (f'Bands, and the small numbers below a value: {how}. AP of resampled images leans upwards, most in small buckets, '
            'so that an interval may lie above its own AP.')


def high_bucket(runs: Sequence[Run], iou_type: str) -> int | None:
    """The bucket that stands for high occlusion: that of r = 0.8, the paper's highest, or else the last one with a number.

    Returns:
        Its position, or None where only the first bucket or none has a number in all runs.
    """
    tables = [run.report[iou_type]['buckets'] for run in runs]
    defined = [number for number, rows in enumerate(zip(*tables, strict=True))
               if number and all(row['AP'] is not None for row in rows)]
    at_paper = [number for number in defined if _holds(tables[0][number], PAPER_RATIO)]
    return (at_paper or defined or [None])[-1]


def headlines(runs: Sequence[Run]) -> list[Headline]:
    """The headline of each IoU type and run."""
    result = []
    for iou_type in reported_iou_types(runs[0].report):
        place = high_bucket(runs, iou_type)
        for run in runs:
            overall, buckets = run.report[iou_type]['all'], run.report[iou_type]['buckets']
            high = {'AP': None, 'AP75': None} if place is None else buckets[place]
            base = buckets[0] if buckets else high
            gains = ['', '']
            if place is not None and run is not runs[0]:
                first = runs[0].report[iou_type]['buckets'][place]
                gains = [_difference(high, first, key) for key in ('AP', 'AP75')]
            result.append(Headline(run.name, iou_type, format_number(overall['AP']), _interval(overall),
                                   format_number(high['AP']), _interval(high), _difference(high, base, 'AP'), *gains))
    return result


def _holds(bucket: dict, ratio: float) -> bool:
    """Whether a ratio lies in a bucket; a cumulative one has no upper edge."""
    return bucket['lower'] <= ratio + 1e-9 and (bucket['upper'] is None or ratio + 1e-9 < bucket['upper'])


def _intervals_made(report: dict) -> str:
    intervals = report.get('intervals')
    if not intervals:
        return 'no intervals'
    return (f'{100 * intervals["level"]:g} % intervals ({intervals["method"]}, {intervals["replicates"]} replicates, '
            f'seed {intervals["seed"]})')


def _interval(row: dict) -> str:
    return format_interval(row['AP_ci']).replace('..', ' to ') if row.get('AP_ci') else ''


def _difference(row: dict, other: dict, key: str) -> str:
    if row[key] is None or other[key] is None:
        return '-'
    return f'{row[key] - other[key]:+.3f}'.replace('-', '−')
