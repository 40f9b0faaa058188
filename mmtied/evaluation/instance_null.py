"""Statistics of instance buckets: null bands, and balanced AP, which charges a bucket only its share of false positives."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .accumulate import Grouping, Positives, Records
from .intervals import Bootstrap, bootstrap_statistics, draw_parts, interval
from .parallel import for_each, operations_in_one_thread
from .protocol import AREA_RANGES, PROPOSAL_NUMS, STATISTICS, Statistic
from .summary import count_images
from .weighted_ap import UsedDetections, block_ap, make_blocks, weighted_average_precision

#: Description of the null band in reports.
INSTANCE_KIND = 'random sets with the same number of instances of each category and size'
#: Number of matched instance sizes: small, medium, large.
_SIZES = len(AREA_RANGES) - 1


def instance_nulls(records: Records, positives: Positives, grouping: Grouping, num_categories: int, bootstrap: Bootstrap,
                   proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> list[Tensor]:
    """Compute the statistics of random sets of instances with a bucket's counts by category and size.

    Sets are drawn from the instances of all buckets; instances outside a set are ignored. Instances of one stratum (category and
    size) are exchangeable in a random set, so the matching of the buckets is reused.

    Returns:
        For each bucket, (N, S) float64; NaN for statistics that are not average precisions.
    """
    device = records.image.device
    generator = torch.Generator().manual_seed(bootstrap.seed)
    truths, hits, bits = _strata(records, positives, grouping.columns.to(device))
    stratum = torch.sort(truths[truths >= 0]).values
    first = torch.searchsorted(stratum, torch.arange(_SIZES * num_categories, device=device))
    # The place of each truth in a random order of its stratum, for each of the N sets; a set takes the first places.
    place = torch.empty(bootstrap.null_sets, len(stratum), dtype=torch.int64, device=device)
    for row in place:
        shuffled = torch.randperm(len(stratum), generator=generator).to(device)
        shuffled = shuffled[torch.argsort(stratum[shuffled], stable=True)]
        row[shuffled] = torch.arange(len(stratum), device=device) - first[stratum]
    wanted = torch.stack([torch.bincount(truths[positives.counted[:, column]], minlength=_SIZES * num_categories)
                          for column in grouping.columns.tolist()])
    matched = records.matched[:, 0] | bits
    pooled = records._replace(matched=matched[:, None], ignored=((matched | records.ignored[:, 0]) & ~bits)[:, None])
    statistics = bootstrap.chosen()
    result = torch.full((len(wanted), bootstrap.null_sets, len(statistics)), torch.nan, dtype=torch.float64, device=device)
    for limit in {statistic.limit(proposal_nums) for statistic in statistics}:
        chosen = [place for place, statistic in enumerate(statistics)
                  if statistic.limit(proposal_nums) == limit and _is_precision(statistic)]
        thresholds = sorted({threshold for number in chosen for threshold in statistics[number].thresholds})
        values = _ap_of_instance_sets(pooled, hits, first, place, wanted, thresholds, limit)
        for number in chosen:
            at = [thresholds.index(threshold) for threshold in statistics[number].thresholds]
            result[:, :, number] = values[:, :, at].mean(2)
    return list(result)


def have_several_sets(positives: Positives, columns: Tensor) -> list[bool]:
    """Return which buckets have more than one possible set: some stratum has instances inside and outside the bucket."""
    truths = _strata_of_truths(positives, columns.to(positives.image.device))
    in_all = torch.bincount(truths[truths >= 0])
    wanted = [torch.bincount(truths[positives.counted[:, column]], minlength=len(in_all)) for column in columns.tolist()]
    return [bool(((number > 0) & (number < in_all)).any()) for number in wanted]


def _strata_of_truths(positives: Positives, columns: Tensor) -> Tensor:
    """Return the stratum of each ground truth, 3 * category + size, -1 if it is in no bucket, (G,)."""
    blocks = columns[:, None] + torch.arange(len(AREA_RANGES), device=columns.device)
    counted, small, medium, _ = positives.counted[:, blocks].any(1).unbind(1)
    return torch.where(counted, _SIZES * positives.category + torch.where(small, 0, torch.where(medium, 1, 2)), -1)


def _strata(records: Records, positives: Positives, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stratify the instances in buckets, and the detections that found one, by category and size.

    Args:
        records: The detections.
        positives: The ground truths.
        columns: Column of each bucket, (B,) int64.

    Returns:
        The stratum of each ground truth, see `_strata_of_truths`, (G,); the stratum of the instance each detection found, (D,);
        and the bits of the thresholds at which it found an instance in a bucket, (D,) int16.
    """
    blocks = columns[:, None] + torch.arange(len(AREA_RANGES), device=columns.device)
    found = functools.reduce(torch.bitwise_or, [records.matched[:, block] & ~records.ignored[:, block] for block in blocks])
    return _strata_of_truths(positives, columns), _SIZES * records.category + found[:, 1:].max(1).indices, found[:, 0]


