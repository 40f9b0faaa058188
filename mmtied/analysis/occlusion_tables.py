"""Print and write how occluded a data set is: tables, stats.json, stats.csv and stats.png."""

import csv
import json
import os
from pathlib import Path

from ..atomic import atomic_path
from ..evaluation.reporting.tables import ascii_table, format_number
from .occlusion_plot import plot_stats

_SECTIONS = {'bucket': 'buckets', 'size': 'by_size', 'category': 'by_category'}
_CSV_HEADER = ('definition', 'unit', 'section', 'name', 'id', 'lower', 'upper', 'images', 'instances', 'categories',
               'instances_per_image', 'objects', 'mean', 'high_share')


def format_stats(stats: dict, top: int = 20) -> str:
    """The statistics as plain text: tables by bucket, by size and by category, and a line about crowding.

    Args:
        stats: What `occlusion_stats.occlusion_stats` returns.
        top: How many categories to print, the most occluded first.
    """
    unit, high, categories = stats['unit'], stats['high'], stats['by_category']
    share = f'r >= {high:g}' if unit == 'instance' else f'in images r >= {high:g}'
    header = ('r', 'images', 'instances', 'categories', 'instances per image', 'objects in image')
    buckets = [(row['name'].removeprefix('r='), row['images'], row['instances'], row['categories'],
                format_number(row['instances_per_image'], 2), format_number(row['objects'], 2)) for row in stats['buckets']]
    if unit == 'image':  # where both are the same
        header, buckets = header[:-1], [row[:-1] for row in buckets]
    shown = f'the {top} most occluded of {len(categories)}' if top < len(categories) else 'the most occluded first'
    tables = [ascii_table(f'by occlusion ratio r of the {unit}', header, buckets)]
    for title, rows in (('by size', stats['by_size']), (f'by category, {shown}', categories[:top])):
        body = [[row['name'], row['instances'], format_number(row['mean']), format_number(row['high_share'])] for row in rows]
        tables.append(ascii_table(title, (title.split(',')[0].removeprefix('by '), 'instances', 'mean ratio', share), body))
    crowding = stats['crowding']
    head = (f'{stats["images"]} images, {stats["instances"]} instances, {stats["categories"]} categories; r: '
            f'{stats["definition"]}, of {unit}s; mean {format_number(stats["mean"])}; {stats["outside"]} {unit}s in no bucket')
    tail = (f'crowding: Spearman correlation of r with the number of objects in the image {format_number(crowding["spearman"])}; '
            f'{format_number(crowding["objects"], 2)} objects on average')
    return '\n'.join([head, *tables, tail])


def write_stats(stats: dict, folder: str | os.PathLike, top: int = 20) -> list[Path]:
    """Write stats.json, stats.csv (a row for each bucket, size and category) and stats.png, all or none; return the paths."""
    paths = [Path(folder) / f'stats.{suffix}' for suffix in ('json', 'csv', 'png')]
    with atomic_path(paths[0]) as as_json, atomic_path(paths[1]) as as_csv, atomic_path(paths[2]) as as_png:
        as_json.write_text(json.dumps(stats, indent=2, allow_nan=False) + '\n')
        with as_csv.open('w', newline='') as file:
            rows = csv.DictWriter(file, _CSV_HEADER)
            rows.writeheader()
            common = dict(definition=stats['definition'], unit=stats['unit'])
            rows.writerows({**common, 'section': section, **row} for section, key in _SECTIONS.items() for row in stats[key])
        plot_stats(stats, top).savefig(as_png)
    return paths
