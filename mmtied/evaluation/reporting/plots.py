"""Figures of an evaluation: AP over the occlusion ratio, of one run or several, and what else changes with it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...atomic import atomic_path
from ...plotting import hide_spines, new_figure, plain_label
from .tables import Run, check_comparable, describe_evaluation, reported_iou_types

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

class Curve(NamedTuple):
    """How a curve looks: a colour of Okabe and Ito's colour-blind safe palette, and a marker and line to tell it in grey."""

    colour: str
    marker: str
    line: str | tuple = '-'


#: Lines of a single run.
_STATISTICS = {'AP50': Curve('#56B4E9', 's'), 'AP': Curve('#0072B2', 'o'), 'AP75': Curve('#D55E00', '^')}
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#000000', '#E69F00', '#56B4E9')
_MARKERS = ('o', '^', 's', 'D', 'v', 'P', 'X')
_LINES = ('-', (0, (5, 1.5)), (0, (1, 1)), '-.')


def plot_ap_over_r(report: dict, iou_type: str) -> 'Figure':
    """AP, AP50 and AP75 of each bucket, with the number of images and instances below.

    Lines only guide the eye and break where a bucket has no ground truth. Bands are the intervals, where the report has
    them; the dashed lines are the numbers of all images.

    Args:
        report: What `summary.summarize` returns.
        iou_type: One of its IoU types.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    figure, top, bottom = _make_figure((7.2, 5.2))
    buckets, overall = report[iou_type]['buckets'], report[iou_type]['all']
    for number, (name, curve) in enumerate(_STATISTICS.items()):
        label = name if overall[name] is None else f'{name} (all images {overall[name]:.3f})'
        draw_curve(top, buckets, name, curve, label, .07 * (number - 1), overall[name])
    names = list(_STATISTICS)
    _finish(figure, top, bottom, report, iou_type, f'{iou_type} AP', ap_range([report], iou_type, names))
    top.set_title(f'{iou_type} AP by occlusion ratio r ({plain_label(describe_evaluation(report), 80)})', fontsize=10, loc='left',
                  pad=24)
    top.legend(frameon=False, fontsize=8.5, ncols=3, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2)
    return figure


def plot_runs(runs: Sequence[Run], iou_type: str, statistic: str = 'AP',
              limits: tuple[float, float] | None = None) -> 'Figure':
    """One statistic of several runs over r, as in Figure 7 of the paper, with bands and the sizes of the buckets.

    Args:
        runs: One or more, evaluated the same way on the same data.
        iou_type: An IoU type of theirs.
        statistic: ``'AP'``, ``'AP50'`` or ``'AP75'``.
        limits: Range of the vertical axis, by default what the statistic needs; see `ap_range`.

    Raises:
        ValueError: Runs that cannot be compared.
    """
    check_comparable(runs)
    overalls = [run.report[iou_type]['all'][statistic] for run in runs]
    labels = [plain_label(run.name) + ('' if overall is None else f' (all images {overall:.3f})')
              for run, overall in zip(runs, overalls, strict=True)]
    columns = 2 if max(map(len, labels)) <= 30 else 1
    figure, top, bottom = _make_figure((5.4, 4.2 + .17 * -(-len(runs) // columns)))
    for number, (run, overall, label) in enumerate(zip(runs, overalls, labels, strict=True)):
        offset = .12 * (number - (len(runs) - 1) / 2) * min(1, 5 / len(runs))
        draw_curve(top, run.report[iou_type]['buckets'], statistic, run_curve(number), label, offset, overall)
    limits = limits or ap_range([run.report for run in runs], iou_type, [statistic])
    _finish(figure, top, bottom, runs[0].report, iou_type, f'{iou_type} {statistic}', limits)
    top.legend(frameon=False, fontsize=8, ncols=columns, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2,
               columnspacing=1.2, handlelength=2.6)
    return figure


def run_curve(number: int) -> Curve:
    """The look of the run at a position; distinct for 28 runs."""
    line = _LINES[number // len(_COLOURS) % len(_LINES)]
    return Curve(_COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)], line)


def draw_curve(axes: 'Axes', rows: Sequence[dict], statistic: str, curve: Curve, label: str, offset: float = 0.,
               overall: float | None = None, filled: bool = True) -> None:
    """Draw a statistic of the buckets with its band, and the number of all images as a dashed line.

    Args:
        axes: Where.
        rows: The buckets' rows of a report.
        statistic: A key of theirs; the band is ``<statistic>_ci``.
        curve: How it looks.
        label: For the legend.
        offset: Shift of markers to the right, in buckets, so that those of several curves do not hide each other.
        overall: The number of all images.
        filled: Whether the markers are filled.
    """
    places = np.arange(len(rows)) + offset
    bounds = _bounds(rows, statistic)
    if np.isfinite(bounds).any():
        axes.fill_between(places, *bounds.T, color=curve.colour, alpha=.15, linewidth=0, zorder=2)
        axes.vlines(places, *bounds.T, color=curve.colour, alpha=.6, linewidth=1, zorder=2.5)
    if overall is not None:
        axes.axhline(overall, color=curve.colour, linestyle=(0, (4, 3)), linewidth=.8, alpha=.7, zorder=1.5)
    axes.plot(places, _values(rows, statistic), color=curve.colour, marker=curve.marker, linestyle=curve.line, markersize=5,
              linewidth=1.5, label=label, zorder=3, markerfacecolor=None if filled else 'white')


def ap_range(reports: Sequence[dict], iou_type: str, statistics: Sequence[str]) -> tuple[float, float]:
    """A range for the vertical axis that holds all values and intervals; from 0 unless they are all high.

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


