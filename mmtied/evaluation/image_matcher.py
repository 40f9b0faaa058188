"""Match the predictions of one image at a time, on the device that holds them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records
from .evaluate import make_records
from .ground_truth import GroundTruth, to_rle
from .mask_pairs import count_pixels, crop_mask, dense_mask_pairs, rle_pairs
from .matching import min_iou, rank_detections
from .pairs import box_pairs
from .protocol import IOU_THRESHOLDS
from .results import rle_areas
from .targets import Targets, make_targets

_MIN_IOU = min_iou(torch.from_numpy(IOU_THRESHOLDS))


class ImageMatcher:
    """Turns predictions of single images into match records.

    Args:
        ground_truth: The annotations.
        category_ids: Category id of each label, in the order of the labels.
        limit: Detections kept for each image and category.
    """

    def __init__(self, ground_truth: GroundTruth, category_ids: Sequence[int], limit: int) -> None:
        self.ground_truth = ground_truth
        self.categories = ground_truth.select_categories(category_ids)
        self.targets = make_targets(ground_truth, self.categories)
        self.limit = limit
        self._place_of_label = torch.from_numpy(
            np.searchsorted(ground_truth.category_ids[self.categories], np.asarray(category_ids, dtype=np.int64)))
        self._position = {image_id: position for position, image_id in enumerate(ground_truth.image_ids.tolist())}
        self._on_device: dict[torch.device, tuple[Targets, Tensor]] = {}

    def position(self, image_id: int) -> int:
        """Where an image stands among the sorted ids; a ValueError when the annotation file does not have it."""
        if image_id not in self._position:
            raise ValueError(f'predictions for image id {image_id!r}, which is not in {self.ground_truth.source}')
        return self._position[image_id]

    def match_boxes(self, image_id: int, labels: Tensor, scores: Tensor, boxes_xyxy: Tensor) -> Records:
        """The records by box IoU.

        Args:
            image_id: The image's id in the annotation file.
            labels: Shape (N,), integers.
            scores: Shape (N,), finite.
            boxes_xyxy: Shape (N, 4) in pixels of the annotated image.

        Raises:
            ValueError: Unknown image, a label without a category, scores or boxes that are not finite.
        """
        cells, order, rank, scores, targets = self._rank(image_id, labels, scores)
        boxes = boxes_xyxy.double()[order]  # before any subtraction, as CocoMetric does by way of Python floats
        if not bool(torch.isfinite(boxes).all()):
            raise ValueError(f'image id {image_id}: predicted boxes must be finite numbers; the model may have diverged')
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        pairs = box_pairs(cells, boxes, targets.cells, targets.boxes_xywh, targets.crowd, _MIN_IOU)
        return make_records(pairs, cells, rank, scores, boxes[:, 2] * boxes[:, 3], targets)

    def match_masks(self, image_id: int, labels: Tensor, scores: Tensor, masks: Tensor | Sequence[dict]) -> Records:
        """The records by mask IoU.

        Args:
            image_id: The image's id in the annotation file.
            labels: Shape (N,), integers.
            scores: Shape (N,), finite.
            masks: Boolean masks of the annotated image's size, shape (N, height, width), or N run-length codes.

        Raises:
            ValueError: As `match_boxes`, and masks of another size than the image.
        """
        cells, order, rank, scores, targets = self._rank(image_id, labels, scores)
        size = self.ground_truth.image_sizes[self.position(image_id)].tolist()
        annotations = targets.annotation.tolist()
        if isinstance(masks, Tensor):
            if len(masks) and list(masks.shape[1:]) != size:
                raise ValueError(f'image id {image_id}: predicted masks have size {list(masks.shape[1:])}, '
                                 f'the image {size} (height, width)')
            area = count_pixels(masks)[order]
            pairs = dense_mask_pairs(cells, masks, order, area, targets.cells,
                                     lambda target: self._crop(annotations[target], masks.device), targets.crowd, _MIN_IOU)
        else:
            rles = [to_rle(masks[number], *size, f'image id {image_id}') for number in order.tolist()]
            area = torch.from_numpy(rle_areas(rles)).to(cells.device)
            pairs = rle_pairs(cells, rles, targets.cells, lambda target: self.ground_truth.rle(annotations[target]),
                              targets.crowd, _MIN_IOU)
        return make_records(pairs, cells, rank, scores, area, targets)

    def _rank(self, image_id: int, labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Targets]:
        """Cells, order, ranks and scores of the detections that are kept, and the image's targets."""
        position, device = self.position(image_id), scores.device
        if device not in self._on_device:
            self._on_device[device] = self.targets.to(device), self._place_of_label.to(device)
        targets, place_of_label = self._on_device[device]
        scores, labels = scores.double(), labels.long()
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f'image id {image_id}: predicted scores must be finite numbers; the model may have diverged')
        if bool(((labels < 0) | (labels >= len(place_of_label))).any()):
            raise ValueError(f'image id {image_id}: predicted labels must be from 0 to {len(place_of_label) - 1}, '
                             f'got {int(labels.min())} to {int(labels.max())}')
        cells = position * self.targets.num_categories + place_of_label[labels]
        order, rank = rank_detections(cells, scores, self.limit)
        return cells[order], order, rank, scores[order], targets.of_image(position)

    def _crop(self, annotation: int, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
        mask, corner = crop_mask(self.ground_truth.rle(annotation))
        return torch.from_numpy(mask).to(device), corner

