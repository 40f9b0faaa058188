"""Average precision of every group of an evaluation, whether groups are disjoint, overlap, or differ by what is ignored."""

import torch
from torch import Tensor

from .accumulate import Positives, Records, average_precision
from .evaluations import Grouping
from .protocol import IOU_THRESHOLDS


def grouped_precision(records: Records, positives: Positives, grouping: Grouping, num_categories: int, limit: int) -> Tensor:
    """AP for every group, area range, threshold and category.

    Args:
        records: Sorted as `accumulate.join_records` sorts.
        positives: The ground truths that count.
        grouping: The B groups, on the device of the records.
        num_categories: K.
        limit: Detections used for each image and category.

    Returns:
        Shape (B, 4, T, K) float64; NaN where a group has no ground truth that counts.
    """
    num_thresholds = len(IOU_THRESHOLDS)
    parts: dict[int, Tensor] = {}
    for columns, groups in _passes(grouping):
        members = grouping.members[:, groups]
        group_of_image = torch.where(members.any(1), members.int().argmax(1), -1)
        found = average_precision(records.of_columns(columns), positives.of_columns(columns), group_of_image, len(groups),
                                  num_categories, num_thresholds, limit)
        parts.update(zip(groups, found, strict=True))
    return torch.stack([parts[group] for group in sorted(parts)])


def _passes(grouping: Grouping) -> list[tuple[int, list[int]]]:
    """Column and groups of each pass over the records: disjoint groups with the same column go together."""
    passes: list[tuple[int, list[int]]] = []
    used = None
    for group, column in enumerate(grouping.columns.tolist()):
        members = grouping.members[:, group]
        if passes and passes[-1][0] == column and not bool((used & members).any()):
            passes[-1][1].append(group)
            used = used | members
        else:
            passes.append((column, [group]))
            used = members
    return passes
