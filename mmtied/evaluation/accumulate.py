"""From match records to average precision, for any grouping of the images.

COCO's AP reads, at 101 recall points, the best precision at that recall or a higher one. Only true positives raise recall or
precision, so it is enough to know, for each of them, how many false positives have a higher score.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .buckets import Grouping
from .protocol import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS

_EPS = float(np.spacing(1))


class Records(NamedTuple):
    """What is kept of each detection after matching; D detections, A columns (area ranges, then those of instance buckets).

    Within an image and category, detections stand in the order of their ranks.

    Args:
        image: Position of the image, shape (D,) int64.
        category: Position of the category, shape (D,) int64.
        rank: Place by score within image and category, shape (D,) int64.
        score: Shape (D,) float64.
        matched: Bit t: matched at IoU threshold t, shape (D, A) int16.
        ignored: Bit t: ignored at IoU threshold t, shape (D, A) int16.
    """

    image: Tensor
    category: Tensor
    rank: Tensor
    score: Tensor
    matched: Tensor
    ignored: Tensor

    def select(self, index: Tensor) -> 'Records':
        """The records at some positions, in that order."""
        return Records(*(column[index] for column in self))

    def narrow(self) -> 'Records':
        """With positions and ranks in 32 bits, to be kept or sent."""
        return Records(*(column.int() if column.dtype == torch.int64 else column for column in self))

    def wide(self) -> 'Records':
        """The inverse of `narrow`."""
        return Records(*(column.long() if column.dtype == torch.int32 else column for column in self))

    def of_columns(self, first: int) -> 'Records':
        """With the match bits of one bucket's area ranges only: the column `first` and those that follow it."""
        block = slice(first, first + len(AREA_RANGES))
        return self._replace(matched=self.matched[:, block], ignored=self.ignored[:, block])


class Positives(NamedTuple):
    """The ground truths that count; G of them, A columns.

    Args:
        image: Position of the image, shape (G,) int64.
        category: Position of the category, shape (G,) int64.
        counted: Whether it counts in each column, shape (G, A) bool.
    """

    image: Tensor
    category: Tensor
    counted: Tensor

    def of_columns(self, first: int) -> 'Positives':
        """As `Records.of_columns`."""
        return self._replace(counted=self.counted[:, first:first + len(AREA_RANGES)])


def join_records(parts: list[Records], device: torch.device | str | None = None) -> Records:
    """One table from several, on one device, sorted by category, descending score, image and rank as COCOeval's sorts do."""
    records = Records(*(torch.cat(columns).to(device) for columns in zip(*parts, strict=True)))
    order = torch.argsort(records.image, stable=True)
    order = order[torch.argsort(records.score[order], stable=True, descending=True)]
    return records.select(order[torch.argsort(records.category[order], stable=True)])


def no_records(num_areas: int = len(AREA_RANGES)) -> Records:
    """A table without detections."""
    index = torch.empty(0, dtype=torch.int64)
    bits = torch.empty(0, num_areas, dtype=torch.int16)
    return Records(index, index, index, index.double(), bits, bits)


