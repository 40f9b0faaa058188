"""Confidence intervals of statistics, and of paired differences between runs, from random halves and quarters of the images.

The images are randomly split into quarters, many times. Differences between quarters estimate the variance of a statistic of n
images, v4; so do differences between halves, v2. For a mean the two agree. The variance of AP does not fall as 1 / n, so its two
estimates are extrapolated geometrically: v1 = v2 * (v2 / v4). Subsets of two sizes thus estimate the rate of convergence
(Bertail, Politis & Romano, "On subsampling estimators with unknown rate of convergence", Journal of the American Statistical
Association 1999). The interval is the value on all images plus or minus a quantile of Student's t times the square root of v1.
The means and quantiles of the parts are not used, as AP is biased upwards on fewer images. A bootstrap would repeat images, which
biases AP and narrows its spread: docs/statistics.md has the measurements.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from .accumulate import Grouping, Positives, Records, whole_set
from .measures import MeasureInput, compute_measure
from .protocol import PROPOSAL_NUMS, Statistic, bootstrapped_statistics
from .summary import all_evaluations, count_images
from .weighted_ap import weighted_average_precision, weighted_recall

METHOD = 'random halves and quarters of the images, Student t'
#: Parts of each split in `random_parts`: four quarters and six halves.
PARTS = 10
#: Range of v2 / v4; values outside it are noise and are clipped.
GROWTH = .5, 2.
#: Maximum number of replicates, and of random sets of a null band: memory grows with them, precision hardly does.
_MOST = 100_000
#: Minimum replicates for the measured coverage; with fewer, coverage is lower.
_ENOUGH = 300
#: Below this number of images there is no interval: its coverage would be too low.
MIN_IMAGES = 20
#: Coverage of 95 % intervals measured by benchmarks/coverage.py: lowest cell of docs/benchmarks/coverage.csv, rounded down, and
#: highest, rounded up.
MEASURED = 'AP', 'AP50', 'AP75'
COVERAGE = {'at 20 images': (.89, .97), 'at 50 images': (.91, .98), 'at 100 images': (.92, .97), 'at 400 images': (.92, .99),
            'at 1000 images': (.92, .98)}


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the resampling. The name is historical: no image is drawn twice.

    Args:
        num_replicates: Random halves and quarters of the images, 2 to 100 000, rounded up to tens. Few replicates widen the
            intervals: 30 by a sixth, 10 by two thirds.
        seed: 0 to 2**63 - 1.
        level: Confidence level, between 0 and 1.
        null_sets: Random sets behind each null band, 2 to 100 000, or 0 for no null bands.
        statistics: Names of the statistics with intervals and null bands; by default the `bootstrapped` ones, AP, AP50 and AP75.

    Raises:
        ValueError: A number is out of range, or a statistic is unknown or cannot have an interval.

    Example:
        >>> [statistic.name for statistic in Bootstrap(statistics=['MR-2', 'AP']).chosen()]
        ['AP', 'MR-2']
    """

    num_replicates: int = 1000
    seed: int = 0
    level: float = .95
    null_sets: int = 250
    statistics: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, lowest, highest in (('num_replicates', 2, _MOST), ('seed', 0, 2**63 - 1), ('null_sets', 0, _MOST)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
                option = '--replicates' if name == 'num_replicates' else f'--{name.replace("_", "-")}'
                raise ValueError(f'{option} ({name}): expected an integer from {lowest} to {highest}, got {value!r}')
        if self.null_sets == 1:
            raise ValueError('--null-sets (null_sets): one set makes no band; use 0 for no bands, or more sets, such as 250')
        _check_level(self.level)
        if not self.chosen():
            raise ValueError('statistics: expected at least one name such as AP, got none')

    def chosen(self) -> list[Statistic]:
        """Return the statistics with intervals, in the order of `protocol.STATISTICS`."""
        return bootstrapped_statistics(self.statistics)

    def describe(self, method: str = METHOD, unit: str = 'image') -> dict:
        """Return the settings as plain values for reports, with the measured coverage if it applies."""
        coverage = {where: list(ends) for where, ends in COVERAGE.items()}
        measured = (self.level == .95 and unit == 'image' and self.num_replicates >= _ENOUGH
                    and {statistic.name for statistic in self.chosen()} <= {*MEASURED})
        names = [statistic.name for statistic in self.chosen()] if self.statistics is None else self.statistics
        return dict(level=self.level, replicates=-(-self.num_replicates // PARTS) * PARTS, seed=self.seed, method=method,
                    min_images=MIN_IMAGES, statistics=[names] if isinstance(names, str) else list(names),
                    **({'coverage': coverage} if measured else {}))


def random_parts(num_images: int, num_replicates: int, seed: int, device: torch.device | str = 'cpu') -> Tensor:
    """Split I images into quarters at random, repeatedly; the same on every device.

    Returns:
        The images of each part, shape (R, I) int16 of 0 and 1, where R is `num_replicates` rounded up to tens. Each split has ten
        parts: its quarters a, b, c, d, then the halves ab, cd, ac, bd, ad, bc.

    Example:
        >>> random_parts(6, 10, seed=0).sum(1).tolist()
        [2, 2, 1, 1, 4, 2, 3, 3, 3, 3]
    """
    generator = torch.Generator().manual_seed(seed)
    quarter = torch.stack([torch.randperm(num_images, generator=generator) % 4 for _ in range(-(-num_replicates // PARTS))])
    quarters = quarter[:, None] == torch.arange(4)[:, None]
    a, b, c, d = quarters.unbind(1)
    halves = torch.stack([a | b, c | d, a | c, b | d, a | d, b | c], dim=1)
    return torch.cat([quarters, halves], dim=1).flatten(0, 1).to(device, torch.int16)


def draw_parts(images: Tensor, positives: Positives, column: int, num_replicates: int, seed: int) -> Tensor:
    """Draw parts of a group's images; for an instance bucket, stratified by whether an image has an instance in it.

    Args:
        images: Positions of the images, shape (I,) int64.
        positives: The ground truths that count.
        column: Column of the group, 0 for a group of images.
        num_replicates: See `random_parts`.
        seed: Random seed.

    Returns:
        Shape (R, I) int16, see `random_parts`.
    """
    if column == 0:
        return random_parts(len(images), num_replicates, seed, images.device)
    holding = torch.isin(images, positives.image[positives.counted[:, column]])
    weights = torch.zeros(-(-num_replicates // PARTS) * PARTS, len(images), dtype=torch.int16, device=images.device)
    for side in (holding, ~holding):
        weights[:, side] = random_parts(int(side.sum()), num_replicates, seed, images.device)
    return weights


def halves_of(values: Tensor) -> Tensor:
    """Select the values of halves, from values in the order of `random_parts`, shape (..., R)."""
    return values.unflatten(-1, (-1, PARTS))[..., 4:].flatten(-2)


def bootstrap_statistics(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                         column: int = 0, proposal_nums: Sequence[int] = PROPOSAL_NUMS, precise: bool = True,
                         statistics: Sequence[Statistic] | None = None) -> Tensor:
    """Compute statistics under every weighting of the images.

    Args:
        records: Match records in the order of `join_records`.
        positives: The ground truths that count.
        images: Positions of the images, shape (I,) int64.
        weights: Multiplicity of each image, integers, shape (R, I).
        num_categories: K.
        column: Column of the records: 0, or that of an instance bucket.
        proposal_nums: Limits of detections, see `Statistic.limit`.
        precise: See `weighted_average_precision`.
        statistics: The S statistics, by default those of `protocol.bootstrapped_statistics`.

    Returns:
        Shape (R, S) float64; NaN under a weighting without ground truth.
    """
    statistics = bootstrapped_statistics() if statistics is None else statistics
    thresholds = defaultdict(set)  # by the kind of pass over the records
    for statistic in (statistic for statistic in statistics if not statistic.measure):
        thresholds[statistic.recall, statistic.limit(proposal_nums)].update(statistic.thresholds)
    found = {}
    for (recall, limit), needed in thresholds.items():
        options = (records, positives, images, weights, num_categories, sorted(needed), limit, column)
        values = weighted_recall(*options) if recall else weighted_average_precision(*options, precise=precise)
        found[recall, limit] = dict(zip(sorted(needed), values.unbind(1), strict=True))
    num_images = 1 + max([int(part.max()) for part in (images, records.image, positives.image) if len(part)], default=-1)

    def column_of(statistic: Statistic) -> Tensor:
        limit = statistic.limit(proposal_nums)
        if statistic.measure:
            return compute_measure(MeasureInput(records, positives, num_images, num_categories, column, limit), statistic,
                                   images, weights)
        return torch.stack([found[statistic.recall, limit][threshold] for threshold in statistic.thresholds], dim=1).mean(1)

    return torch.stack([column_of(statistic) for statistic in statistics], dim=1)


def replicates(records: Records, positives: Positives, groups: Grouping, num_categories: int, bootstrap: Bootstrap,
               proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> Tensor:
    """Compute the statistics of random halves and quarters of every group's images.

    The draws depend only on the seed and the images, so the rows of two runs on one data set are paired. Arguments are those of
    `add_intervals`, for one IoU type.

    Returns:
        Shape (R, B, S) float64, in the order of `random_parts`; NaN without ground truth.
    """
    device = records.image.device
    result = []
    for members, column in zip(groups.members.T.to(device), groups.columns.tolist(), strict=True):
        images = members.nonzero()[:, 0]
        weights = draw_parts(images, positives, column, bootstrap.num_replicates, bootstrap.seed)
        result.append(bootstrap_statistics(records, positives, images, weights, num_categories, column, proposal_nums,
                                           precise=False, statistics=bootstrap.chosen()))
    return torch.stack(result, dim=1)


def point_estimates(records: Records, positives: Positives, groups: Grouping, num_categories: int,
                    bootstrap: Bootstrap | None = None, proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> Tensor:
    """Compute the statistics of every group on all its images, shape (B, S) float64; arguments as for `replicates`."""
    bootstrap = bootstrap or Bootstrap()
    result = []
    for members, column in zip(groups.members.T, groups.columns.tolist(), strict=True):
        images = members.nonzero()[:, 0]
        result.append(bootstrap_statistics(records, positives, images, torch.ones(1, len(images), dtype=torch.int16),
                                           num_categories, column, proposal_nums, statistics=bootstrap.chosen())[0])
    return torch.stack(result)


def standard_error(values: Tensor, num_images: int) -> float | None:
    """Return the standard error of a statistic of n images from its values on parts of them, None if undefined.

    Args:
        values: The statistic of each part of `random_parts`, shape (R,). Splits with a NaN are dropped; if more than half are
            dropped, there is no standard error.
        num_images: n.
    """
    splits = values.double().view(-1, PARTS)
    num_splits = len(splits)
    splits = splits[~splits.isnan().any(1)]
    if num_images < MIN_IMAGES or 2 * len(splits) < max(1, num_splits):
        return None
    sizes = torch.tensor([(num_images + 3 - place) // 4 for place in range(4)], dtype=torch.float64, device=values.device)
    quarters, halves = splits[:, :4], splits[:, 4:].unflatten(1, (3, 2))
    half = torch.stack([sizes[0] + sizes[1], sizes[0] + sizes[2], sizes[0] + sizes[3]])
    by_halves = (halves[..., 0] - halves[..., 1]).square() * half * (num_images - half) / num_images**2
    by_halves = by_halves.mean().item()
    mean = (quarters * sizes).sum(1, keepdim=True) / num_images
    by_quarters = ((quarters - mean).square() * sizes).sum(1).mean().item() / (3 * num_images)
    least, most = GROWTH
    growth = by_halves / by_quarters if by_quarters else most
    return math.sqrt(by_halves * min(max(growth, least), most))


def degrees_of_freedom(num_images: int, num_replicates: int) -> float:
    """Return the degrees of freedom of a standard error from n images and R / 10 splits, which contribute three each."""
    return 1 / (1 / (num_images - 1) + PARTS / (3 * num_replicates))


def interval(value: float | None, parts: Tensor, num_images: int, level: float = .95,
             bounds: tuple[float, float] = (0., 1.)) -> tuple[float, float] | None:
    """Return a confidence interval around a value, None below `MIN_IMAGES` images or without a value.

    Args:
        value: The statistic on all images.
        parts: The statistic on each part of `random_parts`, shape (R,); NaN where undefined.
        num_images: Number of images.
        level: Confidence level.
        bounds: Range of the statistic.

    Example:
        >>> numbers = torch.arange(100, dtype=torch.float64) / 100
        >>> weights = random_parts(100, 20_000, seed=0).double()
        >>> [round(end, 2) for end in interval(numbers.mean().item(), weights @ numbers / weights.sum(1), num_images=100)]
        [0.44, 0.55]
    """
    _check_level(level)
    error = None if value is None else standard_error(parts, num_images)
    if error is None:
        return None
    reach = student_quantile((1 + level) / 2, degrees_of_freedom(num_images, len(parts))) * error
    return max(bounds[0], value - reach), min(bounds[1], value + reach)


@functools.cache
def student_quantile(share: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        share: Probability below the quantile, at least 0.5 and less than 1.
        freedom: Degrees of freedom, above 0.

    Example:
        >>> round(student_quantile(.975, 10), 3)
        2.228
    """
    # With t = sqrt(f) tan(angle), the density is cos(angle)**(f - 1), summed here over cells that narrow with the peak.
    edges = np.linspace(0, min(np.pi / 2, 40 / math.sqrt(freedom)), 20_001)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.concatenate([[0], np.cumsum(np.exp((freedom - 1) * np.log(np.cos(middle))))])
    return math.sqrt(freedom) * math.tan(np.interp((2 * share - 1) * below[-1], below, edges))


def add_intervals(report: Mapping, records: Mapping[str, Records], positives: Positives, groups: Sequence[Grouping],
                  num_categories: int, bootstrap: Bootstrap | None = None,
                  proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> dict:
    """Return a copy of a report with intervals.

    Args:
        report: From `summary.summarize`.
        records: Match records by IoU type, in the order of `join_records`.
        positives: The ground truths that count.
        groups: The groups of the report's buckets, then those of each of its ``further`` reports.
        num_categories: K.
        bootstrap: Settings of the resampling.
        proposal_nums: Limits of detections, see `Statistic.limit`.

    Returns:
        The report with ``intervals``, the settings, and in every row the ends of each statistic's interval, such as ``AP_ci``;
        None below `MIN_IMAGES` images and without ground truth.

    Raises:
        ValueError: The groups do not fit the report.
    """
    bootstrap = bootstrap or Bootstrap()
    reports = all_evaluations(report)
    if len(groups) != len(reports):
        raise ValueError(f'groups: got {len(groups)} groupings for the {len(reports)} evaluations of the report')
    done = [{**part, 'intervals': bootstrap.describe(unit=part.get('unit', 'image'))} for part in reports]
    for iou_type, table in records.items():
        def with_ends(rows: Sequence[Mapping], chosen: Grouping, table: Records = table) -> list[dict]:
            parts = replicates(table, positives, chosen, num_categories, bootstrap, proposal_nums)
            return [{**row, **_intervals(row, of_group, count_images(members, positives, column), bootstrap)}
                    for row, of_group, members, column in zip(
                        rows, parts.unbind(1), chosen.members.T.to(table.image.device), chosen.columns.tolist(), strict=True)]

        everything, = with_ends([report[iou_type]['all']], whole_set(len(groups[0].members)))
        ends = {key: value for key, value in everything.items() if key not in report[iou_type]['all']}
        for part, chosen in zip(done, groups, strict=True):
            rows = part[iou_type]
            if len(rows['buckets']) != len(chosen.columns):
                raise ValueError(f'groups: got {len(chosen.columns)} groups for the {len(rows["buckets"])} buckets of the report')
            part[iou_type] = {**rows, 'all': {**rows['all'], **ends}, 'buckets': with_ends(rows['buckets'], chosen)}
    return {**done[0], **({'further': done[1:]} if 'further' in report else {})}


def _intervals(row: Mapping, parts: Tensor, num_images: int, bootstrap: Bootstrap) -> dict:
    """Return the intervals of a group by report key, from the statistics of its parts, shape (R, S)."""
    found = {}
    for statistic, column in zip(bootstrap.chosen(), parts.unbind(1), strict=True):
        ends = interval(row[statistic.name], column, num_images, bootstrap.level, (0., statistic.highest))
        found[statistic.ci_key] = list(ends) if ends else None
    return found


def _check_level(level: float) -> None:
    if not isinstance(level, Real) or not 0 < level < 1:
        raise ValueError(f'--level (level): expected a number between 0 and 1, such as 0.95, got {level!r}')
