"""A detector's results as compact, validated arrays, from COCO's results format or from tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from ..protocol import BOX_FORMATS
from .arrays import GroundTruth
from .categories import label_category_ids, named_category_ids, offset_hint
from .coco_json import (
    FARTHEST_BOX,
    box_column,
    check_entries,
    integer_column,
    number_column,
    read_json,
    replace_faulty,
    values_of,
)
from .faults import Faults, one_line, shown
from .rle import rle_areas, to_rle

_KEYS = {'bbox': 'bbox', 'segm': 'segmentation'}
#: Keys under which files store a list of results.
WRAPPERS = ('annotations', 'results', 'predictions', 'detections')


@dataclass(frozen=True)
class Detections:
    """Detections of one IoU type, in the order of the file: arrays, or tensors on one device.

    Attributes:
        image: Index of each detection's image in the ground truth's `image_ids`, shape (D,) int64.
        category: Index of each detection's category in the ground truth's `category_ids`, shape (D,) int64.
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

    def select(self, chosen: np.ndarray) -> 'Detections':
        """Select detections by a mask or by indices."""
        numbers = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        columns = {name: column[numbers] for name, column in vars(self).items() if name != 'rles' and column is not None}
        return replace(self, **columns, rles=None if self.rles is None else [self.rles[number] for number in numbers.tolist()])

    def arrays(self) -> 'Detections':
        """Return the detections as arrays, from any device."""
        return replace(self, **{name: column.cpu().numpy() for name, column in vars(self).items() if isinstance(column, Tensor)})


@dataclass(frozen=True)
class ResultReading:
    """Options for reading results, see `load_detections`."""

    classes: Sequence[str] | None = None
    box_format: str | None = None
    skip_invalid: bool = False
    label_names: Sequence[str] | None = None
    category_offset: int = 0
    any_category: bool = False

    def __post_init__(self) -> None:
        if self.box_format not in (None, *BOX_FORMATS):
            raise ValueError(f'box_format: expected {" or ".join(map(repr, BOX_FORMATS))}, got {self.box_format!r}')

    def label_ids(self, ground_truth: GroundTruth) -> list[int]:
        """Return the category id of each label of the model, -1 if the annotations have no such category."""
        return (named_category_ids(ground_truth, self.label_names) if self.label_names else
                label_category_ids(ground_truth, self.classes))


def held_iou_types(entries: Sequence[dict]) -> tuple[str, ...]:
    """Return the IoU types of a results list, judged by its first entry; none for an empty list."""
    first = next((entry for entry in entries if isinstance(entry, dict)), {})
    return tuple(iou_type for iou_type, key in _KEYS.items() if _is_present(first.get(key)))


def read_results(results: Any, source: str = 'results') -> list[dict]:
    """Read a COCO results list from a file, or return one unchanged.

    `results` may also be a dict with a list under one of `WRAPPERS`, or the pycocotools ``COCO`` that `loadRes` returns.
    `source` names results other than files in messages.
    """
    results = getattr(results, 'dataset', results)
    source, entries = (source, results) if isinstance(results, list | dict) else (str(results), read_json(results))
    if isinstance(entries, dict):
        held = [key for key in WRAPPERS if isinstance(entries.get(key), list)]
        if len(held) != 1:
            raise ValueError(f'{source}: a list was expected, or a dict with one under {", ".join(WRAPPERS)}; got a dict with '
                             f'{one_line(", ".join(map(str, entries))) or "nothing"}')
        source, entries = f'{source}: {held[0]}', entries[held[0]]
    return entries


