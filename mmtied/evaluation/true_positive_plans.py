"""True positives of one IoU threshold in blocks of a fixed number of rows, with the bags of detections between them.

`weighted_ap` says what bags and blocks are for.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

#: True positives in a block.
ROWS = 16


class Plan(NamedTuple):
    """True positives of one threshold and some categories, in blocks of `ROWS`; N blocks.

    Args:
        bag: Row of weights of each detection that counts, up to the last true positive of its category, int32.
        ends: Where the bag of each true positive starts, and where the last one ends, shape (N * ROWS + 1,) int32.
        hit: Row of weights of each true positive, the last row (of zeros) for padding, shape (N * ROWS,) int32.
        category: Category of each block, ascending, shape (N,) int64.
    """

    bag: Tensor
    ends: Tensor
    hit: Tensor
    category: Tensor


class UsedDetections(NamedTuple):
    """Detections that are used: row of weights, category, and the bits of one area range, each of shape (D,)."""

    row: Tensor
    category: Tensor
    matched: Tensor
    ignored: Tensor


def split_ties(table: UsedDetections, score: Tensor, num_images: int, copies: int) -> tuple[UsedDetections, Tensor]:
    """Make detections of equal score in one image and category take turns, where they differ in what they found.

    Two copies of an image with tied detections a and b rank as a b a b. So each of a and b becomes one detection for every
    copy, which counts once where the image has at least that many copies.

    Returns:
        The detections, and the rows of the images that have such ties, shape (S,): copy c of the s-th has row
        ``num_images + s * copies + c``.
    """
    device = score.device
    tied = (table.row[1:] == table.row[:-1]) & (table.category[1:] == table.category[:-1]) & (score[1:] == score[:-1])
    differs = tied & ((table.matched[1:] != table.matched[:-1]) | (table.ignored[1:] != table.ignored[:-1]))
    if copies < 2 or not bool(differs.any()):
        return table, torch.empty(0, dtype=torch.int64, device=device)
    run = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), torch.cumsum(~tied, 0)])
    mixed = torch.zeros(int(run[-1]) + 1, dtype=torch.bool, device=device)
    mixed[run[1:][differs]] = True
    mixed = mixed[run]
    split, place = torch.unique(table.row[mixed], return_inverse=True)
    row = table.row.clone()
    row[mixed] = num_images + place * copies
    source = torch.repeat_interleave(torch.where(mixed, copies, 1))
    copy = torch.arange(len(source), device=device) - torch.searchsorted(source, source)
    order = torch.argsort(run[source] * copies + copy, stable=True)
    source, copy = source[order], copy[order]
    return UsedDetections(row[source] + copy, table.category[source], table.matched[source], table.ignored[source]), split


def make_plans(table: UsedDetections, bit: int, num_categories: int, zero_row: int, most_blocks: int) -> Iterator[Plan]:
    """Put the true positives of one threshold into blocks, and whole categories into plans of about `most_blocks`."""
    counts = (table.ignored & bit) == 0
    row, category, true = table.row[counts], table.category[counts], (table.matched[counts] & bit) != 0
    device = row.device
    hit = true.nonzero()[:, 0]
    last_hit = torch.full((num_categories,), -1, device=device).scatter_reduce_(0, category[hit], hit, 'amax')
    used = torch.arange(len(row), device=device) <= last_hit[category]
    row, category, hit = row[used], category[used], true[used].nonzero()[:, 0]

    of = category[hit]
    number = torch.bincount(of, minlength=num_categories)
    blocks = (number + ROWS - 1) // ROWS
    first_block, first_hit = blocks.cumsum(0) - blocks, number.cumsum(0) - number
    place = first_block[of] * ROWS + torch.arange(len(hit), device=device) - first_hit[of]
    num_rows = int(blocks.sum()) * ROWS
    ends = torch.zeros(num_rows + 1, dtype=torch.int64, device=device)
    ends[place + 1] = hit + 1
    ends = ends.cummax(0).values if num_rows else ends  # the bags of padding are empty
    hit_row = torch.full((num_rows,), zero_row, device=device)
    hit_row[place] = row[hit]
    category = torch.repeat_interleave(blocks)
    cuts = torch.nonzero((first_block // most_blocks).diff())[:, 0]
    for begin, end in pairwise([0, *first_block[cuts + 1].tolist(), len(category)]):
        if begin < end:
            own = ends[begin * ROWS:end * ROWS + 1]
            yield Plan(row[own[0]:own[-1]].int(), (own - own[0]).int(), hit_row[begin * ROWS:end * ROWS].int(),
                        category[begin:end])
