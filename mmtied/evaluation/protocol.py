"""COCO's evaluation protocol: thresholds, recall points, area ranges and limits, as pycocotools' `Params` sets them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

#: IoU types that are evaluated.
IOU_TYPES = ('bbox', 'segm')
#: The ten IoU thresholds 0.50, 0.55 ... 0.95.
IOU_THRESHOLDS = np.linspace(.5, .95, 10)
#: The 101 recall points 0, 0.01 ... 1.
RECALL_POINTS = np.linspace(0, 1, 101)
#: Area ranges in pixels; both bounds belong to the range.
AREA_RANGES = {'all': (0., 1e10), 'small': (0., 32.**2), 'medium': (32.**2, 96.**2), 'large': (96.**2, 1e10)}
#: Detections kept for each image and category.
PROPOSAL_NUMS = (1, 10, 100)
#: The limit of the headline AP, whatever the other numbers use.
AP_PROPOSALS = 100
#: The numbers reported for each set of images.
STATISTICS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')


def check_iou_types(iou_types: str | Sequence[str]) -> tuple[str, ...]:
    """Return the IoU types as a tuple without repeats; a ValueError names one that is unknown."""
    listed = [iou_types] if isinstance(iou_types, str) or not isinstance(iou_types, Iterable) else list(iou_types)
    for iou_type in listed:
        if iou_type not in IOU_TYPES:
            raise ValueError(f'unknown IoU type {iou_type!r}; known: {", ".join(IOU_TYPES)}')
    if not listed:
        raise ValueError(f'no IoU type given; known: {", ".join(IOU_TYPES)}')
    return tuple(dict.fromkeys(listed))


def check_proposal_nums(proposal_nums: Sequence[int]) -> tuple[int, ...]:
    """Return the limits sorted; a ValueError when they are not positive integers."""
    listed = tuple(proposal_nums) if isinstance(proposal_nums, Iterable) and not isinstance(proposal_nums, str) else ()
    if not listed or any(not isinstance(num, int | np.integer) or isinstance(num, bool) or num < 1 for num in listed):
        raise ValueError(f'proposal_nums: positive integers such as {PROPOSAL_NUMS} are needed, got {listed or proposal_nums!r}')
    return tuple(sorted(int(num) for num in listed))


def limits(proposal_nums: Sequence[int]) -> tuple[int, int]:
    """Detections for each image and category that AP uses, and that AP50, AP75 and AP by size use.

    pycocotools computes AP from 100 detections and the rest from the largest of `maxDets`; with COCO's (1, 10, 100) both
    are 100, with mmdet's (100, 300, 1000) they differ. Without 100 among them pycocotools has no AP; ours uses the largest.

    Example:
        >>> limits((100, 300, 1000))
        (100, 1000)
    """
    largest = check_proposal_nums(proposal_nums)[-1]
    return (AP_PROPOSALS if AP_PROPOSALS in proposal_nums else largest), largest


def in_area_ranges(area: Tensor) -> Tensor:
    """Which of `AREA_RANGES` each area belongs to, shape (N, 4) bool, from areas in pixels, shape (N,)."""
    bounds = torch.tensor(list(AREA_RANGES.values()), dtype=torch.float64, device=area.device)
    area = area.double()[:, None]
    return (area >= bounds[:, 0]) & (area <= bounds[:, 1])
