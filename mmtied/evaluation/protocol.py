"""COCO's evaluation protocol, and the one table of the statistics that reports hold.

Thresholds, recall points, area ranges and limits are those of pycocotools' `Params`. Every consumer (summary, bootstrap,
scalars, tables, files, page, comparison) reads `STATISTICS` when it runs, so one entry there adds a statistic everywhere.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: IoU types that are evaluated.
IOU_TYPES = ('bbox', 'segm')
#: What is commonly written for them.
_MEANT = {'box': 'bbox', 'boxes': 'bbox', 'bboxes': 'bbox', 'mask': 'segm', 'masks': 'segm', 'segmentation': 'segm'}
#: The ten IoU thresholds 0.50, 0.55 ... 0.95.
IOU_THRESHOLDS = np.linspace(.5, .95, 10)
#: The 101 recall points 0, 0.01 ... 1.
RECALL_POINTS = np.linspace(0, 1, 101)
#: Area ranges in pixels; both bounds belong to the range.
AREA_RANGES = {'all': (0., 1e10), 'small': (0., 32.**2), 'medium': (32.**2, 96.**2), 'large': (96.**2, 1e10)}
#: Detections kept for each image and category.
PROPOSAL_NUMS = (1, 10, 100)
#: Units that are sorted into buckets.
UNITS = ('image', 'instance')
#: Bucket edges 0, 0.1 ... 1, written as tenths so that 0.3 is 0.3.
DEFAULT_EDGES = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True)
class Statistic:
    """One number that a report holds for each set of images or instances.

    Args:
        name: Key in reports and title of table columns.
        iou: IoU threshold, one of `IOU_THRESHOLDS`; None for the mean over all of them.
        area: Area range, a key of `AREA_RANGES`.
        max_dets: Detections that count for each image and category; None for the largest of ``proposal_nums``.
        recall: Average recall (AR) instead of average precision (AP).
        bootstrapped: Gets confidence intervals (``<name>_ci``) and is compared between runs; for the area range 'all' only.
        shared: Is also averaged over the categories that every bucket has (``<name>_shared``).
        logged_by_bucket: Is among the scalars that loggers get for each bucket.
        title: The statistic in words; by default made from the other fields.

    Raises:
        ValueError: The threshold or the area range is not evaluated, or is not kept for resampling.

    Example:
        >>> Statistic('AP90', iou=.9).title
        'AP at IoU 0.90'
    """

    name: str
    iou: float | None = None
    area: str = 'all'
    max_dets: int | None = None
    recall: bool = False
    bootstrapped: bool = False
    shared: bool = False
    logged_by_bucket: bool = False
    title: str = ''

    def __post_init__(self) -> None:
        if self.iou is not None and not np.isclose(IOU_THRESHOLDS, self.iou).any():
            raise ValueError(f'statistic {self.name}: iou={self.iou} is not evaluated; use one of 0.5, 0.55 ... 0.95, or None '
                             'for their mean')
        if self.area not in AREA_RANGES:
            raise ValueError(f'statistic {self.name}: area={self.area!r} is unknown; use one of {", ".join(AREA_RANGES)}')
        if self.bootstrapped and self.area != 'all':
            raise ValueError(f"statistic {self.name}: bootstrapped=True needs area='all', as saved records hold no other area; "
                             f'got {self.area!r}')
        if not self.title:
            at = 'IoU 0.50:0.95' if self.iou is None else f'IoU {self.iou:.2f}'
            size = '' if self.area == 'all' else f', {self.area} instances'
            limit = f', at most {self.max_dets} detections' if self.recall and self.max_dets else ''
            object.__setattr__(self, 'title', f'{"AR" if self.recall else "AP"} at {at}{size}{limit}')

    @property
    def thresholds(self) -> list[int]:
        """Positions of its thresholds in `IOU_THRESHOLDS`."""
        return [number for number, iou in enumerate(IOU_THRESHOLDS) if self.iou is None or np.isclose(iou, self.iou)]

    @property
    def area_index(self) -> int:
        """Position of its area range in `AREA_RANGES`."""
        return list(AREA_RANGES).index(self.area)

    @property
    def ci_key(self) -> str:
        """The key of its confidence interval in a row of a report."""
        return f'{self.name}_ci'

    @property
    def shared_key(self) -> str:
        """The key of its mean over shared categories in a row of a report."""
        return f'{self.name}_shared'

    @property
    def scalar(self) -> str:
        """Its name among the scalars of a metric, as in mmdet's CocoMetric: ``mAP``, ``mAP_50``, ``mAP_s``, ``AR@100``."""
        if self.recall:
            size = '' if self.area == 'all' else f'_{self.area[0]}'
            return f'AR{size}@{self.max_dets}' if self.max_dets else f'AR{size}'
        suffix = self.name.removeprefix('AP').strip('_').lower()
        return f'mAP_{suffix}' if suffix else 'mAP'

    def limit(self, proposal_nums: Sequence[int]) -> int:
        """Return how many detections of each image and category count.

        Like pycocotools, AP uses 100 of mmdet's (100, 300, 1000) and the other precisions use 1000. Where `proposal_nums` does
        not list `max_dets`, pycocotools has no value; here precision then uses the largest, recall at most the largest.

        Example:
            >>> STATISTICS['AP'].limit((100, 300, 1000)), STATISTICS['AP50'].limit((100, 300, 1000))
            (100, 1000)
        """
        largest = max(proposal_nums)
        if self.max_dets is None:
            return largest
        if self.recall:
            return min(self.max_dets, largest)
        return self.max_dets if self.max_dets in proposal_nums else largest


