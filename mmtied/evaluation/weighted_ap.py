"""AP and recall under integer image weights, batched over weightings.

Only true positives raise recall, and the best precision up to the next one is at the true positive itself. So for one IoU
threshold it is enough to know, at each true positive, the weighted number of true positives and of detections up to there in
its category. Detections between two true positives are a *bag*: their weights are added once, for all weightings together,
by `embedding_bag`. The true positives of a category then stand in blocks of a fixed number of rows, padded at the end, and are
scanned row by row over all blocks and weightings: every operation is a plain one on a (blocks, weightings) array.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .accumulate import Positives, Records
from .protocol import RECALL_POINTS
from .threads import for_each, operations_in_one_thread

#: True positives in a block.
ROWS = 16
_LAST_POINT = len(RECALL_POINTS) - 1
#: Keeps the precision before any detection from being 0 / 0; it vanishes beside a count of 1.
_TINY = 1e-30


class _Sizes(NamedTuple):
    """Chunk sizes: blocks of a chunk, elements of a (blocks, weightings) array, fewest weightings."""

    blocks: int
    elements: int
    weightings: int


#: Sized for a CPU core's cache and for a GPU.
_CPU, _GPU = _Sizes(512, 2**15, 64), _Sizes(2**20, 2**22, 64)


class HitBlocks(NamedTuple):
    """True positives of one threshold and some categories, in blocks of `ROWS`; N blocks."""

    bag: Tensor  # row of weights of each detection that counts, up to the last true positive of its category, int32
    ends: Tensor  # where the bag of each true positive starts, and where the last one ends, (N * ROWS + 1,) int32
    hit: Tensor  # row of weights of each true positive, the last row (of zeros) for padding, (N * ROWS,) int32
    category: Tensor  # category of each block, ascending, (N,) int64


class UsedDetections(NamedTuple):
    """The detections of the weighted images: row of weights, category, and the bits of one column, each of shape (D,)."""

    row: Tensor
    category: Tensor
    matched: Tensor
    ignored: Tensor


@torch.no_grad()
def weighted_average_precision(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                               thresholds: Sequence[int], limit: int, column: int = 0, precise: bool = True,
                               balanced: bool = False) -> Tensor:
    """Compute AP under every weighting, as COCOeval does for a data set that holds each image as often as its weight says.

    Copies of an image stand side by side in the order of image ids. Detections of equal score in one image and category take
    turns, as they do for COCOeval.

    Args:
        records: Sorted as `join_records` sorts.
        positives: The ground truths that count.
        images: Positions of the images, all different, shape (I,) int64.
        weights: How often each image counts, shape (R, I), whole numbers from 0.
        num_categories: K.
        thresholds: Which bits of the records to evaluate; T of them.
        limit: Detections used for each image and category.
        column: Which column of the records.
        precise: Compute in double precision, as COCOeval. Single precision is three times as fast and off by some 1e-6.
        balanced: Let a false positive count as much as the column's share of the instances of its category. Then the expected
            value does not depend on how many instances a bucket of instances holds.

    Returns:
        Mean precision over the recall points and over the categories with ground truth, shape (R, T) float64; NaN where
        there is no ground truth.
    """
    with operations_in_one_thread() as threads:
        return _weighted_ap(records, positives, images, weights, num_categories, thresholds, limit, column, threads, precise,
                            balanced)


@torch.no_grad()
def weighted_recall(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                    thresholds: Sequence[int], limit: int, column: int = 0) -> Tensor:
    """Compute the recall of all detections under every weighting; arguments as for `weighted_average_precision`.

    Returns:
        Mean over the categories with ground truth, shape (R, T) float64; NaN where there is no ground truth.
    """
    table, _ = _used_detections(records, positives, images, limit, column)
    rows = weights.to(table.row.device).T.double()
    truths, starts = _truths(records, positives, images, num_categories, column)
    totals = embedding_bag(truths, rows, starts, mode='sum', include_last_offset=True)
    categories = torch.arange(num_categories + 1, device=rows.device)
    found = []
    for threshold in thresholds:
        true = (table.matched & ~table.ignored & (1 << threshold)) != 0
        starts = torch.searchsorted(table.category[true], categories)
        hits = embedding_bag(table.row[true], rows, starts, mode='sum', include_last_offset=True)
        found.append((hits / totals.clamp(min=1)).sum(0) / (totals > 0).sum(0))
    return torch.stack(found, dim=1)


def _weighted_ap(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                 thresholds: Sequence[int], limit: int, column: int, threads: int, precise: bool,
                 balanced: bool) -> Tensor:
    table, score = _used_detections(records, positives, images, limit, column)
    device = table.row.device
    weights = weights.to(device)
    copies = int(weights.max()) if weights.numel() else 0
    num_used = len(table.row)
    table, split = split_ties(table, score, len(images), copies)
    zero_row = len(images) + copies * len(split)
    sizes = _CPU if device.type == 'cpu' else _GPU
    chunks = [(number, blocks) for number, threshold in enumerate(thresholds)
              for blocks in make_blocks(table, 1 << threshold, num_categories, zero_row, sizes.blocks)]
    truths, truth_starts = _truths(records, positives, images, num_categories, column)
    all_truths = _truths(records, positives, images, num_categories, 0) if balanced else None

    # Counts are exact in single precision up to 2**24.
    dtype = torch.float32 if max(copies, 1) * max(num_used, len(truths)) < 2**24 else torch.float64
    result = torch.zeros(len(weights), len(thresholds), dtype=torch.float64, device=device)
    largest = max([len(images) // 8, *(len(blocks.category) for _, blocks in chunks)])
    num_weightings = max(sizes.elements // max(largest, 1), sizes.weightings)

    def evaluate(part: Tensor) -> None:
        image_rows = weights[part].T.to(dtype)
        copy_rows = image_rows[split, None] > torch.arange(copies, device=device)[:, None]
        rows = torch.cat([image_rows, copy_rows.flatten(0, 1).to(dtype), image_rows.new_zeros(1, len(part))])
        totals = embedding_bag(truths, rows, truth_starts, mode='sum', include_last_offset=True)
        totals = totals.double() if precise else totals.float()
        present = (totals > 0).sum(0)
        share = None
        if all_truths is not None:
            everyone = embedding_bag(all_truths[0], rows, all_truths[1], mode='sum', include_last_offset=True)
            share = totals / everyone.clamp(min=1).to(totals.dtype)
        totals.clamp_(min=1)
        for number, blocks in chunks:
            result[part, number] += block_ap(blocks, rows, totals, share).sum(0)
        result[part] /= present[:, None]

    for_each(evaluate, torch.arange(len(weights), device=device).split(num_weightings), threads)
    return result


def _used_detections(records: Records, positives: Positives, images: Tensor, limit: int,
                     column: int) -> tuple[UsedDetections, Tensor]:
    """Return the detections of the images within the limit, and their scores."""
    row = row_of_image(records, positives, images)[records.image]
    kept = ((row >= 0) & (records.rank < limit)).nonzero()[:, 0]
    used = UsedDetections(row[kept], records.category[kept], records.matched[kept, column], records.ignored[kept, column])
    return used, records.score[kept]


def _truths(records: Records, positives: Positives, images: Tensor, num_categories: int, column: int) -> tuple[Tensor, Tensor]:
    """Return the row of weights of each ground truth, sorted by category, and where each category starts, (K + 1,)."""
    row = row_of_image(records, positives, images)[positives.image]
    counted = (positives.counted[:, column] & (row >= 0)).nonzero()[:, 0]
    counted = counted[torch.argsort(positives.category[counted], stable=True)]
    categories = torch.arange(num_categories + 1, device=row.device)
    return row[counted], torch.searchsorted(positives.category[counted], categories)


def row_of_image(records: Records, positives: Positives, images: Tensor) -> Tensor:
    """Return the row of each image's weights, by its position; -1 for an image that has none."""
    device = records.image.device
    images = images.to(device)
    last = max([int(column.max()) for column in (images, records.image, positives.image) if len(column)], default=0)
    row = torch.full((last + 1,), -1, dtype=torch.int64, device=device)
    row[images] = torch.arange(len(images), device=device)
    return row


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


