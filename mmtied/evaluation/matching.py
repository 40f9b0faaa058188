"""COCO's greedy matching, vectorized over images, thresholds and columns.

A *cell* is an image and a category as one number, ``image * num_categories + category``; detections and targets come sorted by
cell. Pairs of one cell that overlap enough to match are few, so everything after them works on sparse lists.

Detections are taken in the order of their scores within a cell. Each takes the best ground truth that is still free: one that
counts before one that is ignored, then the larger IoU, then the later in the file. A crowd can be taken again and again.
COCOeval regards the ground truth with id 0 as unmatched; here its id does not matter.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records
from .inputs.arrays import GroundTruth
from .protocol import AREA_RANGES, IOU_THRESHOLDS, evaluated_thresholds
from .targets import IgnorePatterns, Targets, category_lookup, in_area_ranges

#: Pairs whose boxes are compared at a time; bounds the memory of a large batch.
CHUNK = 1 << 18
#: COCOeval lowers every threshold to at most this.
_LARGEST_THRESHOLD = 1 - 1e-10
#: Detections of an image that count by LVIS's protocol, of all categories together.
LVIS_DETECTIONS = 300
#: The IoU at which a detection and an object are paired for good: position 0 of the thresholds.
_IOU_50 = float(IOU_THRESHOLDS[0])


class Pairs(NamedTuple):
    """Overlapping pairs, sorted by detection, then by target."""

    detection: Tensor  # position of the detection, (P,) int64
    target: Tensor  # position of the ground truth, (P,) int64
    iou: Tensor  # (P,) float64, in (0, 1]


class Matches(NamedTuple):
    """Matches of D detections in A area ranges, as integers whose bit t stands for IoU threshold t."""

    matched: Tensor  # thresholds at which the detection found a ground truth, (D, A) int16
    ignored: Tensor  # thresholds at which it counts neither as true nor as false, (D, A) int16
    target: Tensor  # ground truth at IoU 0.5, see `Records.target`, (D,) int64
    iou: Tensor  # IoU with it, (D,) float32


def min_iou() -> float:
    """Return the smallest IoU that can match at any of the thresholds."""
    return min(float(evaluated_thresholds().min()), _LARGEST_THRESHOLD)


def rank_detections(cells: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Sort by cell, then by descending score with ties as they come, and keep the first `limit` of each cell.

    Args:
        cells: Shape (D,) int64.
        scores: Shape (D,) float64.
        limit: Detections kept in a cell.

    Returns:
        Positions of the detections that are kept, in order, and the rank of each within its cell; both (K,) int64.

    Example:
        >>> rank_detections(torch.tensor([1, 0, 1, 1]), torch.tensor([.5, .1, .9, .5]), limit=2)
        (tensor([1, 2, 0]), tensor([0, 0, 1]))
    """
    order = torch.argsort(scores, stable=True, descending=True)
    order = order[torch.argsort(cells[order], stable=True)]
    sorted_cells = cells[order]
    rank = torch.arange(len(order), device=cells.device) - torch.searchsorted(sorted_cells, sorted_cells)
    keep = rank < limit
    return order[keep], rank[keep]


def box_pairs(detection_cells: Tensor, detection_boxes: Tensor, target_cells: Tensor, target_boxes: Tensor,
              crowd: Tensor) -> Pairs:
    """Return the pairs whose boxes overlap enough, see `min_iou`.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_boxes: Shape (D, 4) float64, xywh in pixels.
        target_cells: Shape (G,) int64, sorted.
        target_boxes: Shape (G, 4) float64, xywh in pixels.
        crowd: Shape (G,) bool.
    """
    return pairs_above(detection_cells, target_cells, lambda detection, target: box_iou(
        detection_boxes[detection], target_boxes[target], crowd[target]))


def pairs_above(detection_cells: Tensor, target_cells: Tensor, iou_of: Callable[[Tensor, Tensor], Tensor],
                least: float | None = None) -> Pairs:
    """Return the pairs of one cell whose IoU, computed from their positions, is at least that, by default `min_iou`."""
    index = torch.empty(0, dtype=torch.int64, device=detection_cells.device)
    found, least = [Pairs(index, index, index.double())], min_iou() if least is None else least
    for detection, target in cell_pairs(detection_cells, target_cells):
        iou = iou_of(detection, target)
        keep = iou >= least
        found.append(Pairs(detection[keep], target[keep], iou[keep]))
    return Pairs(*(torch.cat(columns) for columns in zip(*found, strict=True)))