#: Every statistic by name, in the order of table columns.
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in (
    Statistic('AP', max_dets=100, bootstrapped=True, shared=True, logged_by_bucket=True),
    Statistic('AP50', iou=.5, bootstrapped=True, shared=True),
    Statistic('AP75', iou=.75, bootstrapped=True, shared=True, logged_by_bucket=True),
    Statistic('AP_S', area='small'),
    Statistic('AP_M', area='medium'),
    Statistic('AP_L', area='large'),
)}


def register_statistic(statistic: Statistic) -> Statistic:
    """Add a statistic to everything that is evaluated from now on.

    Raises:
        ValueError: Another statistic has its name.

    Example:
        >>> register_statistic(Statistic('AR100', max_dets=100, recall=True)).scalar
        'AR@100'
        >>> STATISTICS.pop('AR100').title
        'AR at IoU 0.50:0.95, at most 100 detections'
    """
    if STATISTICS.get(statistic.name, statistic) != statistic:
        raise ValueError(f'statistic {statistic.name} is already defined as {STATISTICS[statistic.name]}; use another name')
    STATISTICS[statistic.name] = statistic
    return statistic


def bootstrapped_statistics() -> list[Statistic]:
    """Return the statistics that get confidence intervals."""
    return [statistic for statistic in STATISTICS.values() if statistic.bootstrapped]


def shared_statistics() -> list[Statistic]:
    """Return the statistics that are also averaged over shared categories."""
    return [statistic for statistic in STATISTICS.values() if statistic.shared]


def check_iou_types(iou_types: str | Sequence[str]) -> tuple[str, ...]:
    """Return the IoU types as a tuple without repeats.

    Raises:
        ValueError: One is unknown, or there is none.
    """
    listed = [iou_types] if isinstance(iou_types, str) or not isinstance(iou_types, Iterable) else list(iou_types)
    for iou_type in listed:
        if iou_type not in IOU_TYPES:
            meant = _MEANT.get(str(iou_type)) or next(iter(difflib.get_close_matches(str(iou_type), IOU_TYPES, 1)), None)
            hint = f'did you mean {meant!r}? Known' if meant else 'known'
            raise ValueError(f'unknown IoU type {iou_type!r}; {hint}: {", ".join(IOU_TYPES)}')
    if not listed:
        raise ValueError(f'no IoU type given; known: {", ".join(IOU_TYPES)}')
    return tuple(dict.fromkeys(listed))


def check_proposal_nums(proposal_nums: Sequence[int]) -> tuple[int, ...]:
    """Return the limits as a sorted tuple.

    Raises:
        ValueError: They are not positive integers.
    """
    listed = tuple(proposal_nums) if isinstance(proposal_nums, Iterable) and not isinstance(proposal_nums, str) else ()
    if not listed or any(not isinstance(num, int | np.integer) or isinstance(num, bool) or num < 1 for num in listed):
        raise ValueError(f'proposal_nums: positive integers such as {PROPOSAL_NUMS} are needed, got {listed or proposal_nums!r}')
    return tuple(sorted(int(num) for num in listed))