def make_detections(entries: Sequence[dict], ground_truth: GroundTruth, iou_type: str, source: str = 'results',
                    reading: ResultReading | None = None, notes: list[str] | None = None) -> Detections:
    """Convert a results list to the arrays of one IoU type.

    Areas of masks are pixel counts, even for entries with a bbox. If `reading` names classes or labels, entries of categories
    missing from the annotation file are left out.

    Args:
        entries: Each with ``image_id`` (an id or a file name), ``category_id`` (an id or a category's name), ``score``, and
            ``bbox`` or ``segmentation``.
        ground_truth: The annotations that the ids refer to.
        iou_type: ``'bbox'`` or ``'segm'``.
        source: Name used in messages.
        reading: Options for reading.
        notes: List to which lines on left-out entries and on image ids looked up by name are appended.

    Raises:
        ValueError: An entry has an unknown id, a non-finite score, a box with negative or infinite sides, a mask of another size
            than its image, a broken run-length code, or no box or mask for the IoU type. The message counts such entries.
    """
    key, reading, notes = _KEYS[iou_type], reading or ResultReading(), [] if notes is None else notes
    faults = Faults(source, len(entries), reading.skip_invalid)
    entries = check_entries(entries, ('image_id', 'category_id', 'score'), source, faults)
    category = _category_column(entries, ground_truth, reading.category_offset, faults)
    others = (category < 0) & ~faults.bad
    if not reading.any_category and (reading.classes or reading.label_names):
        faults.exempt = others
    elif not reading.any_category and others.any():
        ids = values_of(entries, 'category_id')
        hint = offset_hint(ids, ground_truth)
        faults.add(others, lambda number: (f': category id {shown(ids[number])} is not in the annotation file{hint}; --classes '
                                           'NAME ... evaluates only some categories and leaves out other results'))
    values = values_of(entries, key)
    plain = set(map(type, values)) <= {list, dict} and all(values)  # 3 times as fast as the line below
    present = [] if plain else list(map(_is_present, values))
    if not all(present):
        lacking = {number: f' has no {key!r}, which {iou_type} needs' for number, has in enumerate(present) if not has}
        entries = replace_faulty(entries, lacking, faults)
    image = image_positions(values_of(entries, 'image_id'), ground_truth, faults, notes)
    common = dict(image=image, category=np.maximum(category, 0), score=number_column(entries, 'score', faults))
    if iou_type == 'bbox':
        boxes = box_column(entries, reading.box_format or 'xywh', ground_truth.image_sizes[image], faults)
        found = Detections(**common, area=boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)
    else:
        rles = _rle_column(entries, ground_truth.image_sizes[image], source, faults)
        found = Detections(**common, area=rle_areas(rles, f'{source}[{{}}]'.format).astype(np.float64), rles=rles)
    return settled(found, others, reading.any_category, faults, notes)


def image_positions(image_ids: Sequence[Any], ground_truth: GroundTruth, faults: Faults, notes: list[str]) -> np.ndarray:
    """Return the index of each entry's image, (N,) int64; unknown ids get index 0 and a fault, file names a note."""
    image, by_name = ground_truth.images.find_all(image_ids)
    faults.add(image < 0, lambda number: ': ' + ground_truth.images.describe(image_ids[number], int(image[number]),
                                                                            'the annotation file'))
    if by_name:
        notes.append(f'image ids such as {shown(image_ids[0])} were looked up among the file names of {ground_truth.source}')
    return np.maximum(image, 0)


def settled(found: Detections, others: np.ndarray, any_category: bool, faults: Faults, notes: list[str]) -> Detections:
    """Refuse or leave out faulty detections and, unless `any_category`, leave out those of unknown categories.

    `others` marks the latter, shape (D,) bool. `notes` gets a line for each kind.
    """
    others = others & ~faults.bad
    if others.any():
        notes.append(f'{others.sum()} of {len(others)} detections are of categories that the annotations do not have, and '
                     + ('count too' if any_category else 'are left out'))
    line = faults.settle()
    if line:
        notes.append(line.removeprefix(f'{faults.source}: '))
    left_out = faults.bad if any_category else faults.bad | others
    return found.select(~left_out) if left_out.any() else found


def _category_column(entries: Sequence[dict], ground_truth: GroundTruth, offset: int, faults: Faults) -> np.ndarray:
    """Return the index of each entry's category, given by id or name; -1 for unknown ones."""
    values = values_of(entries, 'category_id')
    if str in set(map(type, values)):
        values = ground_truth.named_ids(values, digits=True)
    return ground_truth.find_categories(integer_column(entries, 'category_id', faults, values) + offset)


