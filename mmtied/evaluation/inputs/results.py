"""A detector's results as compact, checked arrays, from COCO's results format or from tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .coco_json import BOX_FORMATS, box_column, check_entries, integer_column, number_column, positions, read_json
from .ground_truth import GroundTruth
from .rle import rle_areas, to_rle

_KEYS = {'bbox': 'bbox', 'segm': 'segmentation'}
#: Keys under which files hold a list of results.
_WRAPPERS = ('annotations', 'results', 'predictions', 'detections')


@dataclass(frozen=True)
class Detections:
    """Detections of one IoU type, in the order of the file: arrays, or tensors that are all on one device.

    Attributes:
        image: Index of each detection's image in the ground truth's `image_ids`, shape (D,) int64.
        category: Index of its category in the ground truth's `category_ids`, shape (D,) int64.
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

    def arrays(self) -> 'Detections':
        """Return them as arrays, from whichever device."""
        return replace(self, **{name: column.cpu().numpy() for name, column in vars(self).items() if isinstance(column, Tensor)})


def held_iou_types(entries: Sequence[dict]) -> tuple[str, ...]:
    """Return the IoU types that a results list can be evaluated for, by its first entry; none for an empty list."""
    return tuple(iou_type for iou_type, key in _KEYS.items() if entries and _is_given(entries[0].get(key)))


def read_results(results: Any) -> list[dict]:
    """Read a COCO results list from a file, or take one as it is; check that its entries have ids and a score.

    Args:
        results: A file, a list, a dict that holds one under ``annotations``, ``results``, ``predictions`` or ``detections``, or
            the pycocotools ``COCO`` that `loadRes` returns.

    Raises:
        ValueError: The file is missing, empty or truncated, or has another layout.
    """
    results = getattr(results, 'dataset', results)
    source, entries = ('results', results) if isinstance(results, list | dict) else (str(results), read_json(results))
    if isinstance(entries, dict):
        held = [key for key in _WRAPPERS if isinstance(entries.get(key), list)]
        if len(held) != 1:
            raise ValueError(f'{source}: a list was expected, or a dict with one under {", ".join(_WRAPPERS)}; got a dict with '
                             f'{", ".join(map(str, entries)) or "nothing"}')
        source, entries = f'{source}: {held[0]}', entries[held[0]]
    check_entries(entries, ('image_id', 'category_id', 'score'), source)
    return entries


def make_detections(entries: Sequence[dict], ground_truth: GroundTruth, iou_type: str,
                    source: str = 'results', box_format: str = 'xywh') -> Detections:
    """Convert a results list to the arrays of one IoU type.

    Areas of masks are pixel counts, also where an entry has a bbox.

    Args:
        entries: From `read_results`.
        ground_truth: The annotations that the ids refer to.
        iou_type: ``'bbox'`` or ``'segm'``.
        source: Name for messages.
        box_format: One of `BOX_FORMATS`.

    Raises:
        ValueError: An entry has an unknown id, a score that is not finite, a box with negative or infinite sides, a mask of
            another size than its image, a broken run-length code, or lacks what the IoU type needs.
    """
    key = _KEYS[iou_type]
    values = [entry.get(key) for entry in entries]
    if not all(map(_is_given, values)):
        number = next(number for number, value in enumerate(values) if not _is_given(value))
        raise ValueError(f'{source}[{number}] has no {key!r}, which {iou_type} needs')
    common = dict(
        image=positions(integer_column(entries, 'image_id', source), ground_truth.image_ids, 'image id', source),
        category=positions(integer_column(entries, 'category_id', source), ground_truth.category_ids, 'category id', source),
        score=number_column(entries, 'score', source))
    if iou_type == 'bbox':
        boxes = box_column(entries, source, box_format)
        return Detections(**common, area=boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)
    heights, widths = (column.tolist() for column in ground_truth.image_sizes[common['image']].T)
    rles = [to_rle(entry['segmentation'], height, width, f'{source}[{number}]')
            for number, (entry, height, width) in enumerate(zip(entries, heights, widths, strict=True))]
    return Detections(**common, area=rle_areas(rles, f'{source}[{{}}]'.format).astype(np.float64), rles=rles)