def make_blocks(table: UsedDetections, bit: int, num_categories: int, zero_row: int, most_blocks: int) -> Iterator[HitBlocks]:
    """Put the true positives of one threshold into blocks, and yield whole categories, about `most_blocks` at a time."""
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
            yield HitBlocks(row[own[0]:own[-1]].int(), (own - own[0]).int(), hit_row[begin * ROWS:end * ROWS].int(),
                            category[begin:end])


def block_ap(blocks: HitBlocks, rows: Tensor, totals: Tensor, false_share: Tensor | None = None) -> Tensor:
    """Compute what each block adds to the AP of its category, shape (N, R), of the type of `totals`.

    Args:
        blocks: The true positives.
        rows: Weights, shape (rows, R).
        totals: Weighted ground truths of each category, at least 1, shape (K, R), of the type to compute in.
        false_share: What a false positive of each category counts, (K, R) of that type; 1 by default.
    """
    shape = (len(blocks.category), ROWS, rows.shape[1])
    hits = rows.index_select(0, blocks.hit).view(shape)
    detections = embedding_bag(blocks.bag, rows, blocks.ends, mode='sum', include_last_offset=True).view(shape)
    true_count = _scan_earlier_blocks(hits.sum(1), blocks.category, torch.add)
    count = _scan_earlier_blocks(detections.sum(1), blocks.category, torch.add).clamp_(min=_TINY)
    totals = totals[blocks.category]
    share = None if false_share is None else false_share[blocks.category].to(count.dtype)
    is_first = blocks.category.diff(prepend=blocks.category.new_full((1,), -1)) != 0
    precision, reached = totals.new_empty(ROWS, *totals.shape), totals.new_empty(ROWS + 1, *totals.shape)
    if totals.dtype == torch.float64:
        reach, scale = _points_reached, totals
    else:
        reach, scale = _points_reached_roughly, totals / _LAST_POINT
    reach(true_count, scale, reached[0])
    reached[0].masked_fill_(is_first[:, None], 0)
    for row in range(ROWS):
        true_count.add_(hits[:, row])
        count.add_(detections[:, row])
        weighed = count if share is None else torch.lerp(true_count, count, share).clamp_(min=_TINY)
        if true_count.dtype == totals.dtype:
            torch.div(true_count, weighed, out=precision[row])
        else:
            torch.div(true_count.to(totals.dtype), weighed.to(totals.dtype), out=precision[row])
        reach(true_count, scale, reached[row + 1])

    best = _scan_earlier_blocks(precision.amax(0).flip(0), blocks.category.flip(0), torch.maximum).flip(0)
    gained = reached.diff(dim=0)  # recall points reached here first
    total = torch.zeros_like(best)
    for row in reversed(range(ROWS)):
        torch.maximum(best, precision[row], out=best)
        total.addcmul_(best, gained[row])
    return total / len(RECALL_POINTS)


