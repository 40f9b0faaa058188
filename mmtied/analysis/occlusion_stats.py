"""Occlusion in a data set by bucket, category and size, and its correlation with crowding."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import atomic_files, save_text
from ..evaluation.buckets import Bucket, Evaluation, bucket_members
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.occlusion import get_occlusion_ratio, image_ratios, instance_ratios
from ..evaluation.protocol import AREA_RANGES
from ..plotting import check_format, hide_spines, new_figure, plain_label, save_figure
from ..tables import text_table, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SECTIONS = {'bucket': 'buckets', 'size': 'by_size', 'category': 'by_category'}
_CSV_HEADER = ('definition', 'unit', 'section', 'name', 'id', 'lower', 'upper', 'images', 'instances', 'categories',
               'instances_per_image', 'objects', 'mean', 'high_share')
#: Dark and light blue (counts, mean ratio) and orange (high share), distinguishable in grayscale and with color blindness.
_DARK, _LIGHT, _ORANGE = '#08519c', '#9ecae1', '#e6550d'


def occlusion_stats(ground_truth: GroundTruth, evaluation: Evaluation | None = None, high: float = .5) -> dict:
    """Compute occlusion statistics of a data set, as plain values.

    Args:
        ground_truth: The annotations; crowd regions neither occlude nor count.
        evaluation: Definition, buckets and unit. Default: images by `covered`.
        high: Lowest ratio that counts as high occlusion.

    Returns:
        - ``definition``, ``unit``, ``cumulative``, ``high``; ``images`` (including empty ones), ``instances``, ``categories``
          (with instances)
        - ``outside``: images or instances in no bucket (without a ratio, or beyond the edges)
        - ``mean``: mean ratio of the images or instances
        - ``buckets``: for each ``name``, ``lower``, ``upper`` (None for cumulative ones), ``images``, ``instances``,
          ``categories``, ``instances_per_image``, and ``objects``, the mean number of objects per image over the bucket's images
          or instances
        - ``by_category`` and ``by_size``: for each ``name`` (and ``id``), ``instances``, ``mean`` of the instances' own ratios,
          and ``high_share``, the share of instances that are highly occluded or in such an image; categories by decreasing mean
        - ``crowding``: ``spearman``, the rank correlation of the ratio with the number of objects in the image, and
          ``objects``, their mean number

        Undefined values are None.

    Raises:
        ValueError: `high` is not above 0, or exceeds the largest ratio of the definition.
    """
    evaluation = evaluation or Evaluation()
    largest = get_occlusion_ratio(evaluation.definition).largest
    if not 0 < high <= largest:
        raise ValueError(f'high: expected a ratio above 0 and at most {largest:g}, got {high}')
    single = np.flatnonzero(~ground_truth.crowd)
    image, category, area = (column[single] for column in (ground_truth.image, ground_truth.category, ground_truth.area))
    image_ratio = image_ratios(ground_truth, evaluation.definition, evaluation.same_category)
    own = instance_ratios(ground_truth, evaluation.definition, evaluation.same_category)[single]
    ratio = image_ratio[image] if evaluation.unit == 'image' else own
    objects = np.bincount(image, minlength=len(image_ratio))
    units, objects = (image_ratio, objects) if evaluation.unit == 'image' else (own, objects[image])
    known = ~np.isnan(units)

    def row(chosen: np.ndarray) -> dict:
        mean = _mean(own[chosen & ~np.isnan(own)])
        return dict(instances=int(chosen.sum()), mean=mean, high_share=_mean(ratio[chosen] >= high))

    ids = ground_truth.category_ids.tolist()
    by_category = [dict(id=category_id, name=str(ground_truth.category_names[category_id]), **row(category == number))
                   for number, category_id in enumerate(ids)]
    by_size = [dict(name=name, **row((area >= low) & (area <= high_area)))  # inclusive bounds, as in COCOeval
               for name, (low, high_area) in AREA_RANGES.items() if name != 'all']
    return dict(definition=evaluation.name, unit=evaluation.unit, cumulative=evaluation.cumulative, high=float(high),
                images=len(ground_truth.image_ids), instances=len(single), categories=len(np.unique(category)),
                outside=int((~bucket_members(units, evaluation.buckets).any(axis=1)).sum()), mean=_mean(units[known]),
                buckets=_by_bucket(evaluation.buckets, image, category, ratio, units, objects),
                by_category=sorted(by_category, key=lambda entry: (entry['mean'] is None, -(entry['mean'] or 0), entry['id'])),
                by_size=by_size,
                crowding=dict(spearman=spearman(units[known], objects[known]), objects=_mean(objects[known])))


def _by_bucket(buckets: Sequence[Bucket], image: np.ndarray, category: np.ndarray, ratio: np.ndarray, units: np.ndarray,
               objects: np.ndarray) -> list[dict]:
    """Count each bucket; `units` and `objects` have an entry per bucketed unit, the other arrays one per instance."""
    rows = []
    for bucket, here, held in zip(buckets, bucket_members(ratio, buckets).T, bucket_members(units, buckets).T, strict=True):
        images, instances = len(np.unique(image[here])), int(here.sum())
        rows.append(dict(name=bucket.name, lower=bucket.lower, upper=bucket.upper if np.isfinite(bucket.upper) else None,
                         images=images, instances=instances, categories=len(np.unique(category[here])),
                         instances_per_image=instances / images if images else None, objects=_mean(objects[held])))
    return rows


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's rank correlation of two samples of shape (N,), with mean ranks for ties; None if one is constant.

    Example:
        >>> round(spearman(np.array([1., 2., 3., 4.]), np.array([10, 20, 20, 15])), 3)
        0.316
    """
    ranks = []
    for values in (first, second):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return None
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def format_stats(stats: dict, top: int = 20) -> str:
    """Format the statistics as plain text: tables by bucket, size and the `top` categories, and a line on crowding."""
    from ..evaluation.summary import format_number

    unit, high, categories = stats['unit'], stats['high'], stats['by_category']
    share = f'r >= {high:g}' if unit == 'instance' else f'in images r >= {high:g}'
    header = ('r', 'images', 'instances', 'categories', 'instances per image', 'objects in image')
    buckets = [(row['name'], row['images'], row['instances'], row['categories'],
                format_number(row['instances_per_image'], 2), format_number(row['objects'], 2)) for row in stats['buckets']]
    if unit == 'image':  # the last two columns are equal
        header, buckets = header[:-1], [row[:-1] for row in buckets]
    shown = f'the {top} most occluded of {len(categories)}' if top < len(categories) else 'the most occluded first'
    tables = [text_table(f'by occlusion ratio r of the {unit}', header, buckets)]
    for key, title, rows in (('size', 'by size', stats['by_size']), ('category', f'by category, {shown}', categories[:top])):
        body = [[row['name'], row['instances'], format_number(row['mean']), format_number(row['high_share'])] for row in rows]
        tables.append(text_table(title, (key, 'instances', 'mean ratio', share), body))
    crowding = stats['crowding']
    head = (f'{stats["images"]} images, {stats["instances"]} instances, {stats["categories"]} categories; r: '
            f'{stats["definition"]}, of {unit}s; mean {format_number(stats["mean"])}; {stats["outside"]} {unit}s in no bucket')
    tail = (f'crowding: Spearman correlation of r with the number of objects in the image {format_number(crowding["spearman"])}; '
            f'{format_number(crowding["objects"], 2)} objects on average')
    return '\n\n'.join([head, *tables, tail])


