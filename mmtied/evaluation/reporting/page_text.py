"""The sentences and headline numbers of the report page."""

from collections.abc import Sequence
from typing import NamedTuple

from .report import format_interval, format_number, reported_iou_types
from .runs import Run

#: r in words, for an image and for an instance of it.
_RATIOS = {
    'covered': 'the share of the area of its instances’ boxes that boxes of other instances cover',
    'union': 'the area under two boxes or more over the area under one or more',
    'pairwise': 'the overlap areas of all pairs of boxes, summed, over the summed areas of the boxes (it may pass 1)',
    'instance_mean': 'the mean, over its instances, of the share of each box that other boxes cover',
    'box_mask': 'the share of the area of its instances’ boxes that the masks of other instances cover',
    'mask': 'the share of the area of its instances’ masks that the masks of other instances cover',
}
_OWN = {'mask': 'the share of its mask that the masks of other instances cover',
        'box_mask': 'the share of its box that the masks of other instances cover'}
#: The highest ratio that the paper reports.
PAPER_RATIO = .8


class Headline(NamedTuple):
    """The numbers that matter of one run and IoU type, as text; changes carry their sign.

    Args:
        run: Name of the run.
        iou_type: The IoU type.
        overall: AP of all images.
        overall_ci: Its interval, or an empty text.
        high: AP at high occlusion.
        high_ci: Its interval, or an empty text.
        change: AP at high occlusion minus AP of the first bucket.
        gain: AP at high occlusion minus that of the first run; empty for the first run.
        gain75: The same of AP75.
    """

    run: str
    iou_type: str
    overall: str
    overall_ci: str
    high: str
    high_ci: str
    change: str
    gain: str
    gain75: str


def describe_ratio(report: dict) -> str:
    """One sentence that says what r is."""
    name, _, restriction = report['definition'].partition(',')
    if report.get('unit') == 'instance':
        text = _OWN.get(name, 'the share of its box that boxes of other instances cover')
    else:
        text = _RATIOS.get(name, f'as defined by “{name}”')
    kind = ' Only instances of the same category count as covering.' if 'same category' in restriction else ''
    return f'The occlusion ratio r of an {report.get("unit", "image")} ({name}) is {text}.{kind}'


def describe_buckets(report: dict) -> str:
    """What the buckets hold."""
    if report.get('unit') == 'instance':
        what = ('Instances are sorted into buckets by their own r; in each bucket the other instances are ignored, neither '
                'found nor missed.')
    else:
        what = 'Images are sorted into buckets by r; each row is COCO’s AP of the images of one bucket.'
    return what + (' The buckets are cumulative: each holds all with r from its edge up.' if report.get('cumulative') else '')


def describe_intervals(runs: Sequence[Run]) -> str:
    """How the intervals were made, run by run where that differs, or that there are none."""
    made = [_intervals_made(run.report) for run in runs]
    if not any(run.report.get('intervals') for run in runs):
        return 'This report has no intervals.'
    how = made[0] if len(set(made)) == 1 else '; '.join(f'{run.name}: {text}' for run, text in zip(runs, made, strict=True))
    return (f'Bands, and the small numbers below a value: {how}. AP of resampled images leans upwards, most in small buckets, '
            'so that an interval may lie above its own AP.')


def bucket_phrase(name: str) -> str:
    """A bucket in a sentence.

    Example:
        >>> [bucket_phrase(name) for name in ('r=0', '[0.8,0.9)', 'r>=0.8')]
        ['r = 0', 'r in [0.8,0.9)', 'r ≥ 0.8']
    """
    if name.startswith('r'):
        return name.replace('>=', ' ≥ ').replace('r=', 'r = ')
    return f'r in {name}'


def high_bucket(runs: Sequence[Run], iou_type: str) -> int | None:
    """The bucket that stands for high occlusion: that of r = 0.8, the paper's highest, or else the last one with a number.

    Returns:
        Its position, or None where only the first bucket or none has a number in all runs.
    """
    tables = [run.report[iou_type]['buckets'] for run in runs]
    defined = [number for number, rows in enumerate(zip(*tables, strict=True))
               if number and all(row['AP'] is not None for row in rows)]
    at_paper = [number for number in defined if _holds(tables[0][number], PAPER_RATIO)]
    return (at_paper or defined or [None])[-1]


def headlines(runs: Sequence[Run]) -> list[Headline]:
    """The headline of each IoU type and run."""
    result = []
    for iou_type in reported_iou_types(runs[0].report):
        place = high_bucket(runs, iou_type)
        for run in runs:
            overall, buckets = run.report[iou_type]['all'], run.report[iou_type]['buckets']
            high = {'AP': None, 'AP75': None} if place is None else buckets[place]
            base = buckets[0] if buckets else high
            gains = ['', '']
            if place is not None and run is not runs[0]:
                first = runs[0].report[iou_type]['buckets'][place]
                gains = [_difference(high, first, key) for key in ('AP', 'AP75')]
            result.append(Headline(run.name, iou_type, format_number(overall['AP']), _interval(overall),
                                   format_number(high['AP']), _interval(high), _difference(high, base, 'AP'), *gains))
    return result


def _holds(bucket: dict, ratio: float) -> bool:
    """Whether a ratio lies in a bucket; a cumulative one has no upper edge."""
    return bucket['lower'] <= ratio + 1e-9 and (bucket['upper'] is None or ratio + 1e-9 < bucket['upper'])


def _intervals_made(report: dict) -> str:
    intervals = report.get('intervals')
    if not intervals:
        return 'no intervals'
    return (f'{100 * intervals["level"]:g} % intervals ({intervals["method"]}, {intervals["replicates"]} replicates, '
            f'seed {intervals["seed"]})')


def _interval(row: dict) -> str:
    return format_interval(row['AP_ci']).replace('..', ' to ') if row.get('AP_ci') else ''


def _difference(row: dict, other: dict, key: str) -> str:
    if row[key] is None or other[key] is None:
        return '-'
    return f'{row[key] - other[key]:+.3f}'.replace('-', '−')