def _is_given(value: Any) -> bool:
    """Return whether a box or mask is there; arrays have no truth value of their own."""
    return value is not None and len(value) > 0


def join_detections(parts: Sequence[Detections]) -> Detections:
    """Join the detections of several files of one IoU type."""
    first, *others = parts
    if not others:
        return first
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ('image', 'category', 'score', 'area')}
    boxes = None if first.boxes_xywh is None else np.concatenate([part.boxes_xywh for part in parts])
    rles = None if first.rles is None else [rle for part in parts for rle in part.rles]
    return Detections(**columns, boxes_xywh=boxes, rles=rles)


def tensor_detections(ground_truth: GroundTruth, image_ids: Tensor, category_ids: Tensor, scores: Tensor,
                      boxes_xywh: Tensor) -> Detections:
    """Check a detector's boxes that are tensors already; they stay on their device.

    Args:
        ground_truth: The annotations that the ids refer to.
        image_ids: Shape (D,) int64.
        category_ids: Shape (D,) int64.
        scores: Shape (D,).
        boxes_xywh: Shape (D, 4), in pixels.

    Raises:
        ValueError: Shapes do not fit, an id is not in the annotation file, a score is not finite, or a box has negative or
            infinite sides.

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
    image, unknown_image = _tensor_positions(image_ids, ground_truth.image_ids)
    category, unknown_category = _tensor_positions(category_ids, ground_truth.category_ids)
    unusable = {
        'the image id is not in the annotation file': unknown_image,
        'the category id is not in the annotation file': unknown_category,
        'the score must be a finite number': ~torch.isfinite(scores),
        'the box must be four finite numbers [x, y, width, height] with sides of at least 0':
            ~torch.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1),
    }
    where = torch.stack(list(unusable.values()))
    if bool(where.any()):  # the only synchronization with the device
        kind, number = where.nonzero()[0].tolist()
        raise ValueError(f'detection {number}: {list(unusable)[kind]}; got image id {image_ids[number].item()}, category id '
                         f'{category_ids[number].item()}, score {scores[number].item()}, box {boxes[number].tolist()}')
    return Detections(image, category, scores, boxes[:, 2] * boxes[:, 3], boxes)


def _tensor_positions(ids: Tensor, known_ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the index of each id among the sorted known ones, and a mask of those that are not there."""
    known = torch.as_tensor(known_ids, device=ids.device)
    index = torch.searchsorted(known, ids.long()).clamp(max=max(len(known) - 1, 0))
    return index, known[index] != ids if len(known) else torch.ones_like(ids, dtype=torch.bool)


def describe_unusual(detections: Detections, ground_truth: GroundTruth) -> list[str]:
    """Describe what COCO's rules allow in results although it is rarely meant, in a line for each kind.

    None of it changes a number, so that the numbers stay those of pycocotools.

    Args:
        detections: Those of one IoU type, as arrays.
        ground_truth: The annotations that their indices point into.
    """
    image_ids, lines = ground_truth.image_ids, []
    repeated = repeated_detections(detections)
    if len(repeated):
        lines.append(f'{len(repeated)} of {len(detections.score)} detections repeat another one (same image, category, score and '
                     f'shape), such as in image id {image_ids[detections.image[repeated[0]]]}; each counts, so if the results '
                     'were joined twice, AP is too low')
    if detections.boxes_xywh is not None:
        inverted = (detections.boxes_xywh[:, 2:] < 0).any(axis=1)
        other_format = describe_other_format(detections.boxes_xywh, ground_truth.image_sizes[detections.image])
        if other_format:
            lines.append(other_format)
        elif inverted.any():
            lines.append(describe_inverted(image_ids[np.unique(detections.image[inverted])].tolist()))
    return lines


