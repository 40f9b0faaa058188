"""Pairs of detections and ground truths that overlap enough to match: same image, same category, IoU at or above a bound.

Such pairs are few, so everything after this step works on sparse lists. A *cell* is an image and a category as one number,
``image * num_categories + category``; detections and targets come sorted by cell.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

#: Pairs whose boxes are compared at a time; bounds the memory of a large batch.
CHUNK = 1 << 18


class Pairs(NamedTuple):
    """Overlapping pairs, sorted by detection, then by target.

    Args:
        detection: Position of the detection, shape (P,) int64.
        target: Position of the ground truth, shape (P,) int64.
        iou: Shape (P,) float64, in (0, 1].
    """

    detection: Tensor
    target: Tensor
    iou: Tensor


def box_pairs(detection_cells: Tensor, detection_boxes: Tensor, target_cells: Tensor, target_boxes: Tensor, crowd: Tensor,
              min_iou: float) -> Pairs:
    """Pairs by the IoU of boxes.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_boxes: Shape (D, 4) float64, xywh in pixels.
        target_cells: Shape (G,) int64, sorted.
        target_boxes: Shape (G, 4) float64, xywh in pixels.
        crowd: Shape (G,) bool.
        min_iou: The smallest IoU of a pair.
    """
    found = [empty_pairs(detection_cells.device)]
    for detection, target in cell_pairs(detection_cells, target_cells):
        iou = box_iou(detection_boxes[detection], target_boxes[target], crowd[target])
        keep = iou >= min_iou
        found.append(Pairs(detection[keep], target[keep], iou[keep]))
    return join_pairs(found)


def box_iou(detections: Tensor, targets: Tensor, crowd: Tensor) -> Tensor:
    """IoU of xywh boxes, row by row, shape (P,) float64; for a crowd, the share of the detection that lies inside it.

    The operations and their order are pycocotools' (`bbIou` in maskApi.c), so the bits agree too.

    Example:
        >>> box = torch.tensor([[0., 0., 2., 2.]], dtype=torch.float64)
        >>> box_iou(box, box + torch.tensor([1., 0., 0., 0.]), torch.tensor([False]))
        tensor([0.3333], dtype=torch.float64)
    """
    (x, y, w, h), (target_x, target_y, target_w, target_h) = detections.unbind(1), targets.unbind(1)
    width = torch.minimum(w + x, target_w + target_x) - torch.maximum(x, target_x)
    height = torch.minimum(h + y, target_h + target_y) - torch.maximum(y, target_y)
    intersection = width * height
    area = w * h
    union = torch.where(crowd, area, area + target_w * target_h - intersection)
    return torch.where((width > 0) & (height > 0), intersection / union, 0)


def cell_pairs(detection_cells: Tensor, target_cells: Tensor, chunk: int = CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs within cells as (detection, target) positions, about `chunk` pairs at a time, sorted by detection."""
    first = torch.searchsorted(target_cells, detection_cells)
    count = torch.searchsorted(target_cells, detection_cells, right=True) - first
    total = count.cumsum(0)
    num = int(total[-1]) if len(total) else 0
    ends = torch.searchsorted(total, torch.arange(chunk, num + chunk, chunk, device=total.device)).tolist() if num else []
    start = 0
    for end in ends:
        end = min(end + 1, len(count))
        part = count[start:end]
        detection = torch.repeat_interleave(torch.arange(start, end, device=part.device), part)
        within = torch.arange(len(detection), device=part.device) - torch.repeat_interleave(part.cumsum(0) - part, part)
        yield detection, first[detection] + within
        start = end


def join_pairs(parts: list[Pairs]) -> Pairs:
    """One list from several."""
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def empty_pairs(device: torch.device) -> Pairs:
    """No pairs at all."""
    index = torch.empty(0, dtype=torch.int64, device=device)
    return Pairs(index, index, index.double())
