"""Pairs by the IoU of masks as run-length codes, on the CPU, from exact pixel counts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from .pairs import Pairs


def rle_pairs(detection_cells: Tensor, detection_rles: Sequence[dict], target_cells: Tensor,
              target_rle: Callable[[int], dict], crowd: Tensor, min_iou: float) -> Pairs:
    """Pairs of any number of images from run-length codes.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_rles: A compressed run-length code for each detection.
        target_cells: Shape (G,) int64, sorted.
        target_rle: Gives the run-length code of the target at a position.
        crowd: Shape (G,) bool.
        min_iou: The smallest IoU of a pair.
    """
    cells, counts = torch.unique_consecutive(detection_cells, return_counts=True)
    ends = counts.cumsum(0)
    first, last = torch.searchsorted(target_cells, cells), torch.searchsorted(target_cells, cells, right=True)
    is_crowd = crowd.cpu().numpy()
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for start, end, low, high in torch.stack([ends - counts, ends, first, last], dim=1).tolist():
        if low == high:
            continue
        iou = mask_api.iou(detection_rles[start:end], [target_rle(target) for target in range(low, high)],
                           is_crowd[low:high].astype(np.uint8).tolist())
        detection, target = np.nonzero(iou >= min_iou)
        found.append((detection + start, target + low, iou[detection, target]))
    return Pairs(*(torch.from_numpy(np.concatenate(column)).to(detection_cells.device)
                   for column in zip(*found, strict=True)))


