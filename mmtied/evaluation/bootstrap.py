"""Percentile bootstrap over images: how far AP would move had other images of the same kind been drawn.

A replicate draws as many images as there are, with replacement, and evaluates them (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 13 and 16). The images are what was sampled, so objects of one image stay together. With the same
draws for two runs the difference of their APs is *paired*: what both find hard cancels.
"""

import torch
from torch import Tensor

from .accumulate import Positives, Records
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