def _points_reached(true_count: Tensor, totals: Tensor, out: Tensor) -> None:
    """Count the `RECALL_POINTS` that are at most the recall, in double precision, compared as COCOeval compares."""
    recall = true_count.to(totals.dtype) / totals
    torch.mul(recall, _LAST_POINT, out=out).add_(1e-6).floor_()  # the last point that may be reached: only rounding decides
    out.add_((out * (1 / _LAST_POINT)).le_(recall))


def _points_reached_roughly(true_count: Tensor, between_points: Tensor, out: Tensor) -> None:
    """Count them in single precision, by the true positives between two points: a recall that equals a point reaches it."""
    torch.div(true_count, between_points, out=out).add_(1 + 1e-4).floor_()


def _scan_earlier_blocks(values: Tensor, category: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine, for each block, the values (N, R), at least 0, of all earlier blocks of its category; 0 for the first."""
    def earlier(array: Tensor, step: int) -> Tensor:
        moved = torch.empty_like(array)
        moved[:step] = 0
        same = (category[step:] == category[:-step])[:, None]
        torch.mul(array[:-step], same, out=moved[step:])
        return moved

    values, step = earlier(values, 1), 1
    longest = int(torch.bincount(category).max())
    while step < longest - 1:
        values, step = combine(values, earlier(values, step)), 2 * step
    return values
