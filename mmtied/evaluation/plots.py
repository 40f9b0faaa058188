"""AP over the occlusion ratio as a picture."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import atomic_path
from .report import reported_iou_types

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Line of the report, its label and colour (colour-blind safe, distinct in grey).
_CURVES = (('AP50', '#9ecae1', 's'), ('AP', '#08519c', 'o'), ('AP75', '#e6550d', '^'))


def plot_ap_over_r(report: dict, iou_type: str) -> 'Figure':
    """AP, AP50 and AP75 of each bucket, with the number of images and instances below.

    Buckets are disjoint, so every one is a marker at its middle; lines only guide the eye and break where a bucket has no
    ground truth. The dashed lines are the numbers of all images.

    Args:
        report: What `summary.summarize` returns.
        iou_type: One of its IoU types.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buckets, overall = report[iou_type]['buckets'], report[iou_type]['all']
    places = np.arange(len(buckets))
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])

    for name, colour, marker in _CURVES:
        values = np.array([np.nan if bucket[name] is None else bucket[name] for bucket in buckets])
        label = name if overall[name] is None else f'{name} (all images {overall[name]:.3f})'
        top.plot(places, values, color=colour, marker=marker, markersize=6, linewidth=1.6, label=label, zorder=3)
        if overall[name] is not None:
            top.axhline(overall[name], color=colour, linestyle=(0, (4, 3)), linewidth=.9, alpha=.8)
    top.set_ylabel(f'{iou_type} AP')
    highest = max([0., *(row[name] for row in (*buckets, overall) for name, _, _ in _CURVES if row[name] is not None)])
    top.set_ylim(0, max(.1, min(1.02, 1.1 * highest)))
    title = f'{iou_type} AP by occlusion ratio r of the image ({report["definition"]})'
    top.set_title(title, fontsize=10, loc='left', pad=24)
    top.legend(frameon=False, fontsize=8.5, ncols=3, loc='lower left', bbox_to_anchor=(-.01, 1), borderaxespad=0.2)
    top.grid(axis='y', color='.9', linewidth=.8)

    images = [bucket['images'] for bucket in buckets]
    bars = bottom.bar(places, images, color='.75', width=.7)
    bottom.bar_label(bars, [f'{image}' for image in images], fontsize=7.5, padding=1)
    bottom.set_ylim(0, 1.35 * max([1, *images]))
    bottom.set_ylabel('images')
    bottom.set_yticks([])
    bottom.set_xticks(places, [bucket['name'].removeprefix('r=') for bucket in buckets], fontsize=8,
                      rotation=30 if len(buckets) > 12 else 0)
    bottom.set_xlabel('occlusion ratio r')
    for axes in (top, bottom):
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def to_rgb(figure: 'Figure') -> np.ndarray:
    """A figure's pixels, shape (height, width, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def write_plots(report: dict, folder: str | os.PathLike) -> dict[str, Path]:
    """Write ``ap_over_r_<iou type>.png`` for each IoU type, whole or not at all, and return the paths by IoU type."""
    paths = {}
    for iou_type in reported_iou_types(report):
        paths[iou_type] = Path(folder) / f'ap_over_r_{iou_type}.png'
        with atomic_path(paths[iou_type]) as temporary:
            plot_ap_over_r(report, iou_type).savefig(temporary)
    return paths