def write_stats(stats: dict, folder: str | os.PathLike, top: int = 20, format: str = 'png') -> list[Path]:
    """Write stats.json, stats.csv (a row per bucket, size and category) and a plot, all or none; return the paths."""
    names = [f'stats.{suffix}' for suffix in ('json', 'csv', check_format(format))]
    with atomic_files(folder, 'stats.json', r'stats\.(csv|png|pdf|svg)') as temporary:
        save_text(temporary / names[0], json.dumps(stats, indent=2, allow_nan=False) + '\n')
        common = dict(definition=stats['definition'], unit=stats['unit'])
        write_csv(temporary / names[1], _CSV_HEADER,
                  ({**common, 'section': section, **row} for section, key in _SECTIONS.items() for row in stats[key]))
        save_figure(plot_stats(stats, top), temporary / names[2])
    return [Path(folder) / name for name in names]


def plot_stats(stats: dict, top: int = 20) -> 'Figure':
    """Plot counts and crowding by bucket, and mean ratio and high share by size and for the `top` categories."""
    categories = [row for row in stats['by_category'] if row['mean'] is not None][:top]
    figure = new_figure(7.2, max(4.9, 1.4 + .19 * len(categories)))
    left, right = figure.subfigures(1, 2, width_ratios=[1.12, 1])
    counts, objects, sizes = left.subplots(3, 1, height_ratios=[1.25, 1.25, 1])
    by_category = right.subplots()

    unit, rows = stats['unit'], stats['buckets']
    title = f'{stats["images"]} images, {stats["instances"]} instances; r: {stats["definition"]}, of {unit}s'
    figure.suptitle(plain_label(title, 120), fontsize=9, x=.01, ha='left')
    _bars(counts, rows, [row[f'{unit}s'] for row in rows], _DARK, '{:.0f}')
    _bars(objects, rows, [np.nan if row['objects'] is None else row['objects'] for row in rows], _LIGHT, '{:.1f}')
    objects.set_xlabel(f'occlusion ratio r of the {unit}', fontsize=8)
    correlation = stats['crowding']['spearman']
    spearman_text = '' if correlation is None else f' (Spearman with r {correlation:.2f})'
    objects.set_title(f'objects in the image{spearman_text}', fontsize=8, loc='left')
    counts.set_title(f'number of {unit}s', fontsize=8, loc='left')
    _shares(sizes, [row for row in stats['by_size'] if row['mean'] is not None], stats)
    sizes.set_title('by size', fontsize=8, loc='left')
    _shares(by_category, categories, stats)
    by_category.set_title(f'by category, the {len(categories)} most occluded', fontsize=8, loc='left')
    handles, labels = by_category.get_legend_handles_labels()
    right.legend(handles[::-1], labels[::-1], loc='outside lower center', frameon=False, fontsize=7.5, ncols=1)
    return figure