def average_precision(records: Records, positives: Positives, group_of_image: Tensor, num_groups: int, num_categories: int,
                      num_thresholds: int, limit: int) -> Tensor:
    """AP for every group of images, area range, threshold and category.

    Args:
        records: Sorted as `join_records` sorts.
        positives: The ground truths that count.
        group_of_image: Group of each image, -1 for none, shape (I,) int64.
        num_groups: B.
        num_categories: K.
        num_thresholds: T.
        limit: Detections used for each image and category.

    Returns:
        Mean precision over the recall points, shape (B, A, T, K) float64; NaN where a group has no ground truth that counts.
    """
    group = group_of_image[records.image]
    kept = ((group >= 0) & (records.rank < limit)).nonzero()[:, 0]
    kept = kept[torch.argsort(group[kept], stable=True)]
    segment = group[kept] * num_categories + records.category[kept]
    matched, ignored = records.matched[kept].T.contiguous(), records.ignored[kept].T.contiguous()

    num_areas, num_segments = positives.counted.shape[1], num_groups * num_categories
    group = group_of_image[positives.image]
    inside = group >= 0
    totals = torch.zeros(num_segments, num_areas, dtype=torch.int64, device=group.device)
    totals.index_add_(0, (group * num_categories + positives.category)[inside], positives.counted[inside].long())

    result = torch.empty(num_areas, num_thresholds, num_segments, dtype=torch.float64, device=group.device)
    for area in range(num_areas):
        for threshold in range(num_thresholds):
            bit = 1 << threshold
            true = (matched[area] & ~ignored[area] & bit) != 0
            false = ((matched[area] | ignored[area]) & bit) == 0
            result[area, threshold] = _segment_ap(true, false, segment, totals[:, area])
    result[:, :, :] = torch.where(totals.T[:, None] > 0, result, torch.nan)
    return result.view(num_areas, num_thresholds, num_groups, num_categories).permute(2, 0, 1, 3)


def _segment_ap(true: Tensor, false: Tensor, segment: Tensor, totals: Tensor) -> Tensor:
    """AP of each segment of detections in descending order of score.

    Args:
        true: True positives, shape (D,) bool.
        false: False positives, shape (D,) bool.
        segment: Ascending, shape (D,) int64.
        totals: Ground truths of each segment, shape (S,) int64.
    """
    num_segments, device = len(totals), true.device
    points = torch.from_numpy(RECALL_POINTS).to(device)
    false_before = torch.zeros(len(false) + 1, dtype=torch.int64, device=device)
    torch.cumsum(false, 0, out=false_before[1:])
    starts = torch.searchsorted(segment, torch.arange(num_segments, device=device))

    hit = true.nonzero()[:, 0]
    of = segment[hit]
    true_count = torch.arange(1, len(hit) + 1, device=device) - torch.searchsorted(of, of)
    false_count = false_before[hit] - false_before[starts[of]]
    precision = true_count / (false_count.double() + true_count + _EPS)
    recall = true_count / totals[of].double()

    # A true positive serves the last recall point that it reaches and, by the reversed running maximum, all before it.
    point = torch.searchsorted(points, recall, right=True) - 1
    best = torch.zeros(num_segments * len(points), dtype=torch.float64, device=device)
    best.scatter_reduce_(0, of * len(points) + point, precision, 'amax')
    return best.view(num_segments, -1).flip(1).cummax(1).values.mean(1)


def grouped_precision(records: Records, positives: Positives, grouping: Grouping, num_categories: int, limit: int) -> Tensor:
    """AP for every group, area range, threshold and category.

    Args:
        records: Sorted as `accumulate.join_records` sorts.
        positives: The ground truths that count.
        grouping: The B groups, on the device of the records.
        num_categories: K.
        limit: Detections used for each image and category.

    Returns:
        Shape (B, 4, T, K) float64; NaN where a group has no ground truth that counts.
    """
    num_thresholds = len(IOU_THRESHOLDS)
    parts: dict[int, Tensor] = {}
    for columns, groups in _passes(grouping):
        members = grouping.members[:, groups]
        group_of_image = torch.where(members.any(1), members.int().argmax(1), -1)
        found = average_precision(records.of_columns(columns), positives.of_columns(columns), group_of_image, len(groups),
                                  num_categories, num_thresholds, limit)
        parts.update(zip(groups, found, strict=True))
    return torch.stack([parts[group] for group in sorted(parts)])


def _passes(grouping: Grouping) -> list[tuple[int, list[int]]]:
    """Column and groups of each pass over the records: disjoint groups with the same column go together."""
    passes: list[tuple[int, list[int]]] = []
    used = None
    for group, column in enumerate(grouping.columns.tolist()):
        members = grouping.members[:, group]
        if passes and passes[-1][0] == column and not bool((used & members).any()):
            passes[-1][1].append(group)
            used = used | members
        else:
            passes.append((column, [group]))
            used = members
    return passes
