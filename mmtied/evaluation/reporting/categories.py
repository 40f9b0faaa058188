"""Which categories suffer from occlusion: AP of each category in each bucket, as rows, table and heat map."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...plotting import new_figure, plain_label
from ..stated import field_of
from ..summary import all_evaluations, describe_evaluation, reported_iou_types

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Instances below which a category's AP in a bucket is not drawn, and in a half not compared.
FEWEST = 10
#: Categories of a heat map at most.
MOST = 40


def category_rows(report: Mapping) -> list[dict]:
    """Return a row for each evaluation, IoU type and category, those that fall most with occlusion first.

    ``AP <bucket>`` and ``instances <bucket>`` are those of a bucket. ``low`` and ``high`` average AP over the first and second
    half of the buckets, weighted by the category's instances, and ``change`` is high minus low; None where a half has fewer than
    `FEWEST` instances.
    """
    rows = []
    for part in all_evaluations(report):
        found = part.get('per_category')
        for iou_type in reported_iou_types(part) if found else ():
            of_type = [_row(part, iou_type, found, number, name) for number, name in enumerate(found['names'])]
            rows += sorted(of_type, key=lambda row: (row['change'] is None, row['change'] or 0, -row['instances']))
    return rows


def _row(part: Mapping, iou_type: str, found: Mapping, number: int, name: str) -> dict:
    counts = [group[number] for group in found['instances']]
    values = [group[number] for group in found[iou_type]]
    middle = 1 + len(counts) // 2
    low, high = _mean(values[1:middle], counts[1:middle]), _mean(values[middle:], counts[middle:])
    row = dict(evaluation=describe_evaluation(part), iou_type=iou_type, category=name, instances=counts[0], AP=values[0],
               low=low, high=high, change=None if low is None or high is None else high - low)
    for group, count, value in list(zip(found['groups'], counts, values, strict=True))[1:]:
        row |= {f'AP {group}': value, f'instances {group}': count}
    return row


def _mean(values: list, counts: list) -> float | None:
    pairs = [(value, count) for value, count in zip(values, counts, strict=True) if value is not None]
    total = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / total if total >= FEWEST else None


def plot_categories(report: Mapping, iou_type: str) -> 'Figure':
    """Draw AP of categories (rows, those that fall most with occlusion on top) by bucket (columns) as a heat map.

    Of more than `MOST` categories, those with the most instances are drawn; cells with fewer than `FEWEST` instances are blank.

    Args:
        report: With ``per_category``.
        iou_type: One of its IoU types.
    """
    found = report['per_category']
    rows = [row for row in category_rows({**report, 'further': []}) if row['iou_type'] == iou_type]
    kept = {row['category'] for row in sorted(rows, key=lambda row: -row['instances'])[:MOST]}
    rows = [row for row in rows if row['category'] in kept]
    groups = found['groups'][1:]
    values = np.array([[row['AP'], *(row[f'AP {group}'] for group in groups)] for row in rows], dtype=float) * 100
    counts = np.array([[row['instances'], *(row[f'instances {group}'] for group in groups)] for row in rows])
    values[counts < FEWEST] = np.nan
    highest = max(10., float(np.nanmax(values, initial=0)))
    figure = new_figure(7.2, 1.3 + .19 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(values, cmap='cividis', vmin=0, vmax=highest, aspect='auto')
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = 'white' if value < .55 * highest else 'black'
            axes.text(x, y, f'{value:.0f}', ha='center', va='center', fontsize=7, color=color)
    axes.axvline(.5, color='white', linewidth=3)
    changes = ['' if row['change'] is None else f'  {100 * row["change"]:+.0f}' for row in rows]
    names = [plain_label(row['category'], 22) + change for row, change in zip(rows, changes, strict=True)]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    labels = ['all', *(plain_label(group.replace('>=', '≥')) for group in groups)]
    slanted = sum(map(len, labels)) > 60
    axes.set_xticks(range(len(labels)), labels, fontsize=7.5, rotation=40 if slanted else 0, ha='right' if slanted else 'center',
                    rotation_mode='anchor')
    field = field_of(report['definition'])
    label = f'occlusion ratio r ({plain_label(report["definition"])})' if field is None else plain_label(field)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=min(1, 12 / max(len(rows), 1)), pad=.02)
    bar.set_label(f'{iou_type} AP (%)', fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