def _bars(axes: 'Axes', rows: list[dict], values: list[float], color: str, pattern: str) -> None:
    """Draw a labeled bar for each bucket."""
    bars = axes.bar(range(len(rows)), np.nan_to_num(values), color=color, width=.74)
    axes.bar_label(bars, ['-' if np.isnan(value) else pattern.format(value) for value in values], padding=1,
                   fontsize=6.5 if max(np.nan_to_num(values), default=0) < 1000 else 5.4)
    axes.set_ylim(0, 1.16 * max([1e-9, *np.nan_to_num(values)]))
    axes.set_yticks([])
    names = [row['name'] for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=6.5, rotation=35, ha='right', rotation_mode='anchor')
    axes.tick_params(length=0, pad=2)
    hide_spines(axes, 'top', 'right', 'left')


def _shares(axes: 'Axes', rows: list[dict], stats: dict) -> None:
    """Draw the mean ratio of each row as a bar, and its share of highly occluded instances as a point."""
    places = np.arange(len(rows))
    whose = 'instances' if stats['unit'] == 'instance' else 'instances in images'
    axes.barh(places, [row['mean'] for row in rows], color=_LIGHT, height=.66, label='mean ratio of the instances')
    axes.plot([row['high_share'] for row in rows], places, linestyle='none', marker='D', markersize=4, color=_ORANGE,
              label=f'share of {whose} with r ≥ {stats["high"]:g}')
    axes.set_yticks(places, [f'{plain_label(row["name"], 30)} ({row["instances"]})' for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - .4, -.6)
    axes.set_xlim(0, max([1.02, *(row['mean'] * 1.05 for row in rows)]))
    axes.tick_params(axis='x', labelsize=7)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x', color='.9', linewidth=.8)
    axes.set_axisbelow(True)
    hide_spines(axes, 'top', 'right', 'left')
