"""How occluded a data set is, as a picture."""

from typing import TYPE_CHECKING

import numpy as np

from ..plotting import hide_spines, new_figure, plain_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Dark and light blue (mean ratio, counts) and orange (high share): told apart in grey and by every common kind of sight.
_DARK, _LIGHT, _ORANGE = '#08519c', '#9ecae1', '#e6550d'


def plot_stats(stats: dict, top: int = 20) -> 'Figure':
    """Counts and crowding by bucket, and mean ratio and high share by size and by category.

    Args:
        stats: What `occlusion_stats.occlusion_stats` returns.
        top: How many categories to show, the most occluded first.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    categories = [row for row in stats['by_category'] if row['mean'] is not None][:top]
    figure = new_figure(7.2, max(4.9, 1.4 + .19 * len(categories)))
    left, right = figure.subfigures(1, 2, width_ratios=[1.12, 1])
    counts, objects, sizes = left.subplots(3, 1, height_ratios=[1.25, 1.25, 1])
    by_category = right.subplots()

    unit = stats['unit']
    title = f'{stats["images"]} images, {stats["instances"]} instances; r: {stats["definition"]}, of {unit}s'
    figure.suptitle(title, fontsize=9, x=.01, ha='left')
    rows = stats['buckets']
    _bars(counts, rows, [row[f'{unit}s'] for row in rows], _DARK, '{:.0f}')
    _bars(objects, rows, [np.nan if row['objects'] is None else row['objects'] for row in rows], _LIGHT, '{:.1f}')
    objects.set_xlabel(f'occlusion ratio r of the {unit}', fontsize=8)
    correlation = stats['crowding']['spearman']
    said = '' if correlation is None else f' (Spearman with r {correlation:.2f})'
    objects.set_title(f'objects in the image{said}', fontsize=8, loc='left')
    counts.set_title(f'number of {unit}s', fontsize=8, loc='left')
    _shares(sizes, [row for row in stats['by_size'] if row['mean'] is not None], stats)
    sizes.set_title('by size', fontsize=8, loc='left')
    _shares(by_category, categories, stats)
    by_category.set_title(f'by category, the {len(categories)} most occluded', fontsize=8, loc='left')
    handles, labels = by_category.get_legend_handles_labels()
    right.legend(handles[::-1], labels[::-1], loc='outside lower center', frameon=False, fontsize=7.5, ncols=1)
    return figure


def _bars(axes: 'Axes', rows: list[dict], values: list[float], colour: str, pattern: str) -> None:
    """A bar for each bucket with its number."""
    bars = axes.bar(range(len(rows)), np.nan_to_num(values), color=colour, width=.74)
    axes.bar_label(bars, ['-' if np.isnan(value) else pattern.format(value) for value in values], padding=1,
                   fontsize=6.5 if max(np.nan_to_num(values), default=0) < 1000 else 5.4)
    axes.set_ylim(0, 1.16 * max([1e-9, *np.nan_to_num(values)]))
    axes.set_yticks([])
    names = [row['name'].removeprefix('r=') for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=6.5, rotation=35, ha='right', rotation_mode='anchor')
    axes.tick_params(length=0, pad=2)
    hide_spines(axes, 'top', 'right', 'left')


def _shares(axes: 'Axes', rows: list[dict], stats: dict) -> None:
    """For each row a bar of its mean ratio, and a point for its share of highly occluded instances."""
    places = np.arange(len(rows))
    whose = 'instances' if stats['unit'] == 'instance' else 'instances in images'
    axes.barh(places, [row['mean'] for row in rows], color=_LIGHT, height=.66, label='mean ratio of the instances')
    axes.plot([row['high_share'] for row in rows], places, linestyle='none', marker='D', markersize=4, color=_ORANGE,
              label=f'share of {whose} with r ≥ {stats["high"]:g}')
    axes.set_yticks(places, [plain_label(f'{row["name"]} ({row["instances"]})') for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - .4, -.6)
    axes.set_xlim(0, max([1.02, *(row['mean'] * 1.05 for row in rows)]))
    axes.tick_params(axis='x', labelsize=7)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x', color='.9', linewidth=.8)
    axes.set_axisbelow(True)
    hide_spines(axes, 'top', 'right', 'left')
