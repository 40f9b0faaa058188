"""The headline numbers of a report, and sentences on what its curve shows and does not show."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..intervals import MIN_IMAGES
from ..protocol import STATISTICS, lower_is_better
from ..stated import field_of
from ..summary import format_percent, is_by_occlusion, reported_iou_types
from .runs import Run
from .tables import bucket_phrase, format_interval

#: The highest ratio in the paper.
PAPER_RATIO = .8
#: Headline statistic of instance buckets: unlike AP it does not depend on their number of instances.
RECALL = 'recall@P80'
#: Differences from random sets count as real below this p-value.
SIGNIFICANT = .01


class Headline(NamedTuple):
    """The headline numbers of one run and IoU type, each a (value, footnote) pair of strings, possibly empty."""

    run: str
    iou_type: str
    statistic: str  # AP, or the first statistic with requested intervals
    high_statistic: str  # the same, or recall@P80 for instance buckets
    overall: tuple[str, str]  # the statistic of all images, and its interval
    high: tuple[str, str]  # at high occlusion, with its interval, and for recall the overall value
    excess: tuple[str, str]  # minus that of random sets of the same size, with its interval and p-value
    matched: tuple[str, str]  # the same for matched sets; empty for instance buckets
    gain: tuple[str, str]  # difference from the first run at high occlusion, with the paired interval, if they were compared


def high_bucket(runs: Sequence[Run], iou_type: str) -> int | None:
    """Return the index of the bucket that represents high occlusion, among those with enough images for an interval.

    It is the bucket of r = 0.8, the paper's highest ratio, or else the last one with a value in all runs; None if no bucket after
    the first has a value.
    """
    tables = [run.report[iou_type]['buckets'] for run in runs]
    defined = [number for number, rows in enumerate(zip(*tables, strict=True))
               if number and all(row['AP'] is not None and row['images'] >= MIN_IMAGES for row in rows)]
    at_paper = [number for number in defined if tables[0][number]['lower'] <= PAPER_RATIO + 1e-9
                and (tables[0][number]['upper'] or math.inf) > PAPER_RATIO + 1e-9]
    return (at_paper or defined or [None])[-1]


def lead_statistic(report: Mapping, iou_type: str) -> str:
    """Return the headline statistic: the first with requested intervals, or AP."""
    requested = (report.get('intervals') or {}).get('statistics', STATISTICS)
    found = [name for name in requested if name in STATISTICS and report[iou_type]['all'].get(STATISTICS[name].ci_key)]
    return found[0] if found else 'AP'


def headlines(runs: Sequence[Run], comparison: Mapping | None = None) -> list[Headline]:
    """Return the headline of each IoU type and run; `comparison`, of the same runs in the same order, adds their gains."""
    result = []
    for iou_type in reported_iou_types(runs[0].report):
        place = high_bucket(runs, iou_type)
        for number, run in enumerate(runs):
            overall = run.report[iou_type]['all']
            high = {} if place is None else run.report[iou_type]['buckets'][place]
            name = lead_statistic(runs[0].report, iou_type)
            is_instance = run.report.get('unit') == 'instance' and high.get(RECALL) is not None
            lead, of_all = (RECALL, f'all: {format_percent(overall[RECALL])}') if is_instance and name == 'AP' else (name, '')
            result.append(Headline(
                run.name, iou_type, name, lead,
                overall=(format_percent(overall.get(name)), _interval(overall.get(f'{name}_ci'))),
                high=(format_percent(high.get(lead)), '; '.join(filter(None, (_interval(high.get(f'{lead}_ci')), of_all)))),
                excess=_excess(high, f'{name}_excess'),
                matched=_excess(high, f'{name}_matched_excess'),
                gain=_gain(comparison, iou_type, high.get('name'), number, name)))
    return result


def first_sentences(run: Run, iou_type: str, named: bool = False) -> str:
    """Describe what the curve of a run shows and does not show; `named` includes the run's name."""
    report, place = run.report, high_bucket([run], iou_type)
    small = sum(0 < row['images'] < MIN_IMAGES for row in report[iou_type]['buckets'][(place or 0) + 1:])
    if place is None or not small or not is_by_occlusion(report):
        return _verdict(run, iou_type, named)
    more = 'bucket with more occlusion has' if small == 1 else 'buckets with more occlusion have'
    return (f'{_verdict(run, iou_type, named)} {small} {more} fewer than {MIN_IMAGES} images and cannot be judged; use '
            'wider ones (--edges 0 0.2 0.5 1).')


