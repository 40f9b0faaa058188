"""A detector's results, in COCO's results format or as tensors, as compact, checked arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .ground_truth import GroundTruth, box_column, check_entries, integer_column, number_column, positions, read_json
from .rle import rle_areas, to_rle


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


def tensor_detections(ground_truth: GroundTruth, image_ids: Tensor, category_ids: Tensor, scores: Tensor,
                      boxes_xywh: Tensor) -> Detections:
    """What `evaluate.evaluate_coco` takes, on the device of the tensors.

    Args:
        ground_truth: The annotations that the ids refer to.
        image_ids: Shape (D,) int64.
        category_ids: Shape (D,) int64.
        scores: Shape (D,).
        boxes_xywh: Shape (D, 4), in pixels.

    Raises:
        ValueError: Shapes that do not fit, ids that the annotation file does not have, scores that are not finite, and boxes
            with negative or infinite sides.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> truth = read_ground_truth({'images': [{'id': 7, 'height': 9, 'width': 9}], 'annotations': [],
        ...                            'categories': [{'id': 3, 'name': 'cat'}, {'id': 5, 'name': 'dog'}]})
        >>> tensor_detections(truth, torch.tensor([7]), torch.tensor([5]), torch.rand(1), torch.tensor([[0, 0, 2., 3.]])).category
        tensor([1])
    """
    one_each = (len(scores),)
    for name, values, shape in (('scores', scores, one_each), ('image_ids', image_ids, one_each),
                                ('category_ids', category_ids, one_each), ('boxes_xywh', boxes_xywh, (*one_each, 4))):
        if values.shape != shape:
            raise ValueError(f'{name}: shape {shape} is needed for {len(scores)} scores, got {tuple(values.shape)}')
    scores, boxes = scores.detach().double(), boxes_xywh.detach().double()
    image, unknown_image = _positions(image_ids, ground_truth.image_ids)
    category, unknown_category = _positions(category_ids, ground_truth.category_ids)
    unusable = {
        'the image id is not in the annotation file': unknown_image,
        'the category id is not in the annotation file': unknown_category,
        'the score must be a finite number': ~torch.isfinite(scores),
        'the box must be four finite numbers [x, y, width, height] with sides of at least 0':
            ~torch.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1),
    }
    where = torch.stack(list(unusable.values()))
    if bool(where.any()):  # the only wait for the device
        kind, number = where.nonzero()[0].tolist()
        raise ValueError(f'detection {number}: {list(unusable)[kind]}; got image id {image_ids[number].item()}, category id '
                         f'{category_ids[number].item()}, score {scores[number].item()}, box {boxes[number].tolist()}')
    return Detections(image, category, scores, boxes[:, 2] * boxes[:, 3], boxes)


def _positions(ids: Tensor, known_ids: object) -> tuple[Tensor, Tensor]:
    """Where each id stands among the sorted known ones, and which are not there."""
    known = torch.as_tensor(known_ids, device=ids.device)
    place = torch.searchsorted(known, ids.long()).clamp(max=max(len(known) - 1, 0))
    return place, known[place] != ids if len(known) else torch.ones_like(ids, dtype=torch.bool)


def describe_unusual(detections: Detections, image_ids: np.ndarray) -> list[str]:
    """A line for each kind of unusual detection among those of one IoU type.

    Args:
        detections: The detections.
        image_ids: The ids that their images' positions point into, shape (I,).
    """
    lines = []
    repeated = repeated_detections(detections)
    if len(repeated):
        lines.append(f'{len(repeated)} of {len(detections.score)} detections repeat another one (same image, category, score and '
                     f'shape), such as in image id {image_ids[detections.image[repeated[0]]]}; each counts, so if the results '
                     'were joined twice, AP is too low')
    if detections.boxes_xywh is not None:
        inverted = (detections.boxes_xywh[:, 2:] < 0).any(axis=1)
        if inverted.any():
            lines.append(describe_inverted(image_ids[np.unique(detections.image[inverted])].tolist()))
    return lines


def describe_inverted(image_ids: Sequence[int]) -> str:
    """A line about the images, at least one, where a predicted box has x2 < x1 or y2 < y1."""
    images = f'image id {image_ids[0]}' if len(image_ids) == 1 else f'{len(image_ids)} images, such as image id {image_ids[0]},'
    return (f'predicted boxes of {images} have x2 < x1 or y2 < y1; as in pycocotools they match nothing, and count as false '
            'only where both sides are negative')


def repeated_detections(detections: Detections) -> np.ndarray:
    """Positions of the detections that equal an earlier one, sorted, int64.

    Example:
        >>> once = dict(image=[0, 0], category=[1, 1], score=[.5, .5], area=[4., 9.], boxes_xywh=[[0, 0, 2, 2], [0, 0, 3, 3]])
        >>> repeated_detections(Detections(**{name: np.array(values * 2) for name, values in once.items()})).tolist()
        [2, 3]
    """
    # Nearly all scores differ within a category of an image, so that few shapes have to be compared.
    columns = (detections.image, detections.category, detections.score)
    order = np.lexsort(columns[::-1])
    same = np.all([column[order][1:] == column[order][:-1] for column in columns], axis=0)
    near = np.zeros(len(order), dtype=bool)
    near[1:] |= same
    near[:-1] |= same
    seen, repeated = set(), []
    for number in np.sort(order[near]).tolist():
        shape = (detections.rles[number]['counts'] if detections.boxes_xywh is None else detections.boxes_xywh[number].tobytes())
        key = *(column[number] for column in columns), shape
        if key in seen:
            repeated.append(number)
        seen.add(key)
    return np.array(repeated, dtype=np.int64)
