"""A detector's results in COCO's results format as compact, checked arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .coco_json import box_column, check_entries, integer_column, number_column, positions, read_json
from .ground_truth import GroundTruth, to_rle
from .rle import rle_areas


@dataclass(frozen=True)
class Detections:
    """Detections of one IoU type, in the order of the file: arrays, or all of them tensors on one device for `evaluate`.

    Args:
        image: Position of each detection's image in the ground truth's `image_ids`, shape (D,) int64.
        category: Position of its category in the ground truth's `category_ids`, shape (D,) int64.
        score: Shape (D,) float64.
        area: Area in pixels of the box (bbox) or the mask (segm), shape (D,) float64.
        boxes_xywh: Shape (D, 4) float64, for bbox.
        rles: Run-length codes, for segm.
    """

    image: np.ndarray | Tensor
    category: np.ndarray | Tensor
    score: np.ndarray | Tensor
    area: np.ndarray | Tensor
    boxes_xywh: np.ndarray | Tensor | None = None
    rles: list[dict] | None = None


def held_iou_types(entries: Sequence[dict]) -> tuple[str, ...]:
    """The IoU types that a results list can be evaluated for, by its first entry; none for an empty list."""
    if not entries:
        return ()
    keys = {'bbox': 'bbox', 'segm': 'segmentation'}
    return tuple(iou_type for iou_type, key in keys.items() if entries[0].get(key))


def read_results(results: str | os.PathLike | list) -> list[dict]:
    """A COCO results list from a file or as it is, checked to be a list of objects with ids and a score.

    Raises:
        ValueError: Missing, empty or truncated file, or another layout.
    """
    source, entries = ('results', results) if isinstance(results, list) else (str(results), read_json(results))
    check_entries(entries, ('image_id', 'category_id', 'score'), source)
    return entries


def make_detections(entries: Sequence[dict], ground_truth: GroundTruth, iou_type: str,
                    source: str = 'results') -> Detections:
    """The arrays of one IoU type from a results list.

    Masks' areas are pixel counts, also where an entry has a bbox.

    Args:
        entries: What `read_results` returns.
        ground_truth: The annotations that the ids refer to.
        iou_type: ``'bbox'`` or ``'segm'``.
        source: Name for messages.

    Raises:
        ValueError: Ids that the annotation file does not have, scores that are not finite, boxes with negative or infinite
            sides, masks of another size than their image, broken run-length codes, or entries without what the IoU type needs.
    """
    def where(number: int) -> str:
        return f'{source}[{number}]'

    key = 'bbox' if iou_type == 'bbox' else 'segmentation'
    for number, entry in enumerate(entries):
        if not entry.get(key):
            raise ValueError(f'{where(number)} has no {key!r}, which {iou_type} needs')
    common = dict(
        image=positions(integer_column(entries, 'image_id', source), ground_truth.image_ids, 'image id', source),
        category=positions(integer_column(entries, 'category_id', source), ground_truth.category_ids, 'category id', source),
        score=number_column(entries, 'score', source))
    if iou_type == 'bbox':
        boxes = box_column(entries, source)
        return Detections(**common, area=boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)
    heights, widths = (column.tolist() for column in ground_truth.image_sizes[common['image']].T)
    rles = [to_rle(entry['segmentation'], height, width, f'{source}[{number}]')
            for number, (entry, height, width) in enumerate(zip(entries, heights, widths, strict=True))]
    return Detections(**common, area=rle_areas(rles, where).astype(np.float64), rles=rles)


def join_detections(parts: Sequence[Detections]) -> Detections:
    """The detections of several files of one IoU type as one."""
    first = parts[0]
    return Detections(image=np.concatenate([part.image for part in parts]),
                      category=np.concatenate([part.category for part in parts]),
                      score=np.concatenate([part.score for part in parts]),
                      area=np.concatenate([part.area for part in parts]),
                      boxes_xywh=None if first.boxes_xywh is None else np.concatenate([part.boxes_xywh for part in parts]),
                      rles=None if first.rles is None else [rle for part in parts for rle in part.rles])
