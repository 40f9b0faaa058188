"""Predictions as mmdet dumps them (``tools/test.py --out predictions.pkl``, `DumpDetResults`), as checked arrays.

The file is a pickled list with a dict for each image: ``img_id`` and ``pred_instances`` with ``bboxes`` (n, 4) xyxy, ``scores``,
``labels`` and, where the model has a mask head, ``masks`` as run-length codes and perhaps ``mask_scores``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .ground_truth import GroundTruth, check_entries, check_unique, integer_column, label_category_ids, positions
from .results import Detections
from .rle import rle_areas, to_rle
from .tensor_pickle import read_tensor_pickle

_COLUMNS = dict(bboxes=(4,), scores=(), labels=())


def is_dump(path: str | os.PathLike) -> bool:
    """Whether a file is a dump by its name: .pkl or .pickle."""
    return Path(path).suffix in ('.pkl', '.pickle')


def read_dump(path: str | os.PathLike) -> list[dict]:
    """The images of a dump, checked to have ids and boxes; no foreign code runs, see `tensor_pickle`.

    Raises:
        ValueError: The file is missing, empty or truncated, needs anything but tensors, arrays and containers, or has
            another layout.
    """
    entries = read_tensor_pickle(path)
    try:
        check_entries(entries, ('img_id', 'pred_instances'), str(path))
        check_entries([entry['pred_instances'] for entry in entries], tuple(_COLUMNS), f'{path}: pred_instances')
    except ValueError as error:
        raise ValueError(f"{error}; what mmdet's tools/test.py --out or DumpDetResults writes of a detector is read") from None
    return entries


def dumped_iou_types(entries: Sequence[dict]) -> tuple[str, ...]:
    """The IoU types that a dump can be evaluated for, by its first image; none for an empty one."""
    if not entries:
        return ()
    return ('bbox', 'segm') if 'masks' in entries[0]['pred_instances'] else ('bbox',)


def dump_detections(entries: Sequence[dict], ground_truth: GroundTruth, iou_type: str,
                    classes: Sequence[str] | None = None, source: str = 'dump') -> Detections:
    """The arrays of one IoU type from a dump, in its order.

    Args:
        entries: What `read_dump` returns.
        ground_truth: The annotations that the image ids refer to.
        iou_type: ``'bbox'`` or ``'segm'``; masks take ``mask_scores`` where there are any, as mmdet's CocoMetric does.
        classes: See `label_category_ids`.
        source: Name for messages.

    Raises:
        ValueError: An image id that the annotation file does not have or that comes twice, labels without a category, columns
            of unequal lengths, boxes or scores that are not finite, and masks that are missing, not run-length codes, or of
            another size than their image.
    """
    ids = integer_column(entries, 'img_id', source)
    check_unique(ids, source)
    image_of_entry = positions(ids, ground_truth.image_ids, 'image id', source)
    parts = [entry['pred_instances'] for entry in entries]
    names = [f'{source}: image id {image_id}' for image_id in ids.tolist()]
    score_key = 'mask_scores' if iou_type == 'segm' and parts and 'mask_scores' in parts[0] else 'scores'

    labels = _column(parts, 'labels', (), names, integers=True)
    counts = [len(part['labels']) for part in parts]
    scores = _column(parts, score_key, (), names, counts)
    category_ids = np.array(label_category_ids(ground_truth, classes))
    image = np.repeat(np.arange(len(parts)), counts)
    outside = (labels < 0) | (labels >= len(category_ids))
    if outside.any():
        number = int(outside.argmax())
        raise ValueError(f'{names[image[number]]}: label {labels[number]:g} is not from 0 to {len(category_ids) - 1}, the '
                         f"{len(category_ids)} categories of {'--classes' if classes else ground_truth.source}")
    common = dict(image=image_of_entry[image], score=scores,
                  category=np.searchsorted(ground_truth.category_ids, category_ids[labels.astype(np.int64)]))
    if iou_type == 'bbox':
        boxes = _column(parts, 'bboxes', (4,), names, counts)
        boxes[:, 2:] -= boxes[:, :2]  # in float64, as CocoMetric does by way of Python floats
        return Detections(**common, area=boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)
    sizes = ground_truth.image_sizes[image_of_entry].tolist()
    rles = [to_rle(_rle(mask, name), *size, name) for part, count, size, name in zip(parts, counts, sizes, names, strict=True)
            for mask in _masks(part, count, name)]
    return Detections(**common, area=rle_areas(rles, lambda number: names[image[number]]), rles=rles)


def _column(parts: Sequence[dict], key: str, shape: tuple[int, ...], names: Sequence[str], counts: Sequence[int] | None = None,
            integers: bool = False) -> np.ndarray:
    """The numbers under `key` of all images, one after another, shape (D, *shape) float64."""
    arrays = [np.empty((0, *shape))]
    kinds = 'iu' if integers else 'iuf'
    for number, (part, name) in enumerate(zip(parts, names, strict=True)):
        values = part.get(key)
        if isinstance(values, torch.Tensor):
            values = values.detach()
            values = (values.double() if values.is_floating_point() else values).numpy()
        good = isinstance(values, np.ndarray) and values.ndim == 1 + len(shape) and values.shape[1:] == shape
        if not good or (values.size and values.dtype.kind not in kinds) or (counts and len(values) != counts[number]):
            wanted = ', '.join(map(str, (counts[number] if counts else 'n', *shape)))
            came = f'shape {tuple(values.shape)} of {values.dtype}' if hasattr(values, 'shape') else type(values).__name__
            raise ValueError(f'{name}: {key!r} must be a tensor of {"integers" if integers else "numbers"} of shape ({wanted}), '
                             f'got {came}')
        if not np.isfinite(values).all():
            raise ValueError(f'{name}: {key!r} must be finite numbers; the model may have diverged')
        arrays.append(values.astype(np.float64))
    return np.concatenate(arrays)


def _masks(part: dict, count: int, name: str) -> list:
    """The masks of one image."""
    masks = part.get('masks')
    if masks is None:
        raise ValueError(f"{name}: the predictions have no 'masks', which segm needs")
    if not isinstance(masks, list | tuple) or len(masks) != count:
        came = f'{len(masks)} of them' if isinstance(masks, list | tuple) else type(masks).__name__
        raise ValueError(f"{name}: 'masks' must be a list of {count} run-length codes, as DumpDetResults writes them, got {came}")
    return list(masks)


def _rle(mask: object, name: str) -> dict:
    if not isinstance(mask, dict):
        raise ValueError(f"{name}: 'masks' must be run-length codes, as DumpDetResults writes them, got {type(mask).__name__}")
    return mask
