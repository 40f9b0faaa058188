"""Metrics other than AP and AR, from the same match records: miss rate, recall at a precision, localization error, duplicates.

A measure is a function of the records of one IoU type and of image weights. A single weighting of ones gives a bucket's value;
many weightings give the replicates behind intervals. `register_measure` adds a measure, which a `Statistic` then names.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .accumulate import Positives, Records
from .protocol import Statistic
from .weighted_ap import row_of_image

#: False positives per image at which the miss rate is read: the nine points of Dollar et al., as rounded by mmdet and CrowdDet.
FALSE_POSITIVES_AN_IMAGE = (.0100, .0178, .0316, .0562, .1000, .1778, .3162, .5623, 1.000)
#: Chunk size in elements of a (weightings, detections) array.
_CHUNK = 2**23


class MeasureInput(NamedTuple):
    """Input of a measure: D detections, G ground truths, I images."""

    records: Records  # in the order of `accumulate.join_records`
    positives: Positives  # the ground truths that count
    num_images: int  # I
    num_categories: int  # K
    column: int  # column of the match bits: 0, or that of an instance bucket
    limit: int  # maximum detections per image and category


#: Maps input, statistic, positions of n images and their weights (R, n) to (R,) float64, NaN where undefined.
Measure = Callable[[MeasureInput, Statistic, Tensor, Tensor], Tensor]
#: Maps input and statistic to the numerator and denominator of a ratio in each image, both (I,); None if undefined.
Parts = Callable[[MeasureInput, Statistic], tuple[Tensor, Tensor] | None]

#: Every measure, by its name in `Statistic.measure`.
MEASURES: dict[str, Measure] = {}


def register_measure(name: str) -> Callable[[Measure], Measure]:
    """Register the decorated function as a measure, for ``Statistic(..., measure=name)``."""
    def register(measure: Measure) -> Measure:
        MEASURES[name] = measure
        return measure

    return register


def register_ratio(name: str) -> Callable[[Parts], Parts]:
    """Register a ratio of two sums over images as a measure; the decorated function returns the terms of both sums."""
    def register(parts: Parts) -> Parts:
        @register_measure(name)
        def measure(data: MeasureInput, statistic: Statistic, images: Tensor, weights: Tensor) -> Tensor:
            found = parts(data, statistic)
            if found is None:
                return torch.full((len(weights), ), torch.nan, dtype=torch.float64, device=weights.device)
            above, below = (weights.double() @ part.double()[images] for part in found)
            return torch.where(below > 0, above / below, torch.nan)

        return parts

    return register


@torch.no_grad()
def compute_measure(data: MeasureInput, statistic: Statistic, images: Tensor, weights: Tensor) -> Tensor:
    """Compute a statistic that has a measure, under weightings of the images.

    Args:
        data: The records.
        statistic: Names the measure.
        images: Distinct positions of the images, (n,) int64.
        weights: Weight of each image, (R, n).

    Returns:
        Shape (R,) float64; NaN where undefined.

    Raises:
        ValueError: The measure is unknown.
    """
    if statistic.measure not in MEASURES:
        raise ValueError(f'statistic {statistic.name}: measure={statistic.measure!r} is unknown; '
                         f'use one of {", ".join(MEASURES)}')
    device = data.records.image.device
    return MEASURES[statistic.measure](data, statistic, images.to(device), weights.to(device))


@register_measure('miss_rate')
def miss_rate(data: MeasureInput, statistic: Statistic, images: Tensor, weights: Tensor) -> Tensor:
    """Compute the log-average miss rate of each category, and average over those with ground truth.

    As in mmdet's `CrowdHumanMetric`, each point reads the miss rate at the first detection, by descending score, where the false
    positives per image reach the point, or at the last detection if they never do. The result is the geometric mean over the
    points; 1 without detections.
    """
    records, device = data.records, data.records.image.device
    row = row_of_image(records, data.positives, images)
    kept = ((row[records.image] >= 0) & (records.rank < data.limit)).nonzero()[:, 0]
    bit = 1 << statistic.thresholds[0]
    matched, ignored = records.matched[kept, data.column], records.ignored[kept, data.column]
    counts = (ignored & bit) == 0
    kept, true = kept[counts], ((matched & bit) != 0)[counts]
    category = records.category[kept]
    starts = torch.searchsorted(category, torch.arange(data.num_categories + 1, device=device)).tolist()
    counted = data.positives.counted[:, data.column] & (row[data.positives.image] >= 0)
    truths = torch.zeros(data.num_categories, len(images), dtype=torch.float64, device=device)
    truths.index_put_((data.positives.category[counted], row[data.positives.image[counted]]),
                      torch.ones((), dtype=torch.float64, device=device), accumulate=True)
    points = torch.tensor(FALSE_POSITIVES_AN_IMAGE, dtype=torch.float64, device=device)
    result = []
    for part in weights.double().split(max(1, _CHUNK // max(1, len(kept)))):
        totals, num_images = part @ truths.T, part.sum(1, keepdim=True)
        rates = torch.ones_like(totals)
        for number in (totals > 0).any(0).nonzero()[:, 0].tolist():
            here = slice(starts[number], starts[number + 1])
            weight = part[:, row[records.image[kept[here]]]]
            rates[:, number] = _log_average(weight, true[here], totals[:, number:number + 1], num_images, points)
        result.append(torch.where(totals > 0, rates, torch.nan).nanmean(1))
    return torch.cat(result)


def _log_average(weight: Tensor, true: Tensor, total: Tensor, num_images: Tensor, points: Tensor) -> Tensor:
    """Return the log-average miss rate of one category, (R,), from the weights (R, D) of detections by descending score."""
    if not len(true):
        return torch.ones(len(weight), dtype=torch.float64, device=weight.device)
    false_positives = (weight * ~true).cumsum(1) / num_images
    missed = 1 - (weight * true).cumsum(1) / total
    place = torch.searchsorted(false_positives, points.expand(len(weight), -1).contiguous()).clamp(max=len(true) - 1)
    return missed.gather(1, place).clamp(min=0).log().mean(1).exp()


@register_ratio('recall_at_precision')
def recall_at_precision(data: MeasureInput, statistic: Statistic) -> tuple[Tensor, Tensor] | None:
    """Divide the found objects by all objects, at the score threshold where all images together have the statistic's precision.

    The threshold is the same for every bucket, and whether an object is found does not depend on the rest of its bucket, so the
    expected value does not depend on the bucket's size.
    """
    outcomes = _outcomes(data, operating_score(data, statistic.precision))
    return outcomes and (_per_image(data, outcomes.found), _per_image(data, data.positives.counted[:, data.column]))


@register_ratio('localization_error')
def localization_error(data: MeasureInput, statistic: Statistic) -> tuple[Tensor, Tensor] | None:
    """Average 1 - IoU over the found objects."""
    outcomes = _outcomes(data)
    return outcomes and (_per_image(data, outcomes.found, 1 - outcomes.iou), _per_image(data, outcomes.found))


@register_ratio('duplicates')
def duplicates(data: MeasureInput, statistic: Statistic) -> tuple[Tensor, Tensor] | None:
    """Divide the duplicate detections by the found objects, at a score threshold as in `recall_at_precision`."""
    outcomes = _outcomes(data, operating_score(data, statistic.precision))
    return outcomes and (_per_image(data, outcomes.found, outcomes.again), _per_image(data, outcomes.found))


def operating_score(data: MeasureInput, precision: float) -> float | None:
    """Return the lowest score threshold at which the detections of all images reach a precision at IoU 0.5; None if none does.

    Detections of all categories are pooled, with the match bits of all areas and objects.
    """
    records = data.records
    kept = (records.rank < data.limit) & ((records.ignored[:, 0] & 1) == 0)
    score, order = records.score[kept].sort(descending=True)
    true = ((records.matched[kept, 0] & 1) != 0)[order].cumsum(0)
    reached = true >= precision * torch.arange(1, len(true) + 1, device=true.device)
    reached[:-1] &= score[:-1] != score[1:]  # equal scores pass or fail together
    last = reached.nonzero()[:, 0]
    return score[last[-1]].item() if len(last) else None


class _Outcomes(NamedTuple):
    """The outcome of each ground truth at IoU 0.5, each (G,)."""

    found: Tensor  # counts in the column and was found, bool
    iou: Tensor  # IoU with the detection that found it, float64; NaN if not found
    again: Tensor  # number of duplicate detections, int64


def _outcomes(data: MeasureInput, lowest: float | None = -torch.inf) -> _Outcomes | None:
    """Return the outcomes for detections with scores of at least `lowest`; None if `lowest` is None."""
    records, num = data.records, len(data.positives.image)
    if lowest is None:
        return None
    used = (records.rank < data.limit) & (records.target >= 0) & (records.score >= lowest)
    true = used & ((records.matched[:, 0] & 1) != 0)
    iou = torch.full((num,), torch.nan, dtype=torch.float64, device=records.image.device)
    iou[records.target[true]] = records.iou[true].double()
    again = torch.bincount(records.target[used & ~true], minlength=num)
    return _Outcomes(~iou.isnan() & data.positives.counted[:, data.column], iou, again)


def _per_image(data: MeasureInput, counted: Tensor, value: Tensor | None = None) -> Tensor:
    """Sum the values of the counted ground truths, or count them, in each image, (I,) float64."""
    value = torch.ones_like(counted) if value is None else value
    total = torch.zeros(data.num_images, dtype=torch.float64, device=counted.device)
    return total.index_add_(0, data.positives.image[counted], value[counted].double())  # weighted bincount is not deterministic
