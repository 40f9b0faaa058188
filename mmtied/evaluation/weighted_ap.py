"""AP and recall under integer image weights, batched over weightings.

Only true positives raise recall, and precision is highest at the true positives themselves. So for one IoU threshold it is enough
to know, at each true positive, the weighted counts of true positives and of detections so far in its category. The detections
between two true positives form a *bag*, whose weights `embedding_bag` sums once for all weightings. The true positives of a
category are stored in padded blocks with a fixed number of rows and scanned row by row, each step a plain operation on a
(blocks, weightings) array.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .accumulate import Positives, Records
from .parallel import for_each, operations_in_one_thread
from .protocol import RECALL_POINTS

#: True positives per block.
ROWS = 16
_LAST_POINT = len(RECALL_POINTS) - 1
#: Avoids 0 / 0 before the first detection; negligible beside a count of 1.
_TINY = 1e-30


class _Sizes(NamedTuple):
    """Chunk sizes: blocks per chunk, elements of a (blocks, weightings) array, minimum number of weightings."""

    blocks: int
    elements: int
    weightings: int


#: Chunk sizes for the cache of a CPU core, and for a GPU.
_CPU, _GPU = _Sizes(512, 2**15, 64), _Sizes(2**20, 2**22, 64)


class HitBlocks(NamedTuple):
    """True positives of one threshold and some categories, in N blocks of `ROWS`."""

    bag: Tensor  # weight row of each counted detection up to the last true positive of its category, int32
    ends: Tensor  # offsets of the bag of each true positive, and the end of the last, (N * ROWS + 1,) int32
    hit: Tensor  # weight row of each true positive; padding has the last row, of zeros, (N * ROWS,) int32
    category: Tensor  # category of each block, ascending, (N,) int64


class UsedDetections(NamedTuple):
    """The detections of the weighted images: weight row, category, and the bits of one column, each of shape (D,)."""

    row: Tensor
    category: Tensor
    matched: Tensor
    ignored: Tensor


@torch.no_grad()
def weighted_average_precision(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                               thresholds: Sequence[int], limit: int, column: int = 0, precise: bool = True,
                               balanced: bool = False) -> Tensor:
    """Compute AP under every weighting, as COCOeval does for a data set that repeats each image by its weight.

    Copies of an image are adjacent in the order of image ids. Tied detections of one image and category alternate between copies,
    as in COCOeval.

    Args:
        records: Match records in the order of `join_records`.
        positives: The ground truths that count.
        images: Distinct positions of the images, shape (I,) int64.
        weights: Multiplicity of each image, nonnegative integers, shape (R, I).
        num_categories: K.
        thresholds: The T bits of the records to evaluate.
        limit: Maximum detections per image and category.
        column: Column of the records.
        precise: Compute in double precision, as COCOeval does. Single precision is three times as fast, with errors around 1e-6.
        balanced: Weight a false positive by the column's share of the instances of its category, which makes the expected value
            independent of the number of instances in an instance bucket.

    Returns:
        Mean precision over recall points and categories with ground truth, shape (R, T) float64; NaN without ground truth.
    """
    with operations_in_one_thread() as threads:
        return _weighted_ap(records, positives, images, weights, num_categories, thresholds, limit, column, threads, precise,
                            balanced)


@torch.no_grad()
def weighted_recall(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                    thresholds: Sequence[int], limit: int, column: int = 0) -> Tensor:
    """Compute the recall of all detections under every weighting; arguments as for `weighted_average_precision`.

    Returns:
        Mean over the categories with ground truth, shape (R, T) float64; NaN without ground truth.
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

    # Single precision represents counts up to 2**24 exactly.
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
    """Return the weight row of each ground truth, sorted by category, and the offsets of the categories, (K + 1,)."""
    row = row_of_image(records, positives, images)[positives.image]
    counted = (positives.counted[:, column] & (row >= 0)).nonzero()[:, 0]
    counted = counted[torch.argsort(positives.category[counted], stable=True)]
    categories = torch.arange(num_categories + 1, device=row.device)
    return row[counted], torch.searchsorted(positives.category[counted], categories)


def row_of_image(records: Records, positives: Positives, images: Tensor) -> Tensor:
    """Return the weight row of each image by its position, -1 for images without weights."""
    device = records.image.device
    images = images.to(device)
    last = max([int(column.max()) for column in (images, records.image, positives.image) if len(column)], default=0)
    row = torch.full((last + 1,), -1, dtype=torch.int64, device=device)
    row[images] = torch.arange(len(images), device=device)
    return row


def split_ties(table: UsedDetections, score: Tensor, num_images: int, copies: int) -> tuple[UsedDetections, Tensor]:
    """Alternate tied detections of one image and category between copies of the image, if their matches differ.

    Two copies of an image with tied detections a and b rank as a b a b. So a and b become one detection per copy; copy c
    counts once in weightings with more than c copies.

    Returns:
        The detections, and the rows of the images with such ties, shape (S,): copy c of the s-th has row
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
    """Split the true positives of one threshold into blocks; yield whole categories, about `most_blocks` blocks at a time."""
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
    ends = ends.cummax(0).values if num_rows else ends  # padding has empty bags
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
    """Compute each block's contribution to the AP of its category, shape (N, R), in the dtype of `totals`.

    Args:
        blocks: The true positives.
        rows: Weights, shape (rows, R).
        totals: Weighted ground truths of each category, at least 1, shape (K, R); sets the dtype of the computation.
        false_share: Weight of a false positive of each category, (K, R) in that dtype; 1 by default.
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
    gained = reached.diff(dim=0)  # recall points first reached here
    total = torch.zeros_like(best)
    for row in reversed(range(ROWS)):
        torch.maximum(best, precision[row], out=best)
        total.addcmul_(best, gained[row])
    return total / len(RECALL_POINTS)


def _points_reached(true_count: Tensor, totals: Tensor, out: Tensor) -> None:
    """Count the `RECALL_POINTS` up to the recall, in double precision, with COCOeval's comparison."""
    recall = true_count.to(totals.dtype) / totals
    torch.mul(recall, _LAST_POINT, out=out).add_(1e-6).floor_()  # the last candidate; rounding decides on it
    out.add_((out * (1 / _LAST_POINT)).le_(recall))


def _points_reached_roughly(true_count: Tensor, between_points: Tensor, out: Tensor) -> None:
    """Count the points in single precision, from the true positives per point; a recall equal to a point reaches it."""
    torch.div(true_count, between_points, out=out).add_(1 + 1e-4).floor_()


def _scan_earlier_blocks(values: Tensor, category: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine the nonnegative values (N, R) of all earlier blocks of the category for each block; 0 for the first."""
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
