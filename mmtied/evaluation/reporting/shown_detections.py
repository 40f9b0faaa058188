"""The few detections that are kept for drawing while everything else becomes match records."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..inputs.results import Detections
from ..matching import rank_detections
from .worst_images import SCORE_THRESHOLD

#: Detections kept of each image.
MOST_SHOWN = 30
_COLUMNS = 7


class Shown(NamedTuple):
    """Detections of one image to draw, the most certain first.

    Args:
        boxes_xywh: In pixels, shape (N, 4) float64.
        category: Position of each category in the ground truth's `category_ids`, shape (N,) int64.
        score: Shape (N,) float64.
        rles: Run-length codes of the masks, where there are any.
    """

    boxes_xywh: np.ndarray
    category: np.ndarray
    score: np.ndarray
    rles: list[dict] | None = None


def shown_table(image: Tensor, category: Tensor, scores: Tensor, boxes_xyxy: Tensor, min_score: float = SCORE_THRESHOLD,
                most: int = MOST_SHOWN) -> Tensor:
    """What is to be drawn of some images, as a small table that processes can exchange.

    Args:
        image: Position of each detection's image in the ground truth's `image_ids`, shape (N,) int64.
        category: Position of its category in the `category_ids`, shape (N,) int64.
        scores: Shape (N,).
        boxes_xyxy: In pixels of the annotated image, shape (N, 4).
        min_score: Lower scores are not kept.
        most: Detections kept of each image.

    Returns:
        Image, category, score, x, y, width, height, the most certain of each image first; shape (M, 7) float64.

    Example:
        >>> scores, boxes = torch.tensor([0.2, 0.9, 0.5]), torch.tensor([[0., 0., 4., 4.], [1., 2., 5., 5.], [0., 0., 9., 9.]])
        >>> shown_table(torch.tensor([7, 7, 7]), torch.tensor([0, 1, 2]), scores, boxes, most=1).tolist()
        [[7.0, 1.0, 0.8999999761581421, 1.0, 2.0, 4.0, 3.0]]
    """
    certain = (scores >= min_score).nonzero()[:, 0]
    scores = scores[certain].double()
    order, _ = rank_detections(image[certain], scores, most)
    scores, certain = scores[order], certain[order]
    boxes = boxes_xyxy[certain].double()
    return torch.cat([image[certain, None].double(), category[certain, None].double(), scores[:, None], boxes[:, :2],
                      boxes[:, 2:] - boxes[:, :2]], dim=1)


def no_table() -> Tensor:
    """A table without detections."""
    return torch.empty(0, _COLUMNS, dtype=torch.float64)


def shown_in(table: Tensor, image: int) -> Shown:
    """The detections of the image at a position, from tables of different images joined by `torch.cat`."""
    rows = table[table[:, 0] == image].cpu().numpy()
    return Shown(rows[:, 3:], rows[:, 1].astype(np.int64), rows[:, 2])


def shown_of(detections: Detections, image: int, min_score: float = SCORE_THRESHOLD, most: int = MOST_SHOWN) -> Shown:
    """The detections of one image to draw, from all detections of one IoU type."""
    from pycocotools import mask as mask_api

    here = np.flatnonzero((detections.image == image) & (detections.score >= min_score))
    here = here[np.argsort(-detections.score[here], kind='stable')][:most]
    rles = None if detections.rles is None else [detections.rles[number] for number in here.tolist()]
    boxes = np.array([mask_api.toBbox(rle) for rle in rles]).reshape(-1, 4) if rles is not None else detections.boxes_xywh[here]
    return Shown(boxes, detections.category[here], detections.score[here], rles)