def box_iou(detections: Tensor, targets: Tensor, crowd: Tensor) -> Tensor:
    """Compute the IoU of xywh boxes, row by row; for a crowd, the share of the detection that lies inside it.

    The operations and their order are pycocotools' (`bbIou` in maskApi.c), so the bits agree too.

    Shape:
        Detections and targets (P, 4), crowd (P,) bool; returns (P,) float64.

    Example:
        >>> box = torch.tensor([[0., 0., 2., 2.]], dtype=torch.float64)
        >>> box_iou(box, box + torch.tensor([1., 0., 0., 0.]), torch.tensor([False]))
        tensor([0.3333], dtype=torch.float64)
    """
    (x, y, w, h), (target_x, target_y, target_w, target_h) = detections.unbind(1), targets.unbind(1)
    width = torch.minimum(w + x, target_w + target_x) - torch.maximum(x, target_x)
    height = torch.minimum(h + y, target_h + target_y) - torch.maximum(y, target_y)
    intersection = width * height
    area = w * h
    union = torch.where(crowd, area, area + target_w * target_h - intersection)
    return torch.where((width > 0) & (height > 0), intersection / union, 0)


def cell_pairs(detection_cells: Tensor, target_cells: Tensor, chunk: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all pairs within cells as (detection, target) positions, about `chunk` at a time, sorted by detection."""
    first = torch.searchsorted(target_cells, detection_cells)
    count = torch.searchsorted(target_cells, detection_cells, right=True) - first
    total = count.cumsum(0)
    num = int(total[-1]) if len(total) else 0
    ends = torch.searchsorted(total, torch.arange(chunk, num + chunk, chunk, device=total.device)).tolist() if num else []
    start = 0
    for end in ends:
        end = min(end + 1, len(count))
        part = count[start:end]
        detection = torch.repeat_interleave(torch.arange(start, end, device=part.device), part)
        within = torch.arange(len(detection), device=part.device) - torch.repeat_interleave(part.cumsum(0) - part, part)
        yield detection, first[detection] + within
        start = end


class FederatedRules:
    """LVIS's protocol: a detection counts only where annotators looked for its category, as the file states for each image."""

    def __init__(self, ground_truth: GroundTruth, categories: np.ndarray) -> None:
        place = torch.from_numpy(category_lookup(ground_truth, categories))
        width, self.num_categories = len(ground_truth.category_ids), len(categories)

        def cells(all_cells: Tensor) -> Tensor:
            here = place[all_cells % width]
            image = torch.div(all_cells, width, rounding_mode='floor')
            return torch.unique((image * self.num_categories + here)[here >= 0])

        self.judged, self.not_exhaustive = (cells(torch.from_numpy(part)) for part in ground_truth.federated)

    def select(self, cells: Tensor, image: Tensor, scores: Tensor) -> Tensor:
        """Return the sorted positions of detections that count, from their cells, images and scores."""
        kept = rank_detections(image, scores, LVIS_DETECTIONS)[0].sort().values
        return kept[torch.isin(cells[kept], self.judged.to(cells.device))]

    def ignores(self, cells: Tensor) -> Tensor:
        """Return which detections, without a match, are ignored, shape (D,) bool."""
        return torch.isin(cells, self.not_exhaustive.to(cells.device))


def match_ranked(image: Tensor, place: Tensor, score: Tensor, area: Tensor, targets: Targets, limit: int,
                 find_pairs: Callable[[Tensor, Tensor], Pairs], rules: FederatedRules | None = None,
                 order: Tensor | None = None) -> Records:
    """Rank detections, match them to the targets, and keep what accumulation needs.

    Detections are given by the position of the image, the place of the category among the evaluated ones (-1 for others), score
    and area in pixels, (D,) each; equal scores are taken in the given order of positions, by default as they come. `find_pairs`
    takes the sorted cells of ranked detections and their positions, and returns the pairs that overlap enough.
    """
    all_cells = image * targets.num_categories + place
    chosen = (place >= 0).nonzero()[:, 0] if order is None else order[place[order] >= 0]
    if rules:
        chosen = chosen[rules.select(all_cells[chosen], image[chosen], score[chosen])]
    ranked, rank = rank_detections(all_cells[chosen], score[chosen], limit)
    chosen = chosen[ranked]
    cells = all_cells[chosen]
    outside = (~in_area_ranges(area[chosen])).repeat(1, targets.ignored.shape[1] // len(AREA_RANGES))
    if rules:
        outside |= rules.ignores(cells)[:, None]
    thresholds = torch.from_numpy(evaluated_thresholds()).to(cells.device)
    matches = match(find_pairs(cells, chosen), cells, outside, targets.patterns, thresholds, targets.crowd)
    return Records(image[chosen], place[chosen], rank, score[chosen], *matches)


def match(pairs: Pairs, cells: Tensor, outside: Tensor, patterns: IgnorePatterns, thresholds: Tensor,
          crowd: Tensor) -> Matches:
    """Match detections to ground truths.

    Args:
        pairs: Pairs of one cell with an IoU of at least the smallest threshold.
        cells: Cell of each detection, sorted, within a cell by rank, (D,) int64.
        outside: Which detections are ignored in which columns if unmatched, (D, A) bool.
        patterns: Which ground truths are ignored in each column, see `targets.find_patterns`.
        thresholds: IoU thresholds, the first of them 0.5, (T,) float64, T at most 15.
        crowd: Which ground truths are crowds, (G,) bool.
    """
    if len(thresholds) > 15:
        raise ValueError(f'{len(thresholds)} IoU thresholds given; at most 15 fit the bits of a record')
    bits = 1 << torch.arange(len(thresholds), device=cells.device, dtype=torch.int16)
    matched, to_ignored = torch.zeros((2, *outside.shape), dtype=torch.int16, device=cells.device)
    target = torch.full_like(cells, -1)
    iou = torch.zeros(len(cells), dtype=torch.float32, device=cells.device)
    if len(pairs.iou):
        thresholds = thresholds.clamp(max=_LARGEST_THRESHOLD)
        detection, found, found_ignored, partner = _greedy(pairs, cells, patterns, thresholds, bits, crowd)
        matched[detection] = found
        to_ignored[detection] = found_ignored
        known = partner >= 0
        target[detection[known]] = pairs.target[partner[known]]
        iou[detection[known]] = pairs.iou[partner[known]].float()
    unmatched_outside = outside * bits.sum(dtype=torch.int16) & ~matched
    return Matches(matched, to_ignored | unmatched_outside, target, iou)


def _greedy(pairs: Pairs, cells: Tensor, patterns: IgnorePatterns, thresholds: Tensor, bits: Tensor,
            crowd: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the detections with pairs, their matched and matched-to-ignored bits, (n, A) each, and a pair of each, (n,).

    The pair is the one that matched at the first threshold in the first column, or, where that object was already taken, the
    one with the largest IoU from 0.5 on; -1 for none.

    Step k takes the k-th detection of every cell, so the targets of one step differ and all cells are handled at once.
    Detections, pairs and ground truths have a copy for every pattern of their cell, and copies do not meet.
    """
    device = cells.device
    detection, single_owner, num_pairs = torch.unique_consecutive(pairs.detection, return_inverse=True, return_counts=True)
    owner = single_owner
    cell = patterns.cell[pairs.target[num_pairs.cumsum(0) - num_pairs]]
    copies = patterns.counts[cell]
    first_copy = copies.cumsum(0) - copies
    pair = torch.repeat_interleave(torch.arange(len(owner), device=device), copies[owner])
    copies_before = copies[owner].cumsum(0) - copies[owner]
    pattern = torch.arange(len(pair), device=device) - copies_before[pair]
    owner, target = first_copy[owner][pair] + pattern, patterns.first_copy[pairs.target][pair] + pattern

    step = torch.arange(len(detection), device=device) - torch.searchsorted(cells[detection], cells[detection])
    step = torch.repeat_interleave(step, copies)
    by_step = torch.argsort(step, stable=True)
    place = torch.empty_like(by_step).scatter_(0, by_step, torch.arange(len(by_step), device=device))
    pair_order = torch.argsort(step[owner], stable=True)
    detection_counts, pair_counts = torch.stack([torch.bincount(step), torch.bincount(step[owner])]).tolist()

    # One number says which of two candidates is better: counting before ignored, then IoU, then the later target.
    num = len(pairs.iou)
    pair_of_rank = torch.argsort(pairs.iou, stable=True)
    rank = torch.empty_like(pairs.target).scatter_(0, pair_of_rank, torch.arange(num, device=device))
    again = torch.where((pairs.iou >= _IOU_50) & ~crowd[pairs.target], rank, -1)  # for those that find a taken object
    again = torch.full_like(detection, -1).scatter_reduce_(0, single_owner, again, 'amax')
    pair, owner, target = pair[pair_order], place[owner[pair_order]], target[pair_order]
    priority = (rank[pair] + num * ~patterns.ignored[target]).int()[:, None]
    reaches = pairs.iou[pair, None] >= thresholds
    reusable = patterns.crowd[target, None]

    taken = torch.zeros((len(patterns.crowd), len(thresholds)), dtype=torch.bool, device=device)
    matched, to_ignored = torch.empty((2, len(step)), dtype=torch.int16, device=device)
    chosen = torch.empty(len(step), dtype=torch.int32, device=device)
    first, first_pair = 0, 0
    for count, pair_count in zip(detection_counts, pair_counts, strict=True):
        here = slice(first_pair, first_pair + pair_count)
        free = reaches[here] & (~taken[target[here]] | reusable[here])
        value = torch.where(free, priority[here], -1)
        local = owner[here] - first
        best = value.new_full((count, len(thresholds)), -1)
        best.scatter_reduce_(0, local[:, None].expand_as(value), value, 'amax')
        taken[target[here]] |= free & (value == best[local])
        matched[first:first + count] = ((best >= 0) * bits).sum(1, dtype=torch.int16)
        to_ignored[first:first + count] = (((best >= 0) & (best < num)) * bits).sum(1, dtype=torch.int16)
        chosen[first:first + count] = best[:, 0]
        first, first_pair = first + count, first_pair + pair_count
    of_column = place[first_copy[:, None] + patterns.of_column[cell]]
    chosen = chosen[of_column[:, 0]].long()
    chosen = torch.where(chosen >= 0, chosen % num, again)
    return detection, matched[of_column], to_ignored[of_column], torch.where(chosen >= 0, pair_of_rank[chosen], -1)
