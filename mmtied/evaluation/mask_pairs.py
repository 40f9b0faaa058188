"""Pairs by the IoU of masks, from exact pixel counts: boolean masks on any device, or run-length codes on the CPU."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from .pairs import Pairs, empty_pairs, join_pairs


def dense_mask_pairs(detection_cells: Tensor, detection_masks: Tensor, detection_area: Tensor, target_cells: Tensor,
                     target_masks: Sequence[Tensor], target_corners: Sequence[tuple[int, int]], crowd: Tensor,
                     min_iou: float) -> Pairs:
    """Pairs of one image from boolean masks.

    Only pixels inside a target's own crop are read, and only of detections of its category.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_masks: Shape (D, height, width), bool.
        detection_area: Pixels of each detection's mask, shape (D,).
        target_cells: Shape (G,) int64, sorted.
        target_masks: For each target its mask cropped to the box around it, (crop height, crop width) bool.
        target_corners: Top and left of each crop in the image.
        crowd: Shape (G,) bool.
        min_iou: The smallest IoU of a pair.
    """
    device = detection_masks.device
    first = torch.searchsorted(detection_cells, target_cells).tolist()
    last = torch.searchsorted(detection_cells, target_cells, right=True).tolist()
    found = [empty_pairs(device)]
    for target, (mask, (top, left)) in enumerate(zip(target_masks, target_corners, strict=True)):
        detection = torch.arange(first[target], last[target], device=device)
        crop = detection_masks[first[target]:last[target], top:top + mask.shape[0], left:left + mask.shape[1]]
        shared = (crop & mask).sum((1, 2))
        area = detection_area[first[target]:last[target]].to(shared.dtype)
        union = torch.where(crowd[target], area, area + mask.sum() - shared)
        iou = torch.where(shared > 0, shared.double() / union.double(), 0)
        keep = iou >= min_iou
        found.append(Pairs(detection[keep], torch.full_like(detection, target)[keep], iou[keep]))
    pairs = join_pairs(found)
    by_detection = torch.argsort(pairs.detection, stable=True)
    return Pairs(*(column[by_detection] for column in pairs))


def crop_mask(rle: dict) -> tuple[np.ndarray, tuple[int, int]]:
    """A run-length code's pixels, cropped to the box around them, (height, width) bool, and the crop's top and left."""
    left, top, width, height = (int(side) for side in mask_api.toBbox(rle))
    return mask_api.decode(rle)[top:top + height, left:left + width].astype(bool), (top, left)


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


