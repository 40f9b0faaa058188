"""What else changes from bucket to bucket: the sizes and the number of objects, and the categories."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .plots import ap_range, draw_curve, label_buckets, new_figure, plain_label, run_curve
from .runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    figure = new_figure((5.4, 3.4))
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
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2)
    return figure


def plot_shared(runs: Sequence[Run], iou_type: str) -> 'Figure':
    """AP over all categories of a bucket beside AP over the categories that every bucket has."""
    names = [f'{plain_label(run.name, 30)}, ' if len(runs) > 1 else '' for run in runs]
    columns = 2 if max(map(len, names)) <= 18 else 1
    figure = new_figure((5.4, 3.4 + .17 * 2 * len(runs) / columns))
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
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=columns, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=.2,
                columnspacing=1.2, handlelength=2.8)
    return figure
