"""COCO's evaluation protocol, and `STATISTICS`, the table of all statistics in a report.

Thresholds, recall points, area ranges and limits are those of pycocotools' `Params`. Every consumer (summary, bootstrap, scalars,
tables, files, page, comparison) reads `STATISTICS` at run time, so a new entry adds a statistic everywhere.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: IoU types.
IOU_TYPES = ('bbox', 'segm')
#: Common misnomers of IoU types.
_MEANT = {'box': 'bbox', 'boxes': 'bbox', 'bboxes': 'bbox', 'mask': 'segm', 'masks': 'segm', 'segmentation': 'segm'}
#: The ten IoU thresholds 0.50, 0.55 ... 0.95.
IOU_THRESHOLDS = np.linspace(.5, .95, 10)
#: The 101 recall points 0, 0.01 ... 1.
RECALL_POINTS = np.linspace(0, 1, 101)
#: Area ranges in square pixels, both bounds included.
AREA_RANGES = {'all': (0., 1e10), 'small': (0., 32.**2), 'medium': (32.**2, 96.**2), 'large': (96.**2, 1e10)}
#: Maximum detections per image and category.
PROPOSAL_NUMS = (1, 10, 100)
#: Box formats. A final n means normalized by the image's width and height.
BOX_FORMATS = {'xywh': 'x, y, width, height', 'xyxy': 'x1, y1, x2, y2', 'cxcywh': 'center x, center y, width, height',
               'xywhn': 'x, y, width, height', 'xyxyn': 'x1, y1, x2, y2', 'cxcywhn': 'center x, center y, width, height'}
#: Annotation protocols: 'auto' is LVIS's if images list the categories they lack, otherwise COCO's.
PROTOCOLS = ('auto', 'coco', 'lvis')
#: Units of buckets.
UNITS = ('image', 'instance')
#: Bucket edges 0, 0.1 ... 1, written as tenths so that 0.3 is 0.3.
DEFAULT_EDGES = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True)
class Statistic:
    """A statistic that reports list for each set of images or instances.

    Args:
        name: Key in reports and title of table columns.
        iou: IoU threshold in (0, 1]; None for the mean over COCO's ten. At most five other thresholds fit into a record.
        area: Area range, a key of `AREA_RANGES`.
        max_dets: Maximum detections per image and category; None for the largest of ``proposal_nums``.
        recall: Average recall (AR) instead of average precision (AP).
        bootstrapped: Add confidence intervals (``<name>_ci``) and compare between runs; only for the area range 'all'.
        shared: Also average over the categories that every bucket has (``<name>_shared``).
        logged_by_bucket: Log the statistic for each bucket.
        title: Description; by default derived from the other fields.
        measure: A key of `measures.MEASURES`, to compute instead of AP or AR.
        precision: Precision that sets the score threshold, for measures with one.
        lower_is_better: Lower values are better, as for errors.
        detail: Show in a second table after the main one.

    Raises:
        ValueError: Invalid threshold, area range or precision, or a bootstrapped area range that records do not keep.

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
    measure: str = ''
    precision: float | None = None
    lower_is_better: bool = False
    detail: bool = False

    def __post_init__(self) -> None:
        for name, value in (('iou', self.iou), ('precision', self.precision)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f'statistic {self.name}: {name}={value!r} is outside (0, 1]; use a number such as 0.5')
        if self.area not in AREA_RANGES:
            raise ValueError(f'statistic {self.name}: area={self.area!r} is unknown; use one of {", ".join(AREA_RANGES)}')
        if self.bootstrapped and self.area != 'all':
            raise ValueError(f"statistic {self.name}: bootstrapped=True needs area='all', the only area in saved records; "
                             f'got {self.area!r}')
        if not self.title:
            at = 'IoU 0.50:0.95' if self.iou is None else f'IoU {self.iou:.2f}'
            size = '' if self.area == 'all' else f', {self.area} instances'
            limit = f', at most {self.max_dets} detection{"s" * (self.max_dets > 1)}' if self.recall and self.max_dets else ''
            object.__setattr__(self, 'title', f'{"AR" if self.recall else "AP"} at {at}{size}{limit}')

    @property
    def thresholds(self) -> list[int]:
        """Positions of its thresholds in `evaluated_thresholds`."""
        if self.iou is None:
            return list(range(len(IOU_THRESHOLDS)))
        return np.flatnonzero(np.isclose(evaluated_thresholds(), self.iou)).tolist()

    @property
    def area_index(self) -> int:
        """Position of its area range in `AREA_RANGES`."""
        return list(AREA_RANGES).index(self.area)

    @property
    def highest(self) -> float:
        """Upper bound of the value: 1, or infinite for duplicates per object."""
        return math.inf if self.measure == 'duplicates' else 1.

    @property
    def ci_key(self) -> str:
        """Key of its confidence interval in a row of a report."""
        return f'{self.name}_ci'

    @property
    def shared_key(self) -> str:
        """Key of its mean over shared categories in a row of a report."""
        return f'{self.name}_shared'

    @property
    def scalar(self) -> str:
        """Name among a metric's scalars, as in mmdet's CocoMetric: ``mAP``, ``mAP_50``, ``mAP_s``, ``AR@100``."""
        if self.measure:
            return self.name
        if self.recall:
            size = '' if self.area == 'all' else f'_{self.area[0]}'
            return f'AR{size}@{self.max_dets}' if self.max_dets else f'AR{size}'
        suffix = self.name.removeprefix('AP').strip('_').lower()
        return f'mAP_{suffix}' if suffix else 'mAP'

    def limit(self, proposal_nums: Sequence[int]) -> int:
        """Return the maximum number of detections per image and category.

        As in pycocotools, with mmdet's (100, 300, 1000) AP uses 100 and the other precisions use 1000. If `proposal_nums` lacks
        `max_dets`, for which pycocotools has no value, precision uses the largest limit and recall at most the largest.

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


#: All statistics by name, in the order of table columns.
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in (
    Statistic('AP', max_dets=100, bootstrapped=True, shared=True, logged_by_bucket=True),
    Statistic('AP50', iou=.5, bootstrapped=True, shared=True),
    Statistic('AP75', iou=.75, bootstrapped=True, shared=True, logged_by_bucket=True),
    Statistic('AP_S', area='small'),
    Statistic('AP_M', area='medium'),
    Statistic('AP_L', area='large'),
    Statistic('AR1', max_dets=1, recall=True, detail=True),
    Statistic('AR10', max_dets=10, recall=True, detail=True),
    Statistic('AR100', max_dets=100, recall=True, detail=True),
    Statistic('AR_S', area='small', recall=True, detail=True),
    Statistic('AR_M', area='medium', recall=True, detail=True),
    Statistic('AR_L', area='large', recall=True, detail=True),
    Statistic('MR-2', iou=.5, measure='miss_rate', lower_is_better=True, detail=True,
              title='log-average miss rate (MR^-2) at IoU 0.50, over nine points from 0.01 to 1 false positives per image'),
    Statistic('recall@P80', precision=.8, measure='recall_at_precision', detail=True,
              title='recall at the score threshold where all images together have a precision of 80 %'),
    Statistic('loc_error', measure='localization_error', lower_is_better=True, detail=True,
              title='mean of 1 - IoU of the objects found at IoU 0.50'),
    Statistic('duplicates', precision=.5, measure='duplicates', lower_is_better=True, detail=True,
              title='duplicate detections per 100 found objects, at the score threshold where all images together have a '
              'precision of 50 %'),
)}
_MOST_THRESHOLDS = 15  # that fit into the bits of a record


def register_statistic(statistic: Statistic) -> Statistic:
    """Add a statistic to all subsequent evaluations.

    Raises:
        ValueError: Another statistic has this name, or the IoU threshold is one too many.

    Example:
        >>> register_statistic(Statistic('AR300', max_dets=300, recall=True)).scalar
        'AR@300'
        >>> STATISTICS.pop('AR300').title
        'AR at IoU 0.50:0.95, at most 300 detections'
    """
    if STATISTICS.get(statistic.name, statistic) != statistic:
        raise ValueError(f'statistic {statistic.name} is already defined as {STATISTICS[statistic.name]}; use another name')
    num_others = len(evaluated_thresholds([*STATISTICS.values(), statistic])) - len(IOU_THRESHOLDS)
    if num_others > _MOST_THRESHOLDS - len(IOU_THRESHOLDS):
        raise ValueError(f"statistic {statistic.name}: iou={statistic.iou} is one IoU threshold too many; at most "
                         f"{_MOST_THRESHOLDS - len(IOU_THRESHOLDS)} can be added to COCO's ten")
    STATISTICS[statistic.name] = statistic
    return statistic


def evaluated_thresholds(statistics: Iterable[Statistic] | None = None) -> np.ndarray:
    """Return the IoU thresholds of the matching: COCO's ten, then those of other statistics.

    Args:
        statistics: By default those of `STATISTICS`.

    Example:
        >>> evaluated_thresholds([Statistic('AP30', iou=.3)])[-2:].tolist()
        [0.95, 0.3]
    """
    thresholds = IOU_THRESHOLDS.tolist()
    for statistic in STATISTICS.values() if statistics is None else statistics:
        if statistic.iou is not None and not np.isclose(thresholds, statistic.iou).any():
            thresholds.append(float(statistic.iou))
    return np.array(thresholds)


def bootstrapped_statistics(names: Sequence[str] | None = None) -> list[Statistic]:
    """Return the statistics with confidence intervals: those named, after a check, or the `bootstrapped` ones."""
    if names is None:
        return [statistic for statistic in STATISTICS.values() if statistic.bootstrapped]
    names = [names] if isinstance(names, str) else names
    can = {name: statistic for name, statistic in STATISTICS.items() if statistic.area == 'all'}
    for name in names:
        if name not in can:
            why = "saved records have no area but 'all'" if name in STATISTICS else 'unknown statistic'
            raise ValueError(f'intervals of {name}: {why}; known: {", ".join(can)}')
    return [statistic for name, statistic in can.items() if name in names]


def lower_is_better(name: str) -> bool:
    """Return whether lower values of a statistic are better; False for an unregistered one, as in old files.

    Example:
        >>> lower_is_better('MR-2'), lower_is_better('AP')
        (True, False)
    """
    return name in STATISTICS and STATISTICS[name].lower_is_better


def shared_statistics() -> list[Statistic]:
    """Return the statistics that are also averaged over shared categories."""
    return [statistic for statistic in STATISTICS.values() if statistic.shared]


def check_iou_types(iou_types: str | Sequence[str]) -> tuple[str, ...]:
    """Return the IoU types as a tuple without repeats; raise a ValueError if one is unknown or none is given."""
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
    """Return the limits as a sorted tuple; raise a ValueError unless they are positive integers."""
    listed = tuple(proposal_nums) if isinstance(proposal_nums, Iterable) and not isinstance(proposal_nums, str) else ()
    if not listed or any(not isinstance(num, int | np.integer) or isinstance(num, bool) or num < 1 for num in listed):
        raise ValueError(f'proposal_nums: expected positive integers such as {PROPOSAL_NUMS}, got {listed or proposal_nums!r}')
    return tuple(sorted(int(num) for num in listed))
