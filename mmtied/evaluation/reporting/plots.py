"""Figures of an evaluation: statistics over the occlusion ratio, and bucket sizes and categories."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...atomic import atomic_path
from ...plotting import hide_spines, new_figure, plain_label
from ..protocol import bootstrapped_statistics
from ..summary import describe_evaluation, reported_iou_types
from .tables import Run, require_same_buckets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """Look of a curve: a color of Okabe and Ito's color-blind safe palette; marker and line tell it apart in gray."""

    color: str
    marker: str
    line: str | tuple = '-'


#: Looks of the curves of a single run; further statistics follow `run_curve`.
_LOOKS = {'AP50': Curve('#56B4E9', 's'), 'AP': Curve('#0072B2', 'o'), 'AP75': Curve('#D55E00', '^')}
_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#000000', '#E69F00', '#56B4E9')
_MARKERS = ('o', '^', 's', 'D', 'v', 'P', 'X')
_LINES = ('-', (0, (5, 1.5)), (0, (1, 1)), '-.')
#: Sizes from dark to light, in one hue so that they read in gray; and the color of the number on each.
_SIZES = {'large': ('#1B4965', 'white'), 'medium': ('#5FA8D3', 'black'), 'small': ('#CAE4F1', 'black')}


def plot_ap_over_r(report: dict, iou_type: str) -> 'Figure':
    """Plot AP, AP50 and AP75 of each bucket, with the number of images and instances below.

    Lines only guide the eye and break where a bucket has no ground truth. Bands are the intervals, where the report has
    them; dashed lines are the numbers of all images.

    Args:
        report: From `summary.summarize`.
        iou_type: One of its IoU types.
    """
    buckets, overall = report[iou_type]['buckets'], report[iou_type]['all']
    names = [statistic.name for statistic in bootstrapped_statistics() if statistic.name in overall]
    names = [name for name in _LOOKS if name in names] + [name for name in names if name not in _LOOKS]
    figure, top, bottom = _figure_with_counts(7.2, 5.2)
    for number, name in enumerate(names):
        label = name if overall[name] is None else f'{name} (all images {overall[name]:.3f})'
        draw_curve(top, buckets, name, _LOOKS.get(name) or run_curve(number), label, .07 * (number - 1), overall[name])
    _finish(figure, top, bottom, report, iou_type, f'{iou_type} AP', ap_range([report], iou_type, names))
    top.set_title(f'{iou_type} AP by occlusion ratio r ({plain_label(describe_evaluation(report), 80)})', fontsize=10, loc='left',
                  pad=24)
    _legend(top, 3, fontsize=8.5)
    return figure