def describe_other_format(boxes_xywh: np.ndarray, image_sizes: np.ndarray) -> str | None:
    """Describe boxes that look as if they were read in the wrong one of `BOX_FORMATS`; return None where they do not.

    Args:
        boxes_xywh: As they were read, shape (D, 4).
        image_sizes: Height and width of each one's image, shape (D, 2).

    Example:
        >>> describe_other_format(np.array([[50., 50., 90., 80.]]), np.array([[100, 100]]))
        "1 of 1 boxes leave their image as x, y, width, height, and 1 fit as x1, y1, x2, y2; if that is what they are, say \
box_format='xyxy' (--box-format xyxy)"
    """
    size = image_sizes[:, ::-1] + 1  # rounding may push a box over the edge by a pixel
    start, sides = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    readings = {
        'xyxy': (((start + sides) > size), (sides >= start) & (sides <= size), 'leave their image as x, y, width, height',
                 'x1, y1, x2, y2'),
        'xywh': (sides < 0, (start + (start + sides) <= size) & (start + sides > 0), 'have x2 < x1 or y2 < y1 as x1, y1, x2, y2',
                 'x, y, width, height'),
    }
    for other, (wrong, fits, complaint, reading) in readings.items():
        num_wrong, num_fits = int(wrong.any(axis=1).sum()), int(fits.all(axis=1).sum())
        if num_wrong * 2 > len(boxes_xywh) and num_fits * 10 > 9 * len(boxes_xywh):
            return (f'{num_wrong} of {len(boxes_xywh)} boxes {complaint}, and {num_fits} fit as {reading}; if that is what they '
                    f'are, say box_format={other!r} (--box-format {other})')
    return None


def check_box_format(box_format: str | None) -> None:
    """Raise a ValueError unless `box_format` is one of `BOX_FORMATS`, or None."""
    if box_format not in (None, *BOX_FORMATS):
        raise ValueError(f'box_format: {" or ".join(map(repr, BOX_FORMATS))} is needed, got {box_format!r}')


def describe_inverted(image_ids: Sequence[int]) -> str:
    """Describe predicted boxes with x2 < x1 or y2 < y1 in some images, at least one."""
    images = f'image id {image_ids[0]}' if len(image_ids) == 1 else f'{len(image_ids)} images, such as image id {image_ids[0]},'
    return (f'predicted boxes of {images} have x2 < x1 or y2 < y1; as in pycocotools they match nothing, and count as false '
            'only where both sides are negative')


def repeated_detections(detections: Detections) -> np.ndarray:
    """Return the sorted indices of detections that equal an earlier one, int64.

    Example:
        >>> once = dict(image=[0, 0], category=[1, 1], score=[.5, .5], area=[4., 9.], boxes_xywh=[[0, 0, 2, 2], [0, 0, 3, 3]])
        >>> repeated_detections(Detections(**{name: np.array(values * 2) for name, values in once.items()})).tolist()
        [2, 3]
    """
    # Sorting by a few columns leaves few candidates, so that few shapes have to be compared.
    candidates = np.arange(len(detections.score))
    for columns in (('score', ), ('image', 'category', 'score')):
        values = [getattr(detections, name)[candidates] for name in columns]
        order = np.lexsort(values)
        equal = np.all([column[order][1:] == column[order][:-1] for column in values], axis=0)
        near = np.zeros(len(order), dtype=bool)
        near[1:] |= equal
        near[:-1] |= equal
        candidates = np.sort(candidates[order[near]])
    seen, repeated = set(), []
    for number in candidates.tolist():
        shape = detections.rles[number]['counts'] if detections.boxes_xywh is None else detections.boxes_xywh[number].tobytes()
        key = detections.image[number], detections.category[number], detections.score[number], shape
        if key in seen:
            repeated.append(number)
        seen.add(key)
    return np.array(repeated, dtype=np.int64)
