"""Pairs by the IoU of masks as run-length codes, on the CPU, from exact pixel counts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from .inputs.rle import rle_areas
from .pairs import Pairs, cell_pairs


def rle_pairs(detection_cells: Tensor, detection_rles: Sequence[dict], target_cells: Tensor,
              target_rle: Callable[[int], dict], crowd: Tensor, min_iou: float, area: Tensor | None = None) -> Pairs:
    """Pairs of any number of images from run-length codes.

    The pixels of two masks bound their IoU from above, so most detections are left out before any run of theirs is read.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_rles: A compressed run-length code for each detection.
        target_cells: Shape (G,) int64, sorted.
        target_rle: Gives the run-length code of the target at a position.
        crowd: Shape (G,) bool.
        min_iou: The smallest IoU of a pair, above 0.
        area: Pixels of each detection's mask, shape (D,); counted here where it is not given.
    """
    device, cells, target_cells = detection_cells.device, detection_cells.cpu(), target_cells.cpu()
    is_crowd = crowd.cpu().numpy()
    area = rle_areas(detection_rles) if area is None else area.cpu().numpy()
    faced = torch.isin(target_cells, cells).nonzero()[:, 0].tolist()
    rles = {target: target_rle(target) for target in faced}
    target_area = np.zeros(len(target_cells), dtype=np.int64)
    target_area[faced] = rle_areas(list(rles.values()))

    candidates = np.concatenate([np.empty(0, np.int64), *(
        _may_reach(min_iou, detection.numpy(), target.numpy(), area, target_area, is_crowd)
        for detection, target in cell_pairs(cells, target_cells))])
    cells, counts = torch.unique_consecutive(cells[candidates], return_counts=True)
    ends = counts.cumsum(0)
    first, last = torch.searchsorted(target_cells, cells), torch.searchsorted(target_cells, cells, right=True)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for start, end, low, high in torch.stack([ends - counts, ends, first, last], dim=1).tolist():
        here = candidates[start:end]
        iou = mask_api.iou([detection_rles[number] for number in here.tolist()], [rles[target] for target in range(low, high)],
                           is_crowd[low:high].astype(np.uint8).tolist())
        detection, target = np.nonzero(iou >= min_iou)
        found.append((here[detection], target + low, iou[detection, target]))
    return Pairs(*(torch.from_numpy(np.concatenate(column)).to(device) for column in zip(*found, strict=True)))


def _may_reach(min_iou: float, detection: np.ndarray, target: np.ndarray, area: np.ndarray, target_area: np.ndarray,
               crowd: np.ndarray) -> np.ndarray:
    """Detections, sorted, that reach `min_iou` with a target if the smaller of the two masks lies inside the other."""
    pixels, target_pixels = area[detection].astype(np.float64), target_area[target]
    union = np.where(crowd[target], pixels, np.maximum(pixels, target_pixels))
    return np.unique(detection[np.minimum(pixels, target_pixels) / np.maximum(union, 1) >= min_iou])
