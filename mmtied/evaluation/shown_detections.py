"""The few detections that are kept for drawing while everything else becomes match records."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .results import Detections
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


class ShownDetections:
    """Keeps the boxes of the most certain detections of each image, as one small table that processes can exchange.

    A metric calls `add` for each image in `process`, sends `table()` to the main process, and there calls `join`.

    Args:
        min_score: Lower scores are not kept.
        most: Detections kept of each image.

    Example:
        >>> shown = ShownDetections(min_score=0.3, most=1)
        >>> scores, boxes = torch.tensor([0.2, 0.9, 0.5]), torch.tensor([[0., 0., 4., 4.], [1., 2., 5., 5.], [0., 0., 9., 9.]])
        >>> shown.add(7, torch.tensor([0, 1, 2]), scores, boxes)
        >>> ShownDetections.join([shown.table()]).of_image(7).boxes_xywh.tolist()
        [[1.0, 2.0, 4.0, 3.0]]
    """

    def __init__(self, min_score: float = SCORE_THRESHOLD, most: int = MOST_SHOWN) -> None:
        self.min_score = min_score
        self.most = most
        self._of_image: dict[int, Tensor] = {}

    def add(self, image: int, category: Tensor, scores: Tensor, boxes_xyxy: Tensor) -> None:
        """Keep what is to be drawn of one image; an image that comes again (a padded sampler) takes its own place.

        Args:
            image: Position of the image in the ground truth's `image_ids`.
            category: Position of each category in its `category_ids`, shape (N,) int64.
            scores: Shape (N,).
            boxes_xyxy: In pixels of the annotated image, shape (N, 4).
        """
        scores = scores.detach().double()
        best = torch.argsort(scores, stable=True, descending=True)[:self.most]
        best = best[scores[best] >= self.min_score]
        boxes = boxes_xyxy.detach().double()[best]
        rows = torch.cat([torch.full_like(boxes[:, :1], image), category[best, None].to(boxes), scores[best, None],
                          boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        self._of_image[image] = rows.cpu()

    def table(self) -> Tensor:
        """Everything kept: image, category, score, x, y, width, height; shape (N, 7) float64, on the CPU."""
        return torch.cat([torch.empty(0, _COLUMNS, dtype=torch.float64), *self._of_image.values()])

    @classmethod
    def join(cls, tables: Sequence[Tensor]) -> 'ShownDetections':
        """What several processes kept; an image that several of them saw counts once."""
        joined = cls()
        for table in tables:
            images, counts = table[:, 0].unique_consecutive(return_counts=True)
            joined._of_image.update(zip(images.long().tolist(), table.split(counts.tolist()), strict=True))
        return joined

    def clear(self) -> None:
        """Forget everything, for the next evaluation."""
        self._of_image.clear()

    def of_image(self, image: int) -> Shown:
        """The detections of the image at a position."""
        rows = self._of_image.get(image, torch.empty(0, _COLUMNS, dtype=torch.float64)).numpy()
        return Shown(rows[:, 3:], rows[:, 1].astype(np.int64), rows[:, 2])


def shown_of(detections: Detections, image: int, min_score: float = SCORE_THRESHOLD, most: int = MOST_SHOWN) -> Shown:
    """The detections of one image to draw, from all detections of one IoU type."""
    from pycocotools import mask as mask_api

    here = np.flatnonzero((detections.image == image) & (detections.score >= min_score))
    here = here[np.argsort(-detections.score[here], kind='stable')][:most]
    rles = None if detections.rles is None else [detections.rles[number] for number in here.tolist()]
    boxes = np.array([mask_api.toBbox(rle) for rle in rles]).reshape(-1, 4) if rles is not None else detections.boxes_xywh[here]
    return Shown(boxes, detections.category[here], detections.score[here], rles)
