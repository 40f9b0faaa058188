"""How many images, instances and categories a group has, so that a reader can tell an effect of occlusion from one of mix."""

import torch
from torch import Tensor

from .accumulate import Positives
from .evaluations import Grouping
from .protocol import AREA_RANGES
from .targets import Targets


def group_counts(targets: Targets, grouping: Grouping) -> tuple[list[dict], Tensor]:
    """Counts of each group, and which categories it has.

    An area on a bound belongs to both of its ranges, as in COCO, so the three sizes may sum to more than the instances.

    Args:
        targets: The ground truth.
        grouping: The B groups, on the same device.

    Returns:
        For each group images (for a group of instances: those with one of them), instances, categories, instances_small,
        instances_medium, instances_large, instances_per_image (None without images); and the categories with a ground truth
        that counts, shape (B, K) bool.
    """
    positives = targets.positives()
    rows, present = [], []
    for members, first in zip(grouping.members.T, grouping.columns.tolist(), strict=True):
        counted = positives.counted[:, first:first + len(AREA_RANGES)] & members[positives.image, None]
        instances, *by_size = counted.sum(0).tolist()
        here = counted[:, 0]
        images = count_images(members, positives, first)
        categories = torch.bincount(positives.category[here], minlength=targets.num_categories) > 0
        sizes = {f'instances_{size}': number for size, number in zip(list(AREA_RANGES)[1:], by_size, strict=True)}
        rows.append(dict(images=images, instances=instances, categories=int(categories.sum()), **sizes,
                         instances_per_image=instances / images if images else None))
        present.append(categories)
    return rows, torch.stack(present)


def count_images(members: Tensor, positives: Positives, column: int) -> int:
    """Images of a group, or, where it is one of instances, those with an instance that counts.

    Args:
        members: Images of the group, shape (I,) bool.
        positives: The ground truths that count, on the same device.
        column: Column of the group's match bits; 0 for a group of images.
    """
    if column == 0:
        return int(members.sum())
    return len(torch.unique(positives.image[positives.counted[:, column] & members[positives.image]]))


def shared_categories(present: Tensor) -> Tensor:
    """Categories that every group with any ground truth has, shape (K,) bool, from (B, K); none where no group has any."""
    filled = present.any(1)
    return present[filled].all(0) & filled.any()