def _verdict(run: Run, iou_type: str, named: bool) -> str:
    report = run.report
    unit, place = report.get('unit', 'image'), high_bucket([run], iou_type)
    if place is None:
        return (f'No bucket after the first has {MIN_IMAGES} images and an AP value: these data cannot show how {run.name} '
                'performs under occlusion.')
    row = report[iou_type]['buckets'][place]
    counts = f'{row["images"]} images, {row["instances"]} instances'
    whose = f'{run.name}, {iou_type}' if named else iou_type
    start = f'{whose}, {unit}s with {bucket_phrase(row["name"], report["definition"])} ({counts}): '
    name = lead_statistic(report, iou_type)
    value = f'{name} is {format_percent(row[name])} %'
    if row.get(f'{name}_excess') is None:
        missing = f'Random sets of instances exist only for AP, so {name}' if unit == 'instance' and name != 'AP' else (
            'Without random sets to compare with, this')
        return (f'{start}{value}. {missing} says nothing about occlusion here: {name} also depends on the number of images, '
                'their instances, sizes and categories.')
    field = field_of(report['definition'])
    unknown = '' if is_by_occlusion(report) else (
        f'It is not known whether {field} grows with occlusion, so this is no verdict on occlusion: use field:1-{field} for a '
        'visible share, or state the order with levels')
    if unit == 'instance' and name == 'AP':
        return start + _instance_sentences(row, report[iou_type]['all'], unknown)
    keys = f'{name}_excess', f'{name}_matched_excess'
    first = _versus(row, keys[0], f'random sets of {row["images"]} images', f'{name}_null')
    if row.get(keys[1]) is None:
        return f'{start}{value}, {first}.'
    second = _versus(row, keys[1], 'sets matched in instances, sizes and categories', f'{name}_matched_null')
    plain, matched = (row[f'{key}_p'] < SIGNIFICANT for key in keys)
    errors = lower_is_better(name)
    if unknown:
        verdict = unknown
    elif matched:
        is_worse = (row[keys[1]] > 0) == errors
        effect = (f'raises its {name}' if errors else f'costs this detector {name}') if is_worse else (
            f'does not {"raise" if errors else "lower"} its {name}')
        verdict = (f'So occlusion {effect} beyond what '
                   'crowding, sizes and categories explain')
    elif plain:
        verdict = (f'So {name} here is {"lower" if row[keys[0]] < 0 else "higher"} than by chance, but crowding, sizes and '
                   'categories may explain it: these images do not show that occlusion is the cause')
    else:
        verdict = 'So these images do not show whether occlusion affects the detector'
    return f'{start}{value}, {first}; {second}. {verdict}.'


def _instance_sentences(row: Mapping, overall: Mapping, unknown: str) -> str:
    text = _versus(row, 'AP_excess', f'random sets of {row["instances"]} instances of the same categories and sizes', 'AP_null')
    if unknown:
        verdict = unknown
    elif row['AP_excess_p'] >= SIGNIFICANT:
        verdict = 'So these instances do not show an effect of occlusion'
    else:
        side = 'worse' if row['AP_excess'] < 0 else 'better'
        verdict = f'So occluded instances are found {side} than others of their categories and sizes'
    return (f'AP is {format_percent(row["AP"])} %, {text}. {verdict}. AP of an instance bucket is lower the fewer instances '
            'it has, since every false positive counts in each bucket: compare it with its random sets, not with another bucket '
            f'or all ({format_percent(overall["AP"])} %). {RECALL} can be compared, since its score threshold is that of all '
            f'instances: {format_percent(row.get(RECALL))} % here, {format_percent(overall.get(RECALL))} % overall.')


def _versus(row: Mapping, key: str, what: str, null: str) -> str:
    """Compare a bucket with random sets: ``8.4 points below random sets of 109 images (23.3 %; difference ...)``."""
    side = 'below' if row[key] < 0 else 'above'
    return (f'{format_percent(abs(row[key]))} points {side} {what} ({format_percent(row[null])} %; {_excess(row, key)[1]})')


def _excess(row: Mapping, key: str) -> tuple[str, str]:
    """Format an excess, and its interval with the p-value; empty if there is none."""
    if row.get(key) is None:
        return '', ''
    ends = row.get(f'{key}_ci')
    chance = row[f'{key}_p']
    p_value = f'p < {SIGNIFICANT}' if chance < SIGNIFICANT else f'p = {chance:.2f}'
    interval = f'{_signed(ends[0])} to {_signed(ends[1])}, ' if ends else ''
    return _signed(row[key]), f'{interval}{p_value}'


def _gain(comparison: Mapping | None, iou_type: str, bucket: str | None, number: int, name: str) -> tuple[str, str]:
    """Format the paired difference of a run from the first, and its interval; empty if they were not compared."""
    if comparison is None or bucket is None or not number or iou_type not in comparison['evaluations'][0]:
        return '', ''
    row = next(row for row in comparison['evaluations'][0][iou_type]['buckets'] if row['name'] == bucket)
    found = row[name]['differences'][number - 1] if name in row else {'low': None}
    if found['low'] is None:
        return '', ''
    return _signed(found['difference']), f'{_signed(found["low"])} to {_signed(found["high"])}'


def _interval(bounds: Sequence[float] | None) -> str:
    return format_interval(bounds).replace('..', ' to ') if bounds else ''


def _signed(value: float) -> str:
    return format_percent(value, signed=True).replace('-', '−')
