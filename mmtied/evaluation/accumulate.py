"""Compute AP and recall from match records.

COCO's AP averages, over 101 recall points, the best precision at that recall or above. Only true positives raise recall or
precision, so it is enough to count, for each of them, the false positives with a higher score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .protocol import AREA_RANGES, RECALL_POINTS, evaluated_thresholds

_EPS = float(np.spacing(1))


class Records(NamedTuple):
    """The match records of D detections, with A columns: area ranges, then those of each instance bucket.

    Within an image and category, detections are sorted by rank.
    """

    image: Tensor  # position of the image, (D,) int64
    category: Tensor  # position of the category, (D,) int64
    rank: Tensor  # place by score within image and category, (D,) int64
    score: Tensor  # (D,) float64
    matched: Tensor  # bit t: matched at IoU threshold t, (D, A) int16
    ignored: Tensor  # bit t: ignored at IoU threshold t, (D, A) int16
    #: Index in `Positives` of the object matched at IoU 0.5 (area range 'all'), or of the taken object that a duplicate overlaps;
    #: -1 if there is none, (D,) int64
    target: Tensor
    iou: Tensor  # IoU with that ground truth, 0 without one, (D,) float32

    def select(self, index: Tensor) -> 'Records':
        """Return the records at the given positions, in that order."""
        return Records(*(column[index] for column in self))

    def narrow(self) -> 'Records':
        """Return the records with positions and ranks in 32 bits, for storage and transfer."""
        return Records(*(column.int() if column.dtype == torch.int64 else column for column in self))

    def wide(self) -> 'Records':
        """Undo `narrow`."""
        return Records(*(column.long() if column.dtype == torch.int32 else column for column in self))

    def of_columns(self, first: int) -> 'Records':
        """Keep the match bits of one bucket: column `first` and its area ranges."""
        block = slice(first, first + len(AREA_RANGES))
        return self._replace(matched=self.matched[:, block], ignored=self.ignored[:, block])


class Positives(NamedTuple):
    """The G ground truths that count, with A columns."""

    image: Tensor  # position of the image, (G,) int64
    category: Tensor  # position of the category, (G,) int64
    counted: Tensor  # counts in this column, (G, A) bool

    def of_columns(self, first: int) -> 'Positives':
        """Keep the columns of one bucket, as `Records.of_columns`."""
        return self._replace(counted=self.counted[:, first:first + len(AREA_RANGES)])


class Grouping(NamedTuple):
    """The B groups of one evaluation of I images."""

    members: Tensor  # images of each group, (I, B) bool; groups may overlap
    #: Column of each group in `Records.matched` and `Positives.counted` for all areas; small, medium and large follow, (B,) int64
    columns: Tensor

    def to(self, device: torch.device | str) -> 'Grouping':
        """Copy to a device."""
        return Grouping(self.members.to(device), self.columns.to(device))


def whole_set(num_images: int) -> Grouping:
    """Return one group of all images."""
    return Grouping(torch.ones(num_images, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))


def join_records(parts: list[Records], device: torch.device | str | None = None) -> Records:
    """Concatenate tables and sort by category, descending score, image and rank, as COCOeval does."""
    records = Records(*(torch.cat(columns).to(device) for columns in zip(*parts, strict=True)))
    order = torch.argsort(records.image, stable=True)
    order = order[torch.argsort(records.score[order], stable=True, descending=True)]
    return records.select(order[torch.argsort(records.category[order], stable=True)])


def no_records(num_columns: int = len(AREA_RANGES)) -> Records:
    """Return a table without detections."""
    index = torch.empty(0, dtype=torch.int64)
    bits = torch.empty(0, num_columns, dtype=torch.int16)
    return Records(index, index, index, index.double(), bits, bits, index, index.float())


def accumulate(records: Records, positives: Positives, grouping: Grouping, num_categories: int, limit: int,
               recall: bool = False, areas: Sequence[int] = tuple(range(len(AREA_RANGES)))) -> Tensor:
    """Compute AP or recall for groups of images or instances, which may overlap.

    Args:
        records: Match records in the order of `join_records`.
        positives: The ground truths that count.
        grouping: The B groups, on the device of the records.
        num_categories: K.
        limit: Maximum detections per image and category.
        recall: Compute the recall of all detections instead of AP.
        areas: Positions of the A area ranges in `AREA_RANGES` to evaluate.

    Returns:
        Shape (B, A, T, K) float64, by group, area range, IoU threshold and category; NaN where no ground truth counts.
    """
    columns, members = grouping.columns.tolist(), grouping.members
    disjoint = not any(columns) and bool((members.sum(1) <= 1).all())
    found = []
    for groups in [slice(None)] if disjoint else [slice(group, group + 1) for group in range(len(columns))]:
        here = members[:, groups]
        group_of_image = torch.where(here.any(1), here.int().argmax(1), -1)
        column = columns[groups][0]
        found.append(_accumulate_disjoint(records.of_columns(column), positives.of_columns(column), group_of_image, here.shape[1],
                                          num_categories, limit, recall, areas))
    return torch.cat(found)


def _accumulate_disjoint(records: Records, positives: Positives, group_of_image: Tensor, num_groups: int, num_categories: int,
                         limit: int, recall: bool, areas: Sequence[int]) -> Tensor:
    """Accumulate disjoint groups of images, from the group of each image, (I,) int64, -1 for none."""
    group = group_of_image[records.image]
    areas = list(areas)
    kept = (group >= 0) & (records.rank < limit)
    if recall:  # false positives do not matter
        kept &= (records.matched[:, areas] != 0).any(1)
    kept = kept.nonzero()[:, 0]
    kept = kept[torch.argsort(group[kept], stable=True)]
    segment = group[kept] * num_categories + records.category[kept]
    matched, ignored = records.matched[:, areas][kept].T.contiguous(), records.ignored[:, areas][kept].T.contiguous()

    num_columns, num_segments = len(areas), num_groups * num_categories
    group = group_of_image[positives.image]
    inside = group >= 0
    totals = torch.zeros(num_segments, num_columns, dtype=torch.int64, device=group.device)
    totals.index_add_(0, (group * num_categories + positives.category)[inside], positives.counted[:, areas][inside].long())

    num_thresholds = len(evaluated_thresholds())
    everywhere = (1 << num_thresholds) - 1
    first_row = torch.searchsorted(segment, torch.arange(num_segments, device=group.device))
    result = torch.empty(num_columns, num_thresholds, num_segments, dtype=torch.float64, device=group.device)
    for column in range(num_columns):
        # Most detections are unmatched or ignored at every threshold. The unmatched ones only need to be counted.
        idle = (matched[column] | ignored[column]) == 0
        rows = (~idle & (ignored[column] != everywhere)).nonzero()[:, 0]
        idle_before = count_before(idle)
        of, bits, ignored_bits = segment[rows], matched[column, rows], ignored[column, rows]
        idle_in_segment = idle_before[rows] - idle_before[first_row][of]
        for threshold in range(num_thresholds):
            bit = 1 << threshold
            true = (bits & ~ignored_bits & bit) != 0
            if recall:
                found = torch.bincount(of[true], minlength=num_segments)
                result[column, threshold] = found / totals[:, column].double()
            else:
                false = ((bits | ignored_bits) & bit) == 0
                result[column, threshold] = _segment_ap(of, true, false, idle_in_segment, totals[:, column])
    result = torch.where(totals.T[:, None] > 0, result, torch.nan)
    return result.view(num_columns, num_thresholds, num_groups, num_categories).permute(2, 0, 1, 3)


def _segment_ap(segment: Tensor, true: Tensor, false: Tensor, idle_before: Tensor, totals: Tensor) -> Tensor:
    """Compute the AP of S segments from their detections, in descending order of score within each segment.

    `idle_before` counts the preceding detections of the segment that are false at every threshold, which are left out; `totals`,
    (S,), are the ground truths of each segment.
    """
    num_segments, device = len(totals), true.device
    points = torch.from_numpy(RECALL_POINTS).to(device)
    false_before = count_before(false)
    starts = torch.searchsorted(segment, torch.arange(num_segments, device=device))

    hit = true.nonzero()[:, 0]
    of = segment[hit]
    true_count = torch.arange(1, len(hit) + 1, device=device) - torch.searchsorted(of, of)
    false_count = false_before[hit] - false_before[starts[of]] + idle_before[hit]
    precision = true_count / (false_count.double() + true_count + _EPS)
    recall = true_count / totals[of].double()

    # A true positive sets the last recall point that it reaches; the reversed running maximum fills those before it.
    point = torch.searchsorted(points, recall, right=True) - 1
    best = torch.zeros(num_segments * len(points), dtype=torch.float64, device=device)
    best.scatter_reduce_(0, of * len(points) + point, precision, 'amax')
    return best.view(num_segments, -1).flip(1).cummax(1).values.mean(1)


def count_before(chosen: Tensor) -> Tensor:
    """Count the chosen entries before each position; the last element is their total, shape (D + 1,) int64.

    Example:
        >>> count_before(torch.tensor([True, False, True])).tolist()
        [0, 1, 1, 2]
    """
    counts = torch.zeros(len(chosen) + 1, dtype=torch.int64, device=chosen.device)
    torch.cumsum(chosen, 0, out=counts[1:])
    return counts
