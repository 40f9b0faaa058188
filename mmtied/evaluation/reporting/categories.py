"""AP of each category in each bucket, as rows and as a heat map."""

from collections.abc import Mapping
from typing import NamedTuple

from ...compat import require
from ..summary import all_evaluations, describe_evaluation, format_percent, is_by_occlusion, reported_iou_types

#: Fewest instances of a category for showing its AP in a bucket, or comparing it between halves of the buckets.
FEWEST = 10
#: Largest number of categories in a heat map.
MOST = 40


def category_rows(report: Mapping) -> list[dict]:
    """Return a row for each evaluation, IoU type and category, those with the largest drop under occlusion first.

    If the buckets are ranges of a field that may not measure occlusion, the largest absolute change comes first.

    ``AP <bucket>`` and ``instances <bucket>`` describe a bucket. ``low`` and ``high`` average AP over the first and second half
    of the buckets, weighted by the category's instances, and ``change`` is high minus low. They are None if a half has fewer than
    `FEWEST` instances.
    """
    rows = []
    for part in all_evaluations(report):
        found = part.get('per_category')
        for iou_type in reported_iou_types(part) if found else ():
            of_type = [_row(part, iou_type, found, number, name) for number, name in enumerate(found['names'])]
            sign = (lambda change: change) if is_by_occlusion(part) else (lambda change: -abs(change))
            rows += sorted(of_type, key=lambda row: (row['change'] is None, sign(row['change'] or 0), -row['instances']))
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


class HeatMap(NamedTuple):
    """A table with colored cells; a row has a category, its change in points, and text, background and ink of each cell."""

    caption: str
    header: list[str]
    rows: list[tuple[str, str, list[tuple[str, str, str]]]]


def heat_map(report: Mapping, iou_type: str) -> HeatMap:
    """Return AP by category (rows, largest drop under occlusion first) and bucket (columns), colored by AP.

    At most `MOST` categories are shown, those with the most instances. Cells with fewer than `FEWEST` instances are blank.
    """
    require('matplotlib', 'The heat map')
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    groups = [bucket['name'] for bucket in report[iou_type]['buckets']]
    rows = [row for row in category_rows({**report, 'further': []}) if row['iou_type'] == iou_type]
    kept = {row['category'] for row in sorted(rows, key=lambda row: -row['instances'])[:MOST]}
    rows = [row for row in rows if row['category'] in kept]
    columns = [('AP', 'instances'), *((f'AP {group}', f'instances {group}') for group in groups)]
    cells = [[row[value] if row[count] >= FEWEST else None for value, count in columns] for row in rows]
    highest = max([.1, *(value for line in cells for value in line if value is not None)])

    def colored(value: float | None) -> tuple[str, str, str]:
        if value is None:
            return '', 'none', 'inherit'
        return f'{100 * value:.0f}', to_hex(colormaps['cividis'](value / highest)), '#fff' if value < .55 * highest else '#000'

    return HeatMap(f'{iou_type} AP in %', ['change', 'all', *groups],
                   [(row['category'], format_percent(row['change'], signed=True) if row['change'] is not None else '',
                     [colored(value) for value in line]) for row, line in zip(rows, cells, strict=True)])
