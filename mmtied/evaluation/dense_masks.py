"""IoU of one image's boolean masks with its ground truth, from exact pixel counts, where the masks are.

On the CPU only pairs of one category whose sizes allow a match are looked at. On a GPU that choice would have to wait for the
device, and counting every pair in a crop costs less than waiting.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .target_masks import Crop


def dense_mask_iou(masks: Tensor, labels: Tensor, crops: Sequence[Crop], target_labels: Sequence[int],
                   crowd: Sequence[bool], min_iou: float) -> tuple[Tensor, Tensor]:
    """Areas of the masks, and their IoU with every ground truth.

    Args:
        masks: Shape (N, height, width) bool.
        labels: Shape (N,) integers.
        crops: The masks of the G ground truths.
        target_labels: Label of each ground truth.
        crowd: Whether each is a crowd, by which IoU is the share of the mask inside it.
        min_iou: The smallest IoU that is of use.

    Returns:
        Pixels of each mask, shape (N,) int64; IoU, shape (N, G) float64, of which only entries of equal labels and of at
        least `min_iou` can be relied on: others may read 0.
    """
    device = masks.device
    if device.type == 'cpu':
        area, shared = _count_on_cpu(masks.numpy(), labels.cpu().numpy(), crops, target_labels, crowd, min_iou)
    else:
        area, shared = count_all(masks, crops)
    pixels, crowd = torch.tensor([[crop.pixels for crop in crops], crowd], dtype=torch.int64).to(device, non_blocking=True)
    union = torch.where(crowd.bool(), area[:, None], area[:, None] + pixels - shared)
    return area, torch.where(shared > 0, shared.double() / union.double(), 0)


def count_all(masks: Tensor, crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
    """Pixels of each mask, (N,), and pixels that it shares with each crop, (N, G), both int64, without waiting for them."""
    shared = torch.zeros(len(masks), len(crops), dtype=torch.int64, device=masks.device)
    for target, (mask, top, left, _) in enumerate(crops):
        mask = torch.from_numpy(mask).to(masks.device, non_blocking=True)
        shared[:, target] = (masks[:, top:top + mask.shape[0], left:left + mask.shape[1]] & mask).sum((1, 2))
    return masks.sum((1, 2)), shared


def _count_on_cpu(masks: np.ndarray, labels: np.ndarray, crops: Sequence[Crop], target_labels: Sequence[int],
                  crowd: Sequence[bool], min_iou: float) -> tuple[Tensor, Tensor]:
    """Pixels of each mask, (N,), and pixels shared with each crop, (N, G), 0 where that cannot make a match."""
    area = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)
    shared = np.zeros((len(masks), len(crops)), dtype=np.int64)
    for target, (mask, top, left, pixels) in enumerate(crops):
        smaller, larger = np.minimum(area, pixels), area if crowd[target] else np.maximum(area, pixels)
        possible = (labels == target_labels[target]) & (smaller >= min_iou * larger)
        window = np.s_[top:top + mask.shape[0], left:left + mask.shape[1]]
        for detection in np.flatnonzero(possible).tolist():
            shared[detection, target] = np.count_nonzero(masks[detection][window] & mask)
    return torch.from_numpy(area), torch.from_numpy(shared)
