"""Bootstrap intervals for groups of images or instances, and for a whole report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .accumulate import Positives, Records
from .buckets import Grouping, whole_set
from .protocol import IOU_THRESHOLDS, PROPOSAL_NUMS, limits
from .weighted_ap import weighted_average_precision

#: What `bootstrap_ap` returns in each column.
BOOTSTRAPPED = ('AP', 'AP50', 'AP75')
_HALF, _THREE_QUARTERS = (IOU_THRESHOLDS.tolist().index(threshold) for threshold in (.5, .75))


def image_weights(num_images: int, num_replicates: int, seed: int, device: torch.device | str = 'cpu') -> Tensor:
    """How often each replicate draws each image; the same on every device.

    Args:
        num_images: Images to draw from, and to draw; I.
        num_replicates: R.
        seed: From 0 up to 2**63 - 1.
        device: Where the weights are wanted.

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


def bootstrap_ap(records: Records, positives: Positives, images: Tensor, weights: Tensor, num_categories: int,
                 column: int = 0, proposal_nums: tuple[int, ...] = PROPOSAL_NUMS) -> Tensor:
    """AP, AP50 and AP75 of every replicate.

    Args:
        records: Sorted as `join_records` sorts.
        positives: The ground truths that count.
        images: Positions of the images to resample, shape (I,) int64.
        weights: From `image_weights`, shape (R, I).
        num_categories: K.
        column: Which area range or instance bucket of the records.
        proposal_nums: See `protocol.limits`.

    Returns:
        Shape (R, 3) float64; NaN in a replicate without ground truth.
    """
    headline, largest = limits(proposal_nums)

    def ap_at(limit: int, thresholds: list[int]) -> Tensor:
        return weighted_average_precision(records, positives, images, weights, num_categories, thresholds, limit, column)

    by_threshold = ap_at(headline, list(range(len(IOU_THRESHOLDS))))
    single = by_threshold[:, [_HALF, _THREE_QUARTERS]] if headline == largest else ap_at(largest, [_HALF, _THREE_QUARTERS])
    return torch.cat([by_threshold.mean(1, keepdim=True), single], dim=1)


def percentile_interval(values: Tensor, level: float = .95) -> tuple[float, float] | None:
    """The interval that leaves the same share of the values on either side.

    Args:
        values: One number of each replicate, shape (R,); NaN where it is undefined.
        level: Share of the values inside, above 0 and below 1.

    Returns:
        Lower and upper end, None where no value is defined.

    Raises:
        ValueError: `level` is out of range.

    Example:
        >>> percentile_interval(torch.arange(101, dtype=torch.float64), level=.5)
        (25.0, 75.0)
    """
    if not 0 < level < 1:
        raise ValueError(f'level: a share of the replicates above 0 and below 1 is needed, such as 0.95; got {level}')
    values = values[~values.isnan()]
    if not len(values):
        return None
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype, device=values.device)
    low, high = torch.quantile(values, ends).tolist()
    return low, high


METHOD = 'percentile bootstrap over images'


@dataclass(frozen=True)
class Bootstrap:
    """How to resample.

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
        if not 0 < self.level < 1:
            raise ValueError(f'level: a share of the replicates above 0 and below 1 is needed, such as 0.95; got {self.level}')

    def describe(self, method: str = METHOD) -> dict:
        """The plain values that reports state."""
        return dict(level=self.level, replicates=self.num_replicates, seed=self.seed, method=method)


def replicates(records: Records, positives: Positives, groups: Grouping, num_categories: int, bootstrap: Bootstrap,
               proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> Tensor:
    """AP, AP50 and AP75 of the data as they are, and of every replicate, for every group.

    Each group is resampled from its own images. The draws depend on the seed and the number of images alone, so two runs on
    one data set get the same, and row by row their difference is paired.

    Args:
        records: Sorted as `join_records` sorts.
        positives: The ground truths that count.
        groups: The B groups.
        num_categories: K.
        bootstrap: How to resample.
        proposal_nums: See `protocol.limits`.

    Returns:
        Shape (1 + R, B, 3) float64, the first row without resampling; NaN where there is no ground truth.
    """
    device = records.image.device
    result = []
    for members, column in zip(groups.members.T.to(device), groups.columns.tolist(), strict=True):
        images = members.nonzero()[:, 0]
        weights = image_weights(len(images), bootstrap.num_replicates, bootstrap.seed, device)
        weights = torch.cat([torch.ones_like(weights[:1]), weights])
        result.append(bootstrap_ap(records, positives, images, weights, num_categories, column, proposal_nums))
    return torch.stack(result, dim=1)


def add_intervals(report: Mapping, records: Mapping[str, Records], positives: Positives, groups: Sequence[Grouping],
                  num_categories: int, bootstrap: Bootstrap | None = None,
                  proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> dict:
    """A report with intervals; the one given stays as it is.

    Args:
        report: From `summary.summarize`.
        records: Match records by IoU type, sorted as `join_records` sorts.
        positives: The ground truths that count.
        groups: The groups behind the report's buckets, then those behind each of its ``further`` reports.
        num_categories: K.
        bootstrap: How to resample.
        proposal_nums: See `protocol.limits`.

    Returns:
        The report with ``intervals``, which says how they were made, and in ``all`` and each bucket ``AP_ci``, ``AP50_ci`` and
        ``AP75_ci``: lower and upper end, None where no replicate has ground truth. So too in its ``further`` reports.

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
    """For each group the intervals by key of the report, from what `replicates` returns."""
    result = []
    for group in values[1:].unbind(1):
        found = [percentile_interval(column, level) for column in group.unbind(1)]
        result.append({f'{name}_ci': list(ends) if ends else None for name, ends in zip(BOOTSTRAPPED, found, strict=True)})
    return result
