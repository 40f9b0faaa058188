"""Figures of an evaluation: statistics in percent over the occlusion ratio, bucket sizes and categories."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...plotting import PALETTE, check_format, hide_spines, new_figure, plain_label, write_figure
from ..protocol import bootstrapped_statistics, lower_is_better
from ..stated import field_of
from ..summary import describe_evaluation, format_percent
from .runs import Run, require_same_buckets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """Look of a curve: a color of Okabe and Ito's color-blind safe palette; marker and line distinguish it in gray."""

    color: str
    marker: str
    line: str | tuple = '-'


#: Looks of the curves of a single run; other statistics use `run_curve`.
_LOOKS = {'AP50': Curve('#56B4E9', 's'), 'AP': Curve('#0072B2', 'o'), 'AP75': Curve('#D55E00', '^')}
_MARKERS = ('o', '^', 's', 'D', 'v', 'P', 'X')
_LINES = ('-', (0, (5, 1.5)), (0, (1, 1)), '-.')
#: Colors of instance sizes, from dark to light in one hue so that they work in gray, and of the numbers on them.
_SIZES = {'large': ('#1B4965', 'white'), 'medium': ('#5FA8D3', 'black'), 'small': ('#CAE4F1', 'black')}


def plot_ap_over_r(report: dict, iou_type: str, name: str = '') -> 'Figure':
    """Plot AP, AP50 and AP75 of each bucket above the number of images and instances.

    Lines only guide the eye, and break at buckets without ground truth. Bands are the intervals, if the report has them; dashed
    lines are the values of all images. Gray and hatched areas show AP of random sets, see `null_band`.
    """
    buckets, overall = report[iou_type]['buckets'], report[iou_type]['all']
    names = [statistic.name for statistic in bootstrapped_statistics() if not statistic.detail and statistic.name in overall]
    names.sort(key=lambda statistic: list(_LOOKS).index(statistic) if statistic in _LOOKS else len(_LOOKS))
    figure, top, bottom = _figure_with_counts(7.2, 5.2)
    nulls = draw_nulls(top, [Run(name, report)], iou_type, 'AP', 'AP of ')
    for number, statistic in enumerate(names):
        curve, value = _LOOKS.get(statistic) or run_curve(number), overall[statistic]
        draw_curve(top, buckets, statistic, curve, _with_overall(statistic, value), .07 * (number - 1), value)
    _finish_with_counts(top, bottom, report, iou_type, 'AP', ap_range([report], iou_type, names))
    of_run = f'{plain_label(name, 36)}: ' if name else ''
    top.set_title(f'{of_run}{iou_type} AP by occlusion ratio r ({plain_label(describe_evaluation(report), 44)})', fontsize=10,
                  loc='left', pad=24 + 14 * bool(nulls))
    _legend(top, 3, fontsize=8.5)
    return figure


