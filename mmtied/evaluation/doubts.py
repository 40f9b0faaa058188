"""Detect good boxes with wrong or shifted categories."""

import numpy as np
import torch

from .inputs.results import Detections
from .matching import box_pairs, rank_detections
from .result import EvaluationResult

#: AP50 below which boxes are matched without categories.
_LOW = .1
#: Number of images used for that.
_IMAGES = 500


def describe_doubts(result: EvaluationResult) -> list[str]:
    """Return a line that describes an AP near 0 despite good boxes, or an empty list."""
    detections = (result.detections or {}).get('bbox')
    if detections is None or 'bbox' not in result.report or not len(detections.score):
        return []
    accuracy = result.report['bbox']['all']['AP50']
    if accuracy is None or accuracy >= _LOW or len(result.ground_truth.category_ids) < 2:
        return []
    found, total, pairs = _agnostic_pairs(result, detections.arrays())
    if found * 2 < total or not total:
        return []
    ids = result.ground_truth.category_ids
    detected, true = ids[pairs[:, 0]], ids[pairs[:, 1]]
    shifts, counts = np.unique(true - detected, return_counts=True)
    line = (f'AP50 is {100 * accuracy:.1f} %, but boxes are good: regardless of category, {found} of {total} objects have one at '
            'IoU 0.5; ')
    best = int(counts.argmax())
    if shifts[best] != 0 and abs(int(shifts[best])) <= 2 and counts[best] * 2 > len(pairs):
        return [f'{line}categories are shifted by {shifts[best]:+d}: --category-offset {shifts[best]} '
                f'(category_offset={shifts[best]}) corrects that']
    return [f"{line}categories do not match those of the annotations: --label-names lists the model's classes in label order, "
            '--class-agnostic (use_cats=False) ignores categories']


def _agnostic_pairs(result: EvaluationResult, detections: Detections) -> tuple[int, int, np.ndarray]:
    """Return the number of objects with a box at IoU 0.5, the number of objects, and the two categories of each matched pair.

    Uses the first images with objects, and per image the highest-scoring detections, twice as many as objects.
    """
    truth = result.ground_truth
    objects = np.flatnonzero(~truth.crowd)
    objects = objects[np.argsort(truth.image[objects], kind='stable')]
    objects = objects[np.isin(truth.image[objects], np.unique(truth.image[objects])[:_IMAGES])]
    counts = torch.from_numpy(np.bincount(truth.image[objects], minlength=len(truth.image_ids)))
    image, boxes = torch.from_numpy(detections.image), torch.from_numpy(detections.boxes_xywh)
    order, rank = rank_detections(image, torch.from_numpy(detections.score), len(image))
    chosen = order[rank < 2 * counts[image[order]]]
    pairs = box_pairs(image[chosen], boxes[chosen], torch.from_numpy(truth.image[objects]),
                      torch.from_numpy(truth.boxes_xywh[objects]), torch.zeros(len(objects), dtype=torch.bool))
    good = (pairs.iou >= .5).nonzero()[:, 0]
    best, _ = rank_detections(pairs.target[good], pairs.iou[good], 1)
    found, of_objects = chosen[pairs.detection[good[best]]].numpy(), objects[pairs.target[good[best]].numpy()]
    return len(best), len(objects), np.column_stack([detections.category[found], truth.category[of_objects]])
