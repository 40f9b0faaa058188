"""COCO's greedy matching, vectorized over images, thresholds and columns.

A *cell* encodes an image and a category as ``image * num_categories + category``; detections and targets are sorted by cell. Few
pairs within a cell overlap enough to match, so everything after pairing works on sparse lists.

Within a cell, detections are matched by descending score. Each takes the best free ground truth: counted before ignored, then the
larger IoU, then the later in the file. A crowd can be matched repeatedly. COCOeval treats a match with annotation id 0 as
unmatched; here ids do not matter.
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

#: Pairs per chunk; bounds the memory of a large batch.
CHUNK = 1 << 18
#: COCOeval caps every threshold at this value.
_LARGEST_THRESHOLD = 1 - 1e-10
#: Maximum detections per image, over all categories, by LVIS's protocol.
LVIS_DETECTIONS = 300
#: The first threshold, at which `Records.target` pairs detections with objects.
_IOU_50 = float(IOU_THRESHOLDS[0])


class Pairs(NamedTuple):
    """Overlapping pairs, sorted by detection, then target."""

    detection: Tensor  # position of the detection, (P,) int64
    target: Tensor  # position of the ground truth, (P,) int64
    iou: Tensor  # (P,) float64, in (0, 1]


class Matches(NamedTuple):
    """Matches of D detections in A columns; bit t of an integer is IoU threshold t."""

    matched: Tensor  # matched a ground truth, (D, A) int16
    ignored: Tensor  # counts neither as true nor as false positive, (D, A) int16
    target: Tensor  # ground truth at IoU 0.5, see `Records.target`, (D,) int64
    iou: Tensor  # IoU with that ground truth, (D,) float32


def min_iou() -> float:
    """Return the smallest IoU that matches at any threshold."""
    return min(float(evaluated_thresholds().min()), _LARGEST_THRESHOLD)


def rank_detections(cells: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Sort by cell, then stably by descending score, and keep the first `limit` of each cell.

    Args:
        cells: Shape (D,) int64.
        scores: Shape (D,) float64.
        limit: Maximum detections per cell.

    Returns:
        Sorted positions of the kept detections and their ranks within their cells; both (K,) int64.

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
    """Return the pairs of boxes within a cell whose IoU reaches `min_iou()`.

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
    """Return the pairs within a cell whose IoU, computed from their positions, reaches `least` (default: `min_iou()`)."""
    index = torch.empty(0, dtype=torch.int64, device=detection_cells.device)
    found, least = [Pairs(index, index, index.double())], min_iou() if least is None else least
    for detection, target in cell_pairs(detection_cells, target_cells):
        iou = iou_of(detection, target)
        keep = iou >= least
        found.append(Pairs(detection[keep], target[keep], iou[keep]))
    return Pairs(*(torch.cat(columns) for columns in zip(*found, strict=True)))


def box_iou(detections: Tensor, targets: Tensor, crowd: Tensor) -> Tensor:
    """Compute the IoU of xywh boxes row by row; for a crowd, the share of the detection inside it.

    Operations and their order follow pycocotools (`bbIou` in maskApi.c), so results are bit-identical.

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
    """Yield all pairs within cells as (detection, target) positions, sorted by detection, in chunks of about `chunk` pairs."""
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
    """LVIS's federated protocol: a detection counts only in images whose annotators looked for its category."""

    def __init__(self, ground_truth: GroundTruth, categories: np.ndarray) -> None:
        place = torch.from_numpy(category_lookup(ground_truth, categories))
        width, self.num_categories = len(ground_truth.category_ids), len(categories)

        def cells(all_cells: Tensor) -> Tensor:
            here = place[all_cells % width]
            image = torch.div(all_cells, width, rounding_mode='floor')
            return torch.unique((image * self.num_categories + here)[here >= 0])

        self.judged, self.not_exhaustive = (cells(torch.from_numpy(part)) for part in ground_truth.federated)

    def select(self, cells: Tensor, image: Tensor, scores: Tensor) -> Tensor:
        """Return the sorted positions of the detections that count."""
        kept = rank_detections(image, scores, LVIS_DETECTIONS)[0].sort().values
        return kept[torch.isin(cells[kept], self.judged.to(cells.device))]

    def ignores(self, cells: Tensor) -> Tensor:
        """Return which detections are ignored if unmatched, shape (D,) bool."""
        return torch.isin(cells, self.not_exhaustive.to(cells.device))


def match_ranked(image: Tensor, place: Tensor, score: Tensor, area: Tensor, targets: Targets, limit: int,
                 find_pairs: Callable[[Tensor, Tensor], Pairs], rules: FederatedRules | None = None,
                 order: Tensor | None = None) -> Records:
    """Rank detections and match them to the targets.

    `image`, `place` (position among the evaluated categories, -1 for others), `score` and `area` in pixels are (D,) each. `order`
    sorts detections of equal score, by default as given. `find_pairs` maps the sorted cells of the ranked detections and their
    positions to the overlapping pairs.
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
        pairs: Pairs within a cell whose IoU reaches the smallest threshold.
        cells: Cell of each detection, sorted by cell, then rank, (D,) int64.
        outside: Detections that are ignored in a column if unmatched, (D, A) bool.
        patterns: Ignored ground truths of each column, see `targets.find_patterns`.
        thresholds: At most 15 IoU thresholds, the first of them 0.5, (T,) float64.
        crowd: Ground truths that are crowds, (G,) bool.
    """
    if len(thresholds) > 15:
        raise ValueError(f'match: got {len(thresholds)} IoU thresholds; at most 15 fit into the bits of a record')
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
    """Return the n detections with pairs, their matched and matched-to-ignored bits, (n, A) each, and one pair of each, (n,).

    That pair matched at the first threshold in the first column; if its object was already taken, it is the pair with the largest
    IoU of at least 0.5; -1 if there is none.

    Step k matches the k-th detection of every cell, so targets within a step are distinct and all cells advance together.
    Detections, pairs and ground truths are copied for every pattern of their cell; different copies never interact.
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

    # A single integer orders candidates: counted before ignored, then by IoU, then the later target.
    num = len(pairs.iou)
    pair_of_rank = torch.argsort(pairs.iou, stable=True)
    rank = torch.empty_like(pairs.target).scatter_(0, pair_of_rank, torch.arange(num, device=device))
    again = torch.where((pairs.iou >= _IOU_50) & ~crowd[pairs.target], rank, -1)  # for duplicates of a taken object
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