def tick_names(report: dict, iou_type: str) -> list[str]:
    """The names of the buckets below an axis, as `plain_label` makes them."""
    return [plain_label(bucket['name'].removeprefix('r=').replace('>=', '≥ ')) for bucket in report[iou_type]['buckets']]


def label_buckets(axes: 'Axes', report: dict, iou_type: str) -> None:
    """Name the buckets below the axes, slanted where there is little room, and say what r is of."""
    names = tick_names(report, iou_type)
    slanted = len(names) > 1.55 * axes.figure.get_figwidth()
    axes.set_xticks(np.arange(len(names)), names, fontsize=8, rotation=40 if slanted else 0, ha='right' if slanted else 'center',
                    rotation_mode='anchor')
    axes.set_xlabel(f'occlusion ratio r of the {report.get("unit", "image")} ({plain_label(report["definition"])})',
                    fontsize=9)
    axes.set_xlim(-.6, len(names) - .4)


def write_plots(report: dict, folder: str | os.PathLike) -> dict[str, Path]:
    """Write ``ap_over_r_<iou type>.png`` for each IoU type, whole or not at all, and return the paths by IoU type."""
    paths = {}
    for iou_type in reported_iou_types(report):
        paths[iou_type] = Path(folder) / f'ap_over_r_{iou_type}.png'
        with atomic_path(paths[iou_type]) as temporary:
            plot_ap_over_r(report, iou_type).savefig(temporary)
    return paths


def _make_figure(size: tuple[float, float]) -> tuple['Figure', 'Axes', list['Axes']]:
    """Axes for the curves, and below them for the numbers of images and instances."""
    figure = new_figure(*size)
    top, *bottom = figure.subplots(3, 1, sharex=True, height_ratios=[6, 1, 1])
    return figure, top, bottom


def _finish(figure: 'Figure', top: 'Axes', bottom: list['Axes'], report: dict, iou_type: str, label: str,
            limits: tuple[float, float]) -> None:
    """Axes, grid and the bars of bucket sizes."""
    top.set_ylabel(label, fontsize=9)
    top.set_ylim(*limits)
    top.tick_params(labelsize=8)
    top.grid(axis='y', color='.9', linewidth=.7)
    for axes, name in zip(bottom, ('images', 'instances'), strict=True):
        counts = [bucket[name] for bucket in report[iou_type]['buckets']]
        bars = axes.bar(np.arange(len(counts)), counts, color='.78', width=.72)
        axes.bar_label(bars, [str(count) for count in counts], fontsize=7, padding=1)
        axes.set_ylim(0, 1.6 * max([1, *counts]))
        axes.set_ylabel(name, fontsize=8, rotation=0, ha='right', va='center')
        axes.set_yticks([])
    label_buckets(bottom[-1], report, iou_type)
    for axes in (top, *bottom):
        hide_spines(axes)
    figure.get_layout_engine().set(hspace=.01, h_pad=.03)


def _values(rows: Sequence[dict], statistic: str) -> np.ndarray:
    return np.array([np.nan if row.get(statistic) is None else row[statistic] for row in rows], dtype=float)


def _bounds(rows: Sequence[dict], statistic: str) -> np.ndarray:
    """Low and high of each row's interval, shape (B, 2), NaN for none."""
    return np.array([row.get(f'{statistic}_ci') or (np.nan, np.nan) for row in rows], dtype=float).reshape(-1, 2)


#: Sizes from dark to light, in one hue so that they read in grey; and the colour of the number on each.
_SIZES = {'large': ('#1B4965', 'white'), 'medium': ('#5FA8D3', 'black'), 'small': ('#CAE4F1', 'black')}


def has_mix(report: dict, iou_type: str) -> bool:
    """Whether the report counts instances by size; those written before do not."""
    return all(row.get(f'instances_{size}') is not None for row in report[iou_type]['buckets'] for size in _SIZES)


def has_shared(report: dict, iou_type: str) -> bool:
    """Whether the report has AP over the shared categories."""
    return any(row.get('AP_shared') is not None for row in report[iou_type]['buckets'])


def plot_mix(report: dict, iou_type: str) -> 'Figure':
    """Share of small, medium and large instances in each bucket, and the instances per image above each bar."""
    figure = new_figure(5.4, 3.4)
    axes = figure.subplots()
    buckets = report[iou_type]['buckets']
    counts = np.array([[bucket[f'instances_{size}'] for size in _SIZES] for bucket in buckets], dtype=float).reshape(-1, 3)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    below = np.zeros(len(buckets))
    for (size, (colour, ink)), share in zip(_SIZES.items(), shares.T, strict=True):
        bars = axes.bar(np.arange(len(buckets)), share, bottom=below, width=.78, color=colour, label=size, edgecolor='white',
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
    axes.legend(frameon=False, fontsize=8, ncols=3, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2)
    return figure


def plot_shared(runs: Sequence[Run], iou_type: str) -> 'Figure':
    """AP over all categories of a bucket beside AP over the categories that every bucket has."""
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
    axes.tick_params(labelsize=8)
    axes.grid(axis='y', color='.9', linewidth=.7)
    label_buckets(axes, runs[0].report, iou_type)
    hide_spines(axes)
    axes.legend(frameon=False, fontsize=8, ncols=columns, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2,
                columnspacing=1.2, handlelength=2.8)
    return figure