def _rle_column(entries: Sequence[dict], sizes: np.ndarray, source: str, faults: Faults) -> list[dict]:
    """Return the run-length codes, empty ones for faulty entries."""
    rles, broken = [], {}
    for number, (entry, size) in enumerate(zip(entries, sizes.tolist(), strict=True)):
        where = f'{source}[{number}]'
        try:
            rle = to_rle(entry['segmentation'], *size, where)
            if faults.skip or faults.exempt[number]:
                rle_areas([rle], lambda _, where=where: where)
        except ValueError as error:
            broken[number] = str(error).removeprefix(where)
            rle = {'size': size, 'counts': mask_api.encode(np.zeros(size, np.uint8, 'F'))['counts']}
        rles.append(rle)
    faults.add(np.isin(np.arange(len(entries)), list(broken)), broken.__getitem__)
    return rles


def _is_present(value: Any) -> bool:
    """Return whether a box or mask is present; works for arrays, which have no truth value."""
    return value is not None and len(value) > 0


def join_detections(parts: Sequence[Detections]) -> Detections:
    """Join the detections of several files of one IoU type."""
    first, *others = parts
    if not others:
        return first
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name, column in vars(first).items()
               if name != 'rles' and column is not None}
    return Detections(**columns, rles=None if first.rles is None else [rle for part in parts for rle in part.rles])


def tensor_detections(ground_truth: GroundTruth, image_ids: Tensor, category_ids: Tensor, scores: Tensor,
                      boxes_xywh: Tensor) -> Detections:
    """Validate a detector's boxes (D, 4) in pixels, ids and scores, given as tensors, without moving them off their device.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> truth = read_ground_truth({'images': [{'id': 7, 'height': 9, 'width': 9}], 'annotations': [],
        ...                            'categories': [{'id': 3, 'name': 'cat'}, {'id': 5, 'name': 'dog'}]})
        >>> tensor_detections(truth, torch.tensor([7]), torch.tensor([5]), torch.rand(1), torch.tensor([[0, 0, 2., 3.]])).category
        tensor([1])
    """
    for name, values, sides in (('scores', scores, ()), ('image_ids', image_ids, ()), ('category_ids', category_ids, ()),
                                ('boxes_xywh', boxes_xywh, (4, ))):
        if values.shape != (len(scores), *sides):
            raise ValueError(f'{name}: expected shape {(len(scores), *sides)} for {len(scores)} scores, got '
                             f'{tuple(values.shape)}')
    scores, boxes = scores.detach().double(), boxes_xywh.detach().double()
    image, unknown_image = _tensor_positions(image_ids, ground_truth.image_ids)
    category, unknown_category = _tensor_positions(category_ids, ground_truth.category_ids)
    unusable = {
        'the image id is not in the annotation file': unknown_image,
        'the category id is not in the annotation file': unknown_category,
        'the score must be a finite number': ~torch.isfinite(scores),
        'the box must be four finite numbers [x, y, width, height] with sides of at least 0':
            ~(boxes.abs() <= FARTHEST_BOX).all(1) | (boxes[:, 2:] < 0).any(1),
    }
    where = torch.stack(list(unusable.values()))
    if bool(where.any()):  # the only synchronization with the device
        kind, number = where.nonzero()[0].tolist()
        raise ValueError(f'detection {number}: {list(unusable)[kind]}; got image id {image_ids[number].item()}, category id '
                         f'{category_ids[number].item()}, score {scores[number].item()}, box {boxes[number].tolist()}')
    return Detections(image, category, scores, boxes[:, 2] * boxes[:, 3], boxes)


def _tensor_positions(ids: Tensor, known_ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the index of each id among the sorted known ones, and a mask of unknown ids."""
    if known_ids.dtype != np.int64:
        raise ValueError('tensors need integer image ids below 2**63, but the annotation file has ids such as '
                         f'{known_ids[0]}; give detections as files or lists')
    known = torch.as_tensor(known_ids, device=ids.device)
    index = torch.searchsorted(known, ids.long()).clamp(max=max(len(known) - 1, 0))
    return index, known[index] != ids if len(known) else torch.ones_like(ids, dtype=torch.bool)
