"""Predictions by image, such as mmdet's dumps (``tools/test.py --out predictions.pkl``, `DumpDetResults`), as validated arrays.

A dump is a pickled list with a dict per image: ``img_id`` and ``pred_instances`` with ``bboxes`` (n, 4) xyxy, ``scores``,
``labels`` and, for models with a mask head, ``masks`` as run-length codes and optionally ``mask_scores``.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api

from .arrays import GroundTruth
from .categories import offset_hint
from .coco_json import FARTHEST_BOX, check_entries, to_xywh
from .faults import Faults, shown
from .results import Detections, ResultReading, image_positions, settled
from .rle import rle_areas, to_rle
from .tensor_pickle import read_tensor_pickle

#: Keys of an image's dict, see `image_predictions`.
IMAGE_KEYS = ('image_id', 'boxes', 'scores', 'labels', 'category_ids', 'masks', 'text_labels')


def read_dump(path: str | os.PathLike) -> list[dict]:
    """Read a dump without running code in it (see `tensor_pickle`), and check that its images have ids and boxes."""
    return check_dump(read_tensor_pickle(path), str(path))


def check_dump(entries: Any, source: str) -> list[dict]:
    """Return the images of a dump; raise a ValueError if one is invalid."""
    try:
        if isinstance(entries, list) and entries and isinstance(entries[0], list | tuple):
            raise ValueError(f'{source}: it looks like results of mmdet 2, lists of boxes by class without image ids')
        check_entries(entries, ('img_id', 'pred_instances'), source)
        check_entries([entry['pred_instances'] for entry in entries], ('bboxes', 'scores', 'labels'), f'{source}: pred_instances')
    except ValueError as error:
        raise ValueError(f"{error}; expected a file written by mmdet's tools/test.py --out or DumpDetResults") from None
    return entries


def image_predictions(predictions: list[dict]) -> list[dict]:
    """Convert predictions by image to the layout of a dump; a dump is returned unchanged.

    Each has an ``image_id``, ``scores`` (n,), ``labels`` (n,) or ``category_ids`` (n,), and ``boxes`` (n, 4) xyxy or ``masks`` or
    both, as tensors, arrays or lists. Masks are boolean or integers of shape (n, height, width), or run-length codes. Labels
    number the annotation file's categories from 0, in its order. Raises a ValueError that names an entry of another layout.
    """
    if all(isinstance(entry, dict) and 'pred_instances' in entry for entry in predictions):
        return predictions
    check_entries(predictions, ('image_id', 'scores'), 'detections')
    entries = []
    for number, entry in enumerate(predictions):
        if ('labels' in entry) == ('category_ids' in entry):
            raise ValueError(f"detections[{number}]: expected either 'labels' or 'category_ids'")
        instances = {key: entry[key] for key in IMAGE_KEYS[1:] if key in entry}
        for name, values in instances.items():
            if isinstance(values, list) and name not in ('masks', 'text_labels'):
                empty = np.empty((0, 4) if name == 'boxes' else 0)  # an empty list has no 4 columns
                instances[name] = np.asarray(values) if values else empty
        entries.append({'image_id': entry['image_id'], 'pred_instances': instances})
    return entries


def dumped_iou_types(entries: Sequence[dict]) -> tuple[str, ...]:
    """Return the IoU types of a dump, judged by its first image with detections; none for an empty dump."""
    of_images = [entry['pred_instances'] for entry in entries]
    instances = next((one for one in of_images if len(one.get('scores', ()))), of_images[0] if entries else {})
    return tuple(iou_type for iou_type, key in (('bbox', _box_key(instances)), ('segm', 'masks')) if key in instances)


def dump_detections(entries: Sequence[dict], ground_truth: GroundTruth, iou_type: str, source: str = 'dump',
                    reading: ResultReading | None = None, notes: list[str] | None = None) -> Detections:
    """Convert a dump to the arrays of one IoU type, in its order; arguments as for `make_detections`.

    Images repeated by a distributed sampler count once. Like mmdet's CocoMetric, scores of masks are ``mask_scores`` if present.
    """
    reading, notes = reading or ResultReading(), [] if notes is None else notes
    key = 'image_id' if entries and 'image_id' in entries[0] else 'img_id'
    entries, image_of_entry = _known_images(entries, key, ground_truth, source, reading.skip_invalid, notes)
    parts = [entry['pred_instances'] for entry in entries]
    names = [f'{source}: image id {entry[key]}' for entry in entries]
    first = parts[0] if parts else {}
    label_key = 'category_ids' if 'category_ids' in first else 'labels'
    score_key = 'mask_scores' if iou_type == 'segm' and 'mask_scores' in first else 'scores'
    labels = _column(parts, label_key, (), names, integers=True) + reading.category_offset
    counts, finite = [len(part[label_key]) for part in parts], not reading.skip_invalid
    scores = _column(parts, score_key, (), names, counts, finite=finite)
    image = np.repeat(np.arange(len(parts)), counts)
    faults = Faults(source, len(labels), reading.skip_invalid)

    def refuse(bad: np.ndarray, describe: Callable[[int], str]) -> None:
        faults.add(bad, lambda number: f': image id {shown(entries[image[number]][key])}: {describe(number)}')

    if label_key == 'category_ids':
        category = ground_truth.find_categories(labels)
        if reading.classes is None and not reading.any_category and (category < 0).any():
            texts = [text for part in parts for text in part.get('text_labels') or ()]
            hint = '' if texts else offset_hint(labels - reading.category_offset, ground_truth)
            refuse(category < 0, lambda number: (
                f'{f"text label {shown(texts[number])}" if texts else f"category id {labels[number]}"} is not in the annotation '
                f'file{hint}; --classes NAME ... leaves such detections out'))
    else:
        of_label = np.array(reading.label_ids(ground_truth))
        outside = (labels < 0) | (labels >= len(of_label))
        if not reading.any_category:
            refuse(outside, lambda number: _unknown_label(labels[number], labels, len(of_label), ground_truth, reading))
        category = np.where(outside, -1, ground_truth.find_categories(of_label[np.where(outside, 0, labels)]))
    others = (category < 0) & ~faults.bad
    if not reading.any_category:
        faults.exempt = others
    common = dict(image=image_of_entry[image], score=scores, category=np.maximum(category, 0))
    if iou_type == 'bbox':
        boxes = _column(parts, _box_key(first), (4,), names, counts, finite=finite)
        unusable = ~(np.abs(boxes) <= FARTHEST_BOX).all(axis=1)
        refuse(unusable, lambda _: f'boxes must be finite, of at most {FARTHEST_BOX:g} in size')
        boxes[unusable] = 0
        boxes = to_xywh(boxes, reading.box_format or 'xyxy', ground_truth.image_sizes[common['image']])  # float64, as CocoMetric
        found = Detections(**common, area=boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)
    else:
        sizes = ground_truth.image_sizes[image_of_entry].tolist()
        rles = [to_rle(mask, *size, name) for part, count, size, name in zip(parts, counts, sizes, names, strict=True)
                for mask in _masks(part.get('masks'), count, name)]
        found = Detections(**common, area=rle_areas(rles, lambda number: names[image[number]]), rles=rles)
    refuse(~np.isfinite(scores), lambda _: 'scores must be finite')
    return settled(found, others, reading.any_category, faults, notes)


def _unknown_label(label: int, labels: np.ndarray, num: int, ground_truth: GroundTruth, reading: ResultReading) -> str:
    """Describe a label outside 0 to `num` - 1, with the option that helps."""
    advice = 'if the model has other classes, --label-names (label_names=...) lists them in the order of its labels'
    if labels.min() == 1 and labels.max() == num:
        advice = "--category-offset -1 (category_offset=-1) shifts labels that start at 1, like torchvision's"
    elif not reading.label_names and np.isin(labels, ground_truth.category_ids).all():
        advice = "if they are category ids, as from torchvision's COCO models, name them 'category_ids'"
    return (f'label {label} is outside 0 to {num - 1}, the {num} categories of '
            f'{"--classes" if reading.classes else ground_truth.source}; {advice}')


def _known_images(entries: Sequence[dict], key: str, ground_truth: GroundTruth, source: str, skip_invalid: bool,
                  notes: list[str]) -> tuple[list[dict], np.ndarray]:
    """Return each image once, and their positions in the ground truth."""
    faults = Faults(source, len(entries), skip_invalid)
    check_entries(list(entries), (key, ), source)
    image = image_positions([entry[key] for entry in entries], ground_truth, faults, notes)
    line = faults.settle()
    notes += [line] if line else []
    kept: dict[int, int] = {}
    usable = np.flatnonzero(~faults.bad).tolist()
    for number in usable:
        one, other = (entries[which]['pred_instances']['scores'] for which in (kept.setdefault(image[number], number), number))
        if one is not other and (len(one) != len(other) or not np.array_equal(*map(np.asarray, to_cpu([one, other])))):
            raise ValueError(f'{source}: image id {entries[number][key]} is repeated with other predictions; each image must '
                             'appear once')
    if len(kept) < len(usable):
        notes.append(f'{len(usable) - len(kept)} images are repeated, as by a distributed sampler; each counts once')
    return [entries[number] for number in kept.values()], np.array(list(kept), dtype=np.int64)


def to_cpu(values: Sequence[Any]) -> list[Any]:
    """Detach tensors and copy them to the CPU, in one copy per device and dtype; return other values unchanged."""
    result, groups = list(values), {}
    for number, value in enumerate(values):
        if isinstance(value, torch.Tensor):
            result[number] = value.detach()
            if value.device.type != 'cpu':
                groups.setdefault((value.device, value.dtype), []).append(number)
    for numbers in groups.values():
        parts = [result[number] for number in numbers]
        flat = torch.cat([part.flatten() for part in parts]).cpu()
        for number, part, copied in zip(numbers, parts, flat.split([part.numel() for part in parts]), strict=True):
            result[number] = copied.view(part.shape)
    return result


def _box_key(instances: dict) -> str:
    return 'boxes' if 'boxes' in instances else 'bboxes'


def _column(parts: Sequence[dict], key: str, shape: tuple[int, ...], names: Sequence[str], counts: Sequence[int] | None = None,
            integers: bool = False, finite: bool = True) -> np.ndarray:
    """Concatenate the numbers under `key` of all images, shape (D, *shape) float64, or int64 for integers."""
    dtype = np.int64 if integers else np.float64
    arrays = [np.empty((0, *shape), dtype)]
    kinds = 'iu' if integers else 'iuf'
    for number, (values, name) in enumerate(zip(to_cpu([part.get(key) for part in parts]), names, strict=True)):
        if isinstance(values, torch.Tensor):
            values = (values.double() if values.is_floating_point() else values).numpy()
        good = isinstance(values, np.ndarray) and values.ndim == 1 + len(shape) and values.shape[1:] == shape
        if not good or (values.size and values.dtype.kind not in kinds) or (counts and len(values) != counts[number]):
            wanted = ', '.join(map(str, (counts[number] if counts else 'n', *shape)))
            came = f'shape {tuple(values.shape)} of {values.dtype}' if hasattr(values, 'shape') else type(values).__name__
            raise ValueError(f'{name}: {key!r} must be an array or tensor of {"integers" if integers else "numbers"} of shape '
                             f'({wanted}), got {came}')
        if finite and not np.isfinite(values).all():
            raise ValueError(f'{name}: {key!r} must be finite numbers; the model may have diverged')
        if integers and values.dtype == np.uint64 and (values >= 2**63).any():
            raise ValueError(f'{name}: {key!r} must be below 2**63, got {values.max()}')
        arrays.append(values.astype(dtype) + dtype())  # -0. becomes 0.
    return np.concatenate(arrays)


def _masks(masks: Any, count: int, name: str) -> list[dict]:
    """Return the masks of one image, an array or tensor (count, height, width) or a list of run-length codes, as the latter."""
    if masks is None and count:
        raise ValueError(f"{name}: the predictions have no 'masks', which segm needs")
    if isinstance(masks, torch.Tensor | np.ndarray):
        return encode_masks(masks, count, name, ', or run-length codes')
    masks = () if masks is None else masks
    if not isinstance(masks, list | tuple) or len(masks) != count:
        came = f'{len(masks)} of them' if isinstance(masks, list | tuple) else type(masks).__name__
        raise ValueError(f"{name}: 'masks' must be {count} masks, or a list of {count} run-length codes, got {came}")
    for mask in masks:
        if not isinstance(mask, dict) or not isinstance(mask.get('counts'), str | bytes | list):
            raise ValueError(f"{name}: 'masks' must be run-length codes, dicts with 'size' and 'counts', or an array of shape "
                             f'({count}, height, width), got {shown(mask)}')
    return list(masks)


def encode_masks(masks: np.ndarray | torch.Tensor, count: int, name: str, other: str = '') -> list[dict]:
    """Encode the masks of one image, (count, height, width); `other` names alternatives in the error message."""
    dense = masks.detach().cpu().numpy() if isinstance(masks, torch.Tensor) else masks
    if dense.dtype.kind not in 'bui' or dense.ndim != 3 or len(dense) != count:
        raise ValueError(f"{name}: 'masks' must be boolean or integers of shape ({count}, height, width){other}, got "
                         f'{dense.dtype} of shape {dense.shape}; for probabilities pass masks > 0.5, for (n, 1, height, width) '
                         'masks.squeeze(1)')
    return mask_api.encode(np.asfortranarray(dense.transpose(1, 2, 0) != 0, dtype=np.uint8)) if len(dense) else []
