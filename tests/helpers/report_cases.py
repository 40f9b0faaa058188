"""Random reports that have every key."""

import numpy as np

from mmtied.evaluation.buckets import make_buckets
from mmtied.evaluation.intervals import METHOD


def make_row(rng, images, instances, intervals=True):
    """Return a row of random numbers, or of None if there are no instances."""
    row = dict(images=images, instances=instances, categories=min(instances, 5), instances_small=instances // 3,
               instances_medium=instances // 3, instances_large=instances - 2 * (instances // 3),
               instances_per_image=instances / images if images else None)
    for name in ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L', 'AP_shared', 'AP50_shared', 'AP75_shared'):
        row[name] = float(rng.uniform(.2, .6)) if instances else None
    if intervals:
        for name in ('AP', 'AP50', 'AP75'):
            row[f'{name}_ci'] = [row[name] - .031, row[name] + .0217] if instances else None
    return row


def make_report(seed=0, edges=(0, .4, .8, 1), iou_types=('bbox', 'segm'), intervals=True, unit='image', empty=(), further=()):
    """Return a report over buckets of 60, 50, 40, ... images; those in `empty` have none."""
    rng = np.random.default_rng(seed)
    report = dict(definition='covered', unit=unit, cumulative=False, shared_categories=3, further=list(further), intervals=dict(
        level=.95, replicates=1000, seed=0, min_images=20,
        method=METHOD) if intervals else None)
    for iou_type in iou_types:
        buckets = []
        for number, bucket in enumerate(make_buckets(edges)):
            images = 0 if number in empty else max(1, 60 - 10 * number)
            row = make_row(rng, images, 7 * images, intervals)
            buckets.append(dict(name=bucket.name, lower=bucket.lower, upper=bucket.upper, **row))
        report[iou_type] = dict(all=make_row(rng, 128, 929, intervals), buckets=buckets)
    return report


def make_old_report(**options):
    """Return a report in the format of the first version."""
    report = make_report(**options)
    old = dict(definition=report['definition'])
    keep = ('name', 'lower', 'upper', 'images', 'instances', 'categories', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')
    for iou_type in ('bbox', 'segm'):
        rows = [report[iou_type]['all'], *report[iou_type]['buckets']]
        overall, *buckets = [{key: row[key] for key in keep if key in row} for row in rows]
        old[iou_type] = dict(all=overall, buckets=buckets)
    return old
