"""Results that are surely not meant: good boxes of other categories, or of categories that are shifted."""

import numpy as np
import torch

from .inputs.results import Detections
from .matching import box_iou
from .result import EvaluationResult

#: AP50 below which the boxes are looked at.
_LOW = .1
#: Images that are looked at.
_IMAGES = 500


def describe_doubts(result: EvaluationResult) -> list[str]:
    """Describe an AP near 0 where boxes are good; a line, or none."""
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
    line = (f'AP50 is {100 * accuracy:.1f} %, but boxes are good: at IoU 0.5 they find {found} of {total} objects of any '
            'category; ')
    best = int(counts.argmax())
    if shifts[best] != 0 and abs(int(shifts[best])) <= 2 and counts[best] * 2 > len(pairs):
        return [f'{line}categories are shifted by {shifts[best]:+d}: --category-offset {shifts[best]} '
                f'(category_offset={shifts[best]}) corrects that']
    return [f"{line}categories do not fit those of the annotations: --label-names lists the model's classes in the order of its "
            'labels, --class-agnostic (use_cats=False) evaluates without them']


def _agnostic_pairs(result: EvaluationResult, detections: Detections) -> tuple[int, int, np.ndarray]:
    """Return how many objects have a box at IoU 0.5, of how many, and the categories of detection and object of each pair.

    Looks at the first images with objects, and at the highest-scoring detections of each, twice as many as it has objects.
    """
    truth = result.ground_truth
    single = np.flatnonzero(~truth.crowd)
    images = np.unique(truth.image[single])[:_IMAGES]
    order = np.lexsort((-detections.score, detections.image))
    sorted_images = detections.image[order]
    found, total, pairs = 0, 0, [np.zeros((0, 2), dtype=np.int64)]
    by_image = single[np.argsort(truth.image[single], kind='stable')]
    starts = np.searchsorted(truth.image[by_image], images)
    ends = np.searchsorted(truth.image[by_image], images, side='right')
    for image, start, end in zip(images.tolist(), starts.tolist(), ends.tolist(), strict=True):
        objects = by_image[start:end]
        first, last = np.searchsorted(sorted_images, image), np.searchsorted(sorted_images, image, side='right')
        own = order[first:min(last, first + 2 * len(objects))]
        total += len(objects)
        if not len(own):
            continue
        grid = np.repeat(np.arange(len(own)), len(objects)), np.tile(np.arange(len(objects)), len(own))
        iou = box_iou(torch.from_numpy(detections.boxes_xywh[own][grid[0]]), torch.from_numpy(truth.boxes_xywh[objects][grid[1]]),
                      torch.zeros(len(grid[0]), dtype=torch.bool)).numpy().reshape(len(own), len(objects))
        best = iou.argmax(axis=0)
        hit = iou[best, np.arange(len(objects))] >= .5
        found += int(hit.sum())
        pairs.append(np.column_stack([detections.category[own[best[hit]]], truth.category[objects[hit]]]))
    return found, total, np.concatenate(pairs)
