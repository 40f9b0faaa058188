"""Confidence intervals by the percentile bootstrap: the sampling error of a statistic over images.

A replicate draws as many images as there are, with replacement, and evaluates them (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 13 and 16). The images are what was sampled, so objects of one image stay together. With the same
draws for two runs the difference of their statistics is *paired*: what both find hard cancels.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .accumulate import Positives, Records
from .buckets import Grouping, whole_set
from .measures import MeasureInput, compute_measure
from .protocol import PROPOSAL_NUMS, Statistic, bootstrapped_statistics
from .weighted_ap import weighted_average_precision, weighted_recall

METHOD = 'percentile bootstrap over images'


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the resampling.

    Args:
        num_replicates: At least 1.
        seed: From 0 up to 2**63 - 1.
        level: Share of the replicates inside an interval, above 0 and below 1.

    Raises:
        ValueError: A number is out of its range.
    """

    num_replicates: int = 1000
    seed: int = 0
    level: float = .95

    def __post_init__(self) -> None:
        for name, lowest in (('num_replicates', 1), ('seed', 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < 2**63:
                raise ValueError(f'{name}: a whole number from {lowest} is needed, got {value!r}')
        _check_level(self.level)

    def describe(self, method: str = METHOD) -> dict:
        """Return the plain values that reports state."""
        return dict(level=self.level, replicates=self.num_replicates, seed=self.seed, method=method)


def image_weights(num_images: int, num_replicates: int, seed: int, device: torch.device | str = 'cpu') -> Tensor:
    """Draw how often each of R replicates holds each of I images; the same on every device.

    Returns:
        Shape (R, I) int16, every row with the sum I.

    Example:
        >>> image_weights(5, 2, seed=0)
        tensor([[1, 0, 0, 2, 2],
                [0, 0, 2, 2, 1]], dtype=torch.int16)
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(num_replicates, num_images, dtype=torch.int16)
    for row in weights if num_images else []:
        drawn = torch.randint(num_images, (num_images,), generator=generator)
        row.copy_(torch.bincount(drawn, minlength=num_images))
    return weights.to(device)


def bootstrap_statistics(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                         column: int = 0, proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> Tensor:
    """Compute the bootstrapped statistics of every replicate.

    Args:
        records: Sorted as `join_records` sorts.
        positives: The ground truths that count.
        images: Positions of the images to resample, shape (I,) int64.
        weights: From `image_weights`, shape (R, I).
        num_categories: K.
        column: Column of the records: 0, or that of an instance bucket.
        proposal_nums: Limits of detections, see `Statistic.limit`.

    Returns:
        Shape (R, S) float64, in the order of `protocol.bootstrapped_statistics`; NaN in a replicate without ground truth.
    """
    statistics = bootstrapped_statistics()
    thresholds = defaultdict(set)  # of each kind of pass over the records
    for statistic in (statistic for statistic in statistics if not statistic.measure):
        thresholds[statistic.recall, statistic.limit(proposal_nums)].update(statistic.thresholds)
    found = {}
    for (recall, limit), needed in thresholds.items():
        evaluate = weighted_recall if recall else weighted_average_precision
        values = evaluate(records, positives, images, weights, num_categories, sorted(needed), limit, column)
        found[recall, limit] = dict(zip(sorted(needed), values.unbind(1), strict=True))
    num_images = 1 + max([int(part.max()) for part in (images, records.image, positives.image) if len(part)], default=-1)

    def column_of(statistic: Statistic) -> Tensor:
        limit = statistic.limit(proposal_nums)
        if statistic.measure:
            return compute_measure(MeasureInput(records, positives, num_images, num_categories, column, limit), statistic,
                                   images, weights)
        return torch.stack([found[statistic.recall, limit][threshold] for threshold in statistic.thresholds], dim=1).mean(1)

    return torch.stack([column_of(statistic) for statistic in statistics], dim=1)


def percentile_interval(values: Tensor, level: float = .95) -> tuple[float, float] | None:
    """Return the interval that leaves the same share of the values on either side, None where no value is defined.

    Args:
        values: One number of each replicate, shape (R,); NaN where it is undefined.
        level: Share of the values inside, above 0 and below 1.

    Example:
        >>> percentile_interval(torch.arange(101, dtype=torch.float64), level=.5)
        (25.0, 75.0)
    """
    _check_level(level)
    values = values[~values.isnan()]
    if not len(values):
        return None
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype, device=values.device)
    low, high = torch.quantile(values, ends).tolist()
    return low, high


def replicates(records: Records, positives: Positives, groups: Grouping, num_categories: int, bootstrap: Bootstrap,
               proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> Tensor:
    """Compute the bootstrapped statistics of the data as they are and of every replicate, for every group.

    Each group is resampled from its own images. The draws depend on the seed and the number of images alone, so two runs on
    one data set get the same, and row by row their difference is paired. Arguments as for `add_intervals`, of one IoU type.

    Returns:
        Shape (1 + R, B, S) float64, the first row without resampling; NaN where there is no ground truth.
    """
    device = records.image.device
    result = []
    for members, column in zip(groups.members.T.to(device), groups.columns.tolist(), strict=True):
        images = members.nonzero()[:, 0]
        weights = image_weights(len(images), bootstrap.num_replicates, bootstrap.seed, device)
        weights = torch.cat([torch.ones_like(weights[:1]), weights])
        result.append(bootstrap_statistics(records, positives, images, weights, num_categories, column, proposal_nums))
    return torch.stack(result, dim=1)


def add_intervals(report: Mapping, records: Mapping[str, Records], positives: Positives, groups: Sequence[Grouping],
                  num_categories: int, bootstrap: Bootstrap | None = None,
                  proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> dict:
    """Return a report with intervals; the one given stays as it is.

    Args:
        report: From `summary.summarize`.
        records: Match records by IoU type, sorted as `join_records` sorts.
        positives: The ground truths that count.
        groups: The groups behind the report's buckets, then those behind each of its ``further`` reports.
        num_categories: K.
        bootstrap: How to resample.
        proposal_nums: Limits of detections, see `Statistic.limit`.

    Returns:
        The report with ``intervals``, which says how they were made, and in every row ``AP_ci`` and so on for each bootstrapped
        statistic: lower and upper end, None where no replicate has ground truth.

    Raises:
        ValueError: The groups are not those of the report.
    """
    bootstrap = bootstrap or Bootstrap()
    reports = [report, *report.get('further', [])]
    if len(groups) != len(reports):
        raise ValueError(f'the report holds {len(reports)} evaluations, {len(groups)} groupings were given')
    done = [{**part, 'intervals': bootstrap.describe()} for part in reports]
    for iou_type, table in records.items():
        def ends(chosen: Grouping, table: Records = table) -> list[dict]:
            return _intervals(replicates(table, positives, chosen, num_categories, bootstrap, proposal_nums), bootstrap.level)

        everything = ends(whole_set(len(groups[0].members)))[0]
        for part, chosen in zip(done, groups, strict=True):
            rows = part[iou_type]
            if len(rows['buckets']) != len(chosen.columns):
                raise ValueError(f'the report has {len(rows["buckets"])} buckets, the grouping {len(chosen.columns)} groups')
            buckets = [{**row, **more} for row, more in zip(rows['buckets'], ends(chosen), strict=True)]
            part[iou_type] = {**rows, 'all': {**rows['all'], **everything}, 'buckets': buckets}
    return {**done[0], **({'further': done[1:]} if 'further' in report else {})}


def _intervals(values: Tensor, level: float) -> list[dict]:
    """Return the intervals of each group by their keys in a report, from what `replicates` returns."""
    result = []
    for group in values[1:].unbind(1):
        found = [percentile_interval(column, level) for column in group.unbind(1)]
        result.append({statistic.ci_key: list(ends) if ends else None
                       for statistic, ends in zip(bootstrapped_statistics(), found, strict=True)})
    return result


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f'level: a share of the replicates above 0 and below 1 is needed, such as 0.95; got {level}')