def _ap_of_instance_sets(records: Records, strata: Tensor, first: Tensor, place: Tensor, wanted: Tensor,
                         thresholds: Sequence[int], limit: int) -> Tensor:
    """Compute the AP of N random sets of instances for each of B buckets.

    Args:
        records: The detections with a single column: matched with an instance in a bucket, or ignored.
        strata: Stratum of the instance each detection found, (D,) int64.
        first: First truth of each stratum, (M,) int64.
        place: Place of each truth in each set's order of its stratum, (N, G) int64.
        wanted: Instances of each stratum in each bucket, (B, M) int64.
        thresholds: Positions of T thresholds.
        limit: Maximum detections per image and category.

    Returns:
        Shape (B, N, T) float64.
    """
    used = (records.rank < limit).nonzero()[:, 0]
    matched, ignored = records.matched[used, 0], records.ignored[used, 0]
    of, strata = records.category[used], strata[used]
    truths = torch.diff(first, append=first.new_tensor([place.shape[1]]))
    hit = (((matched & ~ignored) != 0) & (truths[strata] > 0)).nonzero()[:, 0]
    hit = hit[torch.argsort(strata[hit], stable=True)]
    strata = strata[hit]
    number = torch.arange(len(hit), device=hit.device) - torch.searchsorted(strata, strata)
    slot = first[strata] + number % truths[strata]
    own_row = torch.full_like(of, len(hit))  # the row of ones
    own_row[hit] = torch.arange(len(hit), device=hit.device)
    num_categories = wanted.shape[1] // _SIZES
    chunks = []
    for number, threshold in enumerate(thresholds):
        bit = 1 << threshold
        table = UsedDetections(torch.where((matched & bit) != 0, own_row, len(hit)), of, matched, ignored)
        chunks += [(number, blocks) for blocks in make_blocks(table, bit, num_categories, len(hit) + 1, 512)]
    result = torch.zeros(len(wanted), len(place), len(thresholds), dtype=torch.float64, device=of.device)

    def evaluate(part: Tensor) -> None:
        places = place[part][:, slot].T
        for bucket, counts in enumerate(wanted):
            inside = places < counts[strata, None]
            rows = torch.cat([inside, inside.new_ones(1, len(part)), inside.new_zeros(1, len(part))]).float()
            of_category = counts.view(num_categories, _SIZES).sum(1)
            totals = of_category.clamp(min=1).float()[:, None].expand(-1, len(part))
            for number, blocks in chunks:
                result[bucket, part, number] += block_ap(blocks, rows, totals).sum(0)
            result[bucket, part] /= (of_category > 0).sum()

    with operations_in_one_thread() as threads:
        for_each(evaluate, torch.arange(len(place), device=of.device).split(64), threads)
    return result


def _is_precision(statistic: Statistic) -> bool:
    return not statistic.recall and not statistic.measure


def balanced_rows(records: Records, positives: Positives, grouping: Grouping, num_categories: int, bootstrap: Bootstrap,
                  proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> list[dict]:
    """Return the statistics of each instance bucket that are comparable between buckets, by report key.

    These are the interval of recall@P80, and balanced average precisions with their intervals. A false positive belongs to no
    bucket, so plain AP charges it to each bucket in full and falls with the number of instances. Balanced AP weights it by the
    bucket's share of the instances of its category.
    """
    images = torch.arange(len(grouping.members), device=records.image.device)
    rows = []
    for column in grouping.columns.tolist():
        row, num_images = {}, count_images(grouping.members[:, 0], positives, column)
        parts = draw_parts(images, positives, column, max(bootstrap.null_sets, 2), bootstrap.seed)
        for statistic in filter(_is_precision, bootstrap.chosen()):
            options = (num_categories, statistic.thresholds, statistic.limit(proposal_nums), column)
            value, spread = (weighted_average_precision(records, positives, images, weights, *options, precise=precise,
                                                        balanced=True).mean(1)
                             for weights, precise in ((torch.ones_like(parts[:1]), True), (parts, False)))
            value = None if bool(value.isnan()) else value.item()
            ends = interval(value, spread, num_images, bootstrap.level)
            row |= {f'{statistic.name}_balanced': value, f'{statistic.name}_balanced_ci': list(ends) if ends else None}
        recall = [STATISTICS['recall@P80']]
        values = bootstrap_statistics(records, positives, images, torch.cat([torch.ones_like(parts[:1]), parts]),
                                      num_categories, column, proposal_nums, statistics=recall)[:, 0]
        ends = interval(None if bool(values[0].isnan()) else values[0].item(), values[1:], num_images, bootstrap.level)
        rows.append({**row, recall[0].ci_key: list(ends) if ends else None})
    return rows
