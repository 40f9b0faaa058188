"""Which detection finds which ground truth: COCOeval's greedy matching, for all images, thresholds and columns at once.

Detections are taken in the order of their scores within an image and category (a *cell*). Each takes the best ground truth
that is still free: one that counts before one that is ignored, then the larger IoU, then the later in the file. A crowd can
be taken again and again. COCOeval regards the ground truth with id 0 as unmatched; here its id does not matter.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .ignore_patterns import IgnorePatterns
from .pairs import Pairs

#: COCOeval lowers every threshold to at most this.
_LARGEST_THRESHOLD = 1 - 1e-10


class Matches(NamedTuple):
    """What matching found, bit t of an integer for IoU threshold t; with A columns (area ranges) and D detections.

    Args:
        matched: Thresholds at which the detection found a ground truth, shape (D, A) int16.
        ignored: Thresholds at which it counts neither as true nor as false, shape (D, A) int16.
    """

    matched: Tensor
    ignored: Tensor


def rank_detections(cells: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The order by cell, then by descending score, ties as they come, cut to `limit` in each cell.

    Args:
        cells: Image and category as one number, shape (D,) int64.
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


def min_iou(thresholds: Tensor) -> float:
    """The smallest IoU that can match at any of the thresholds."""
    return min(float(thresholds.min()), _LARGEST_THRESHOLD)


def match(pairs: Pairs, cells: Tensor, outside: Tensor, patterns: IgnorePatterns, thresholds: Tensor) -> Matches:
    """Match detections to ground truths.

    Args:
        pairs: Pairs of one cell with an IoU of at least `min_iou`.
        cells: Cell of each detection, sorted, within a cell by rank, shape (D,) int64.
        outside: Whether a detection is outside each area range, and so ignored if unmatched, shape (D, A) bool.
        patterns: Which ground truths are ignored in each column, see `ignore_patterns.find_patterns`.
        thresholds: IoU thresholds, shape (T,) float64, T at most 15.
    """
    if len(thresholds) > 15:
        raise ValueError(f'{len(thresholds)} IoU thresholds given; at most 15 fit the bits of a record')
    bits = 1 << torch.arange(len(thresholds), device=cells.device, dtype=torch.int16)
    matched, to_ignored = torch.zeros((2, *outside.shape), dtype=torch.int16, device=cells.device)
    if len(pairs.iou):
        thresholds = thresholds.clamp(max=_LARGEST_THRESHOLD)
        detection, found, found_ignored = _greedy(pairs, cells, patterns, thresholds, bits)
        matched[detection] = found
        to_ignored[detection] = found_ignored
    unmatched_outside = outside * bits.sum(dtype=torch.int16) & ~matched
    return Matches(matched, to_ignored | unmatched_outside)


def _greedy(pairs: Pairs, cells: Tensor, patterns: IgnorePatterns, thresholds: Tensor,
            bits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Detections with pairs, and their matched and matched-to-ignored bits, (n, A) each.

    Step k takes the k-th detection of every cell, so the targets of one step differ and all cells are handled at once.
    Detections, pairs and ground truths have a copy for every pattern of their cell, and copies do not meet.
    """
    device = cells.device
    detection, owner, num_pairs = torch.unique_consecutive(pairs.detection, return_inverse=True, return_counts=True)
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
    rank = torch.empty_like(pairs.target)
    rank[torch.argsort(pairs.iou, stable=True)] = torch.arange(num, device=device)
    pair, owner, target = pair[pair_order], place[owner[pair_order]], target[pair_order]
    priority = (rank[pair] + num * ~patterns.ignored[target]).int()[:, None]
    reaches = pairs.iou[pair, None] >= thresholds
    reusable = patterns.crowd[target, None]

    taken = torch.zeros((len(patterns.crowd), len(thresholds)), dtype=torch.bool, device=device)
    matched, to_ignored = torch.empty((2, len(step)), dtype=torch.int16, device=device)
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
        first, first_pair = first + count, first_pair + pair_count
    of_column = place[first_copy[:, None] + patterns.of_column[cell]]
    return detection, matched[of_column], to_ignored[of_column]