def plot_runs(runs: Sequence[Run], iou_type: str, statistic: str = 'AP',
              limits: tuple[float, float] | None = None) -> 'Figure':
    """Plot one statistic of several runs over r with intervals and bucket sizes, as in Figure 7 of the paper."""
    require_same_buckets(runs)
    columns = _legend_columns([_run_label(run, iou_type, statistic) for run in runs])
    figure, top, bottom = _figure_with_counts(5.4, 4.2 + .17 * -(-len(runs) // columns))
    _draw_runs(top, runs, iou_type, statistic)
    limits = limits or ap_range([run.report for run in runs], iou_type, [statistic])
    _finish_with_counts(top, bottom, runs[0].report, iou_type, statistic, limits)
    _legend(top, columns)
    return figure


def plot_comparison(comparison: dict, iou_type: str, statistic: str = 'AP') -> 'Figure':
    """Plot the paired difference of each run from the first over r, for the main evaluation, with its interval as a band."""
    first, *others = comparison['runs']
    entry = comparison['evaluations'][0]
    overalls = [one['difference'] for one in entry[iou_type]['all'][statistic]['differences']]
    labels = [_with_overall(plain_label(label), overall, signed=True) for label, overall in zip(others, overalls, strict=True)]
    columns = _legend_columns(labels)
    lines = -(-len(others) // columns)
    axes = new_figure(5.4, 3.6 + .17 * lines).subplots()
    axes.axhline(0, color='.3', linewidth=.8)
    for number, (label, overall) in enumerate(zip(labels, overalls, strict=True)):
        differences = [bucket[statistic]['differences'][number] for bucket in entry[iou_type]['buckets']]
        rows = [{statistic: one['difference'], f'{statistic}_ci': None if one['low'] is None else (one['low'], one['high'])}
                for one in differences]
        draw_curve(axes, rows, statistic, run_curve(number), label, .12 * (number - (len(others) - 1) / 2), overall)
    lower = ', points (lower is better)' if lower_is_better(statistic) else ', points'
    axes.set_title(f'Difference of {iou_type} {statistic} by occlusion ratio r ({plain_label(describe_evaluation(entry), 44)})',
                   fontsize=10, loc='left', pad=10 + 14 * lines)
    return _finish(axes, entry, iou_type, f'{iou_type} {statistic} minus that of {plain_label(first, 24)}{lower}', columns)


def plot_measure(runs: Sequence[Run], iou_type: str, statistic: str) -> 'Figure':
    """Plot one statistic of several runs over r in a small figure without bucket sizes; arguments as for `plot_runs`."""
    axes = new_figure(4, 2.6 + .17 * len(runs)).subplots()
    num_texts = _draw_runs(axes, runs, iou_type, statistic, 30)
    axes.figure.set_figheight(axes.figure.get_figheight() + .17 * num_texts)
    axes.set_ylim(0, 1.1 * max([1., *_drawn_values([run.report for run in runs], iou_type, [statistic])]))
    return _finish(axes, runs[0].report, iou_type, f'{iou_type} {statistic} (%)', 1)


def plot_mix(report: dict, iou_type: str) -> 'Figure':
    """Plot the shares of small, medium and large instances in each bucket, with the instances per image above the bars."""
    axes = new_figure(5.4, 3.4).subplots()
    buckets = report[iou_type]['buckets']
    counts = np.array([[bucket[f'instances_{size}'] for size in _SIZES] for bucket in buckets], dtype=float).reshape(-1, 3)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    below = np.zeros(len(buckets))
    for (size, (color, ink)), share in zip(_SIZES.items(), shares.T, strict=True):
        bars = axes.bar(np.arange(len(buckets)), share, bottom=below, width=.78, color=color, label=size, edgecolor='white',
                        linewidth=.6)
        texts = [f'{value:.0f}' if value >= 7 else '' for value in share]
        axes.bar_label(bars, texts, label_type='center', fontsize=7, color=ink)
        below += share
    for place, bucket in enumerate(buckets):
        if bucket.get('instances_per_image') is not None:
            axes.annotate(f'{bucket["instances_per_image"]:.1f}', (place, 101), ha='center', va='bottom', fontsize=7.5)
    axes.set_title('above the bars: instances per image', loc='right', fontsize=8)
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 25))
    return _finish(axes, report, iou_type, 'share of instances, %', 3, grid=False)


def plot_shared(runs: Sequence[Run], iou_type: str) -> 'Figure':
    """Plot AP over all categories of a bucket beside AP over the categories common to all buckets."""
    names = [f'{plain_label(run.name, 30)}, ' if len(runs) > 1 else '' for run in runs]
    columns = 2 if max(map(len, names)) <= 18 else 1
    axes = new_figure(5.4, 3.4 + .17 * 2 * len(runs) / columns).subplots()
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        buckets, curve = run.report[iou_type]['buckets'], run_curve(number)
        bare = [{key: value for key, value in bucket.items() if not key.endswith('_ci')} for bucket in buckets]
        draw_curve(axes, bare, 'AP', curve, f'{name}all categories')
        draw_curve(axes, bare, 'AP_shared', curve._replace(line=(0, (3, 1.5))), f'{name}shared categories', filled=False)
    axes.set_ylim(*ap_range([run.report for run in runs], iou_type, ['AP', 'AP_shared']))
    return _finish(axes, runs[0].report, iou_type, f'{iou_type} AP (%)', columns)


def write_plot(figure: 'Figure', path: str | os.PathLike) -> Path:
    """Write a figure atomically as png, pdf or svg, according to the suffix; return the path."""
    path = Path(path)
    check_format(path.suffix.lower().removeprefix('.'))
    write_figure(figure, path)
    return path


def run_curve(number: int) -> Curve:
    """Return the look of the run at an index; distinct for 28 runs."""
    line = _LINES[number // len(PALETTE) % len(_LINES)]
    return Curve(PALETTE[number % len(PALETTE)], _MARKERS[number % len(_MARKERS)], line)


def draw_curve(axes: 'Axes', rows: Sequence[dict], statistic: str, curve: Curve, label: str, offset: float = 0.,
               overall: float | None = None, filled: bool = True) -> None:
    """Draw a statistic of a report's buckets in percent with its band, and the value of all images as a dashed line.

    `offset` shifts the markers to the right by a fraction of a bucket, so that curves do not hide each other.
    """
    places = np.arange(len(rows)) + offset
    bounds = _bounds(rows, statistic)
    if np.isfinite(bounds).any():
        axes.fill_between(places, *bounds.T, color=curve.color, alpha=.15, linewidth=0, zorder=2)
        axes.vlines(places, *bounds.T, color=curve.color, alpha=.6, linewidth=1, zorder=2.5)
    if overall is not None:
        axes.axhline(100 * overall, color=curve.color, linestyle=(0, (4, 3)), linewidth=.8, alpha=.7, zorder=1.5)
    axes.plot(places, _values(rows, statistic), color=curve.color, marker=curve.marker, linestyle=curve.line, markersize=5,
              linewidth=1.5, label=label, zorder=3, markerfacecolor=None if filled else 'white')


def _draw_runs(axes: 'Axes', runs: Sequence[Run], iou_type: str, statistic: str, length: int = 44) -> int:
    """Draw a statistic of several runs and its null bands; return the number of legend entries of the bands."""
    num_texts = draw_nulls(axes, runs, iou_type, statistic)
    for number, run in enumerate(runs):
        table = run.report[iou_type]
        offset = .12 * (number - (len(runs) - 1) / 2) * min(1, 5 / len(runs))
        draw_curve(axes, table['buckets'], statistic, run_curve(number), _run_label(run, iou_type, statistic, length),
                   offset, table['all'].get(statistic))
    return num_texts


def draw_nulls(axes: 'Axes', runs: Sequence[Run], iou_type: str, statistic: str, prefix: str = '') -> int:
    """Draw the null bands of a statistic, if the reports have them; return the number of legend entries (with `prefix`).

    For one run, the plain band is gray and the matched one hatched. For several, the edges of the matched band, or else of the
    plain one, are dotted in the color of the run.
    """
    labels = {}
    for number, run in enumerate(runs):
        rows, unit = run.report[iou_type]['buckets'], run.report.get('unit', 'image')
        kinds = {f'random {unit}s': f'{statistic}_null', f'matched {unit}s': f'{statistic}_matched_null'}
        bands = [(label, bounds) for label, key in kinds.items() if np.isfinite(bounds := _bounds(rows, key)).any()]
        for label, bounds in bands if len(runs) == 1 else bands[-1:]:
            if len(runs) > 1:
                drawn = axes.plot(bounds, color=run_curve(number).color, linestyle=(0, (1, 1.5)), linewidth=1, zorder=1.2)[0]
                label = f'dotted: {label}'
            else:
                look = dict(facecolor='none', edgecolor='.45', hatch='////', linewidth=.4) if 'matched' in label else dict(
                    color='.82', linewidth=0)
                drawn = axes.fill_between(np.arange(len(rows)), *bounds.T, zorder=1, **look)
            if label not in labels:
                labels[label] = drawn.set_label(prefix + label)
    return len(labels)


def ap_range(reports: Sequence[dict], iou_type: str, statistics: Sequence[str]) -> tuple[float, float]:
    """Return a range of the vertical axis in percent that covers all values and intervals, starting at 0 unless all are high.

    Example:
        >>> row = {'AP': 0.62, 'AP_ci': [0.6, 0.64]}
        >>> ap_range([{'bbox': {'all': row, 'buckets': [row]}}], 'bbox', ['AP'])
        (50.0, 65.0)
    """
    values = _drawn_values(reports, iou_type, statistics)
    low, high = (values.min(), values.max()) if values.size else (0., 10.)
    bottom = 10 * np.floor(low / 10 - .5) if low > .5 * high else 0.
    top = 5 * np.ceil((high + .05 * (high - bottom)) / 5)
    return float(max(0., bottom)), float(max(10., min(top, 102.)))


def label_buckets(axes: 'Axes', report: dict, iou_type: str) -> None:
    """Label the r axis and its buckets, slanted if there is little room."""
    names = [plain_label(bucket['name'].replace('>=', '≥')) for bucket in report[iou_type]['buckets']]
    slanted = sum(map(len, names)) > 9.5 * axes.figure.get_figwidth()
    axes.set_xticks(np.arange(len(names)), names, fontsize=8, rotation=40 if slanted else 0, ha='right' if slanted else 'center',
                    rotation_mode='anchor')
    field = field_of(report['definition'])
    text = (f'occlusion ratio r of the {plain_label(report.get("unit", "image"))} ({plain_label(report["definition"])})'
            if field is None else f'{plain_label(report["definition"].partition(":")[2])} of the {report.get("unit", "image")}')
    axes.set_xlabel('\n'.join(textwrap.wrap(text, int(13 * axes.figure.get_figwidth()))), fontsize=9)
    axes.set_xlim(-.6, len(names) - .4)


def _figure_with_counts(width: float, height: float) -> tuple['Figure', 'Axes', list['Axes']]:
    """Create axes for the curves, and two below for the numbers of images and instances."""
    figure = new_figure(width, height)
    top, *bottom = figure.subplots(3, 1, sharex=True, height_ratios=[6, 1, 1])
    return figure, top, bottom


def _finish_with_counts(top: 'Axes', bottom: list['Axes'], report: dict, iou_type: str, statistic: str,
                        limits: tuple[float, float]) -> None:
    """Set up axes and grid, and draw the bars of bucket sizes."""
    top.set_ylabel(f'{iou_type} {statistic} (%)', fontsize=9)
    top.set_ylim(*limits)
    _style(top)
    for axes, name in zip(bottom, ('images', 'instances'), strict=True):
        counts = [bucket[name] for bucket in report[iou_type]['buckets']]
        bars = axes.bar(np.arange(len(counts)), counts, color='.78', width=.72)
        axes.bar_label(bars, [str(count) for count in counts], fontsize=7, padding=1)
        axes.set_ylim(0, 1.6 * max([1, *counts]))
        axes.set_ylabel(name, fontsize=8, rotation=0, ha='right', va='center')
        axes.set_yticks([])
        hide_spines(axes)
    label_buckets(bottom[-1], report, iou_type)
    top.figure.get_layout_engine().set(hspace=.01, h_pad=.03)


def _finish(axes: 'Axes', report: dict, iou_type: str, label: str, columns: int, grid: bool = True) -> 'Figure':
    """Set up axes, grid and legend of a figure without bucket sizes, and return it."""
    axes.set_ylabel(label, fontsize=9)
    _style(axes, grid)
    label_buckets(axes, report, iou_type)
    _legend(axes, columns)
    return axes.figure


def _style(axes: 'Axes', grid: bool = True) -> None:
    axes.tick_params(labelsize=8)
    if grid:
        axes.grid(axis='y', color='.9', linewidth=.7)
    hide_spines(axes)


def _legend(axes: 'Axes', columns: int, fontsize: float = 8) -> None:
    """Put the legend above the axes, flush left."""
    axes.legend(frameon=False, fontsize=fontsize, ncols=columns, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2,
                columnspacing=1.2, handlelength=2.6)


def _legend_columns(labels: Sequence[str]) -> int:
    return 2 if max(map(len, labels)) <= 30 else 1


def _run_label(run: Run, iou_type: str, statistic: str, length: int = 44) -> str:
    return _with_overall(plain_label(run.name, length), run.report[iou_type]['all'].get(statistic))


def _with_overall(label: str, value: float | None, signed: bool = False) -> str:
    """Add the value of all images to a label of the legend."""
    return label if value is None else f'{label} (all images {format_percent(value, signed)})'


def _values(rows: Sequence[dict], statistic: str) -> np.ndarray:
    """Return the statistic of each row in percent, shape (B,); NaN if missing."""
    return 100 * np.array([np.nan if row.get(statistic) is None else row[statistic] for row in rows], dtype=float)


def _drawn_values(reports: Sequence[dict], iou_type: str, statistics: Sequence[str]) -> np.ndarray:
    """Return all values and ends of intervals and null bands in percent, without NaN."""
    rows = [row for report in reports for row in (report[iou_type]['all'], *report[iou_type]['buckets'])]
    values = np.concatenate([column for name in statistics for column in (
        _values(rows, name), *(ends for kind in ('', '_null', '_matched_null') for ends in _bounds(rows, name + kind).T))])
    return values[np.isfinite(values)]


def _bounds(rows: Sequence[dict], statistic: str) -> np.ndarray:
    """Return the ends of each row's interval in percent, shape (B, 2); NaN if missing."""
    return 100 * np.array([row.get(f'{statistic}_ci') or (np.nan, np.nan) for row in rows], dtype=float).reshape(-1, 2)