def plot_runs(runs: Sequence[Run], iou_type: str, statistic: str = 'AP',
              limits: tuple[float, float] | None = None) -> 'Figure':
    """Plot one statistic of several runs over r, as in Figure 7 of the paper, with bands and the sizes of the buckets.

    Args:
        runs: One or more, evaluated in the same way on the same data.
        iou_type: An IoU type of theirs.
        statistic: A statistic of theirs.
        limits: Range of the vertical axis, by default from `ap_range`.

    Raises:
        ValueError: The runs have different buckets.
    """
    require_same_buckets(runs)
    overalls = [run.report[iou_type]['all'].get(statistic) for run in runs]
    labels = [plain_label(run.name) + ('' if overall is None else f' (all images {overall:.3f})')
              for run, overall in zip(runs, overalls, strict=True)]
    columns = 2 if max(map(len, labels)) <= 30 else 1
    figure, top, bottom = _figure_with_counts(5.4, 4.2 + .17 * -(-len(runs) // columns))
    for number, (run, overall, label) in enumerate(zip(runs, overalls, labels, strict=True)):
        offset = .12 * (number - (len(runs) - 1) / 2) * min(1, 5 / len(runs))
        draw_curve(top, run.report[iou_type]['buckets'], statistic, run_curve(number), label, offset, overall)
    limits = limits or ap_range([run.report for run in runs], iou_type, [statistic])
    _finish(figure, top, bottom, runs[0].report, iou_type, f'{iou_type} {statistic}', limits)
    _legend(top, columns)
    return figure


def plot_comparison(comparison: dict, iou_type: str, statistic: str = 'AP') -> 'Figure':
    """Plot the difference of each run from the first over r, with the intervals, for the first evaluation they share.

    Args:
        comparison: From `comparison.compare_runs`.
        iou_type: One of its IoU types.
        statistic: One of its statistics.
    """
    first, *others = comparison['runs']
    entry = comparison['evaluations'][0]
    buckets = entry[iou_type]['buckets']
    columns = 2 if max(map(len, others)) <= 30 else 1
    figure = new_figure(5.4, 3.6 + .17 * -(-len(others) // columns))
    axes = figure.subplots()
    axes.axhline(0, color='.3', linewidth=.8)
    for number, label in enumerate(others):
        differences = [bucket[statistic]['differences'][number] for bucket in buckets]
        rows = [{statistic: one['difference'], f'{statistic}_ci': None if one['low'] is None else (one['low'], one['high'])}
                for one in differences]
        overall = entry[iou_type]['all'][statistic]['differences'][number]['difference']
        draw_curve(axes, rows, statistic, run_curve(number), plain_label(label), .12 * (number - (len(others) - 1) / 2), overall)
    axes.set_ylabel(f'difference of {iou_type} {statistic} from {plain_label(first, 24)}', fontsize=9)
    axes.set_title(f'{iou_type} {statistic} by occlusion ratio r ({plain_label(describe_evaluation(entry), 60)})', fontsize=10,
                   loc='left', pad=10 + 14 * -(-len(others) // columns))
    _style(axes)
    label_buckets(axes, entry, iou_type)
    _legend(axes, columns)
    return figure


def plot_mix(report: dict, iou_type: str) -> 'Figure':
    """Plot the share of small, medium and large instances in each bucket, and the instances per image above each bar."""
    figure = new_figure(5.4, 3.4)
    axes = figure.subplots()
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
    axes.tick_params(labelsize=8)
    axes.set_ylabel('share of instances, %', fontsize=9)
    label_buckets(axes, report, iou_type)
    hide_spines(axes)
    _legend(axes, 3)
    return figure


def plot_shared(runs: Sequence[Run], iou_type: str) -> 'Figure':
    """Plot AP over all categories of a bucket beside AP over the categories that every bucket has."""
    names = [f'{plain_label(run.name, 30)}, ' if len(runs) > 1 else '' for run in runs]
    columns = 2 if max(map(len, names)) <= 18 else 1
    figure = new_figure(5.4, 3.4 + .17 * 2 * len(runs) / columns)
    axes = figure.subplots()
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        buckets, curve = run.report[iou_type]['buckets'], run_curve(number)
        bare = [{key: value for key, value in bucket.items() if not key.endswith('_ci')} for bucket in buckets]
        draw_curve(axes, bare, 'AP', curve, f'{name}all categories')
        draw_curve(axes, bare, 'AP_shared', curve._replace(line=(0, (3, 1.5))), f'{name}shared categories', filled=False)
    axes.set_ylim(*ap_range([run.report for run in runs], iou_type, ['AP', 'AP_shared']))
    axes.set_ylabel(f'{iou_type} AP', fontsize=9)
    _style(axes)
    label_buckets(axes, runs[0].report, iou_type)
    _legend(axes, columns)
    return figure


def write_plots(report: dict, folder: str | os.PathLike) -> dict[str, Path]:
    """Write ``ap_over_r_<iou type>.png`` for each IoU type, completely or not at all; return the paths by IoU type."""
    paths = {}
    for iou_type in reported_iou_types(report):
        paths[iou_type] = Path(folder) / f'ap_over_r_{iou_type}.png'
        with atomic_path(paths[iou_type]) as temporary:
            plot_ap_over_r(report, iou_type).savefig(temporary)
    return paths


def run_curve(number: int) -> Curve:
    """Return the look of the run at an index; distinct for 28 runs."""
    line = _LINES[number // len(_COLORS) % len(_LINES)]
    return Curve(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)], line)


def draw_curve(axes: 'Axes', rows: Sequence[dict], statistic: str, curve: Curve, label: str, offset: float = 0.,
               overall: float | None = None, filled: bool = True) -> None:
    """Draw a statistic of the buckets with its band, and the number of all images as a dashed line.

    Args:
        axes: Where to draw.
        rows: The buckets' rows of a report.
        statistic: A key of theirs; the band is ``<statistic>_ci``.
        curve: The look.
        label: Text for the legend.
        offset: Shift of the markers to the right, in buckets, so that several curves do not hide each other.
        overall: The number of all images.
        filled: Fill the markers.
    """
    places = np.arange(len(rows)) + offset
    bounds = _bounds(rows, statistic)
    if np.isfinite(bounds).any():
        axes.fill_between(places, *bounds.T, color=curve.color, alpha=.15, linewidth=0, zorder=2)
        axes.vlines(places, *bounds.T, color=curve.color, alpha=.6, linewidth=1, zorder=2.5)
    if overall is not None:
        axes.axhline(overall, color=curve.color, linestyle=(0, (4, 3)), linewidth=.8, alpha=.7, zorder=1.5)
    axes.plot(places, _values(rows, statistic), color=curve.color, marker=curve.marker, linestyle=curve.line, markersize=5,
              linewidth=1.5, label=label, zorder=3, markerfacecolor=None if filled else 'white')


def ap_range(reports: Sequence[dict], iou_type: str, statistics: Sequence[str]) -> tuple[float, float]:
    """Return a range of the vertical axis that holds all values and intervals; it starts at 0 unless all are high.

    Example:
        >>> row = {'AP': 0.62, 'AP_ci': [0.6, 0.64]}
        >>> ap_range([{'bbox': {'all': row, 'buckets': [row]}}], 'bbox', ['AP'])
        (0.5, 0.65)
    """
    rows = [row for report in reports for row in (report[iou_type]['all'], *report[iou_type]['buckets'])]
    values = np.concatenate([column for name in statistics for column in (_values(rows, name), _bounds(rows, name).ravel())])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0., .1)
    bottom = np.floor(10 * low - .5) / 10 if low > .5 * high else 0.
    top = np.ceil(20 * (high + .05 * (high - bottom))) / 20
    return float(max(0., round(bottom, 2))), float(max(.1, round(min(top, 1.02), 2)))


def label_buckets(axes: 'Axes', report: dict, iou_type: str) -> None:
    """Name the buckets below the axes, slanted where there is little room, and label the r axis."""
    names = [plain_label(bucket['name'].removeprefix('r=').replace('>=', '≥ ')) for bucket in report[iou_type]['buckets']]
    slanted = len(names) > 1.55 * axes.figure.get_figwidth()
    axes.set_xticks(np.arange(len(names)), names, fontsize=8, rotation=40 if slanted else 0, ha='right' if slanted else 'center',
                    rotation_mode='anchor')
    axes.set_xlabel(f'occlusion ratio r of the {plain_label(report.get("unit", "image"))} ({plain_label(report["definition"])})',
                    fontsize=9)
    axes.set_xlim(-.6, len(names) - .4)


def _figure_with_counts(width: float, height: float) -> tuple['Figure', 'Axes', list['Axes']]:
    """Create axes for the curves, and below them two for the numbers of images and instances."""
    figure = new_figure(width, height)
    top, *bottom = figure.subplots(3, 1, sharex=True, height_ratios=[6, 1, 1])
    return figure, top, bottom


def _finish(figure: 'Figure', top: 'Axes', bottom: list['Axes'], report: dict, iou_type: str, label: str,
            limits: tuple[float, float]) -> None:
    """Set up axes and grid, and draw the bars of bucket sizes."""
    top.set_ylabel(label, fontsize=9)
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
    figure.get_layout_engine().set(hspace=.01, h_pad=.03)


def _style(axes: 'Axes') -> None:
    axes.tick_params(labelsize=8)
    axes.grid(axis='y', color='.9', linewidth=.7)
    hide_spines(axes)


def _legend(axes: 'Axes', columns: int, fontsize: float = 8) -> None:
    """Put the legend above the axes, flush left."""
    axes.legend(frameon=False, fontsize=fontsize, ncols=columns, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2,
                columnspacing=1.2, handlelength=2.6)


def _values(rows: Sequence[dict], statistic: str) -> np.ndarray:
    return np.array([np.nan if row.get(statistic) is None else row[statistic] for row in rows], dtype=float)


def _bounds(rows: Sequence[dict], statistic: str) -> np.ndarray:
    """Return the ends of each row's interval, shape (B, 2), NaN where there is none."""
    return np.array([row.get(f'{statistic}_ci') or (np.nan, np.nan) for row in rows], dtype=float).reshape(-1, 2)
