"""Inputs of an evaluation: annotations, detections in every format that is read, run-length codes and images."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

from .coco_json import no_collection
from .dumps import dump_detections, dumped_iou_types, image_predictions, is_dump, read_dump
from .ground_truth import GroundTruth, read_ground_truth, with_image_ids
from .results import Detections, check_box_format, held_iou_types, join_detections, make_detections, read_results

#: Keys of a dict of one image, see `dumps.image_predictions`.
IMAGE_KEYS = ('image_id', 'boxes', 'scores', 'labels', 'category_ids', 'masks')

__all__ = ['Detections', 'GroundTruth', 'load_detections', 'read_ground_truth']


def load_detections(detections: Any, ground_truth: GroundTruth, iou_types: Sequence[str] | None = None,
                    classes: Sequence[str] | None = None, box_format: str | None = None) -> dict[str, Detections]:
    """Read the detections of one detector.

    A file with masks counts for bbox only where no other file has boxes alone: mmdet's segm results also hold boxes, with the
    scores of the masks.

    Args:
        detections: A results file or several (COCO's JSON, or the .pkl that mmdet dumps), a COCO results list, bare or as
            `results.read_results` takes it, or a list with a dict for each image as `dumps.image_predictions` takes it. Image
            ids may also be file names, see `ground_truth.with_image_ids`.
        ground_truth: The annotations that the ids refer to.
        iou_types: Any of ``'bbox'`` and ``'segm'``; by default what the detections hold.
        classes: Names of the model's classes, where labels count only some of the annotation file's categories.
        box_format: One of `results.BOX_FORMATS`; by default ``'xywh'`` in COCO's results, and ``'xyxy'`` in those by image.

    Returns:
        The detections by IoU type, joined over the files.

    Raises:
        ValueError: A file or an entry cannot be used; the message names it.
    """
    check_box_format(box_format)
    if isinstance(detections, str | os.PathLike):
        detections = [detections]
    elif isinstance(detections, dict) or hasattr(detections, 'dataset'):
        detections = _unwrapped(detections)
    if not isinstance(detections, list | tuple):
        raise ValueError(f'detections: a file, a list of files or a list of dicts is needed, got {type(detections).__name__}')
    with no_collection():  # results are up to millions of objects
        return _load(detections, ground_truth, iou_types, classes, box_format)


def _unwrapped(detections: Any) -> list[dict]:
    """Return the results list in a dict, or in a ``COCO`` without the polygons that its `loadRes` makes of boxes."""
    entries = read_results(detections)
    if hasattr(detections, 'dataset') and entries and isinstance(entries[0].get('segmentation'), list):
        return [{key: value for key, value in entry.items() if key != 'segmentation'} for entry in entries]
    return entries


def _load(detections: Sequence, ground_truth: GroundTruth, iou_types: Sequence[str] | None,
          classes: Sequence[str] | None, box_format: str | None) -> dict[str, Detections]:
    """Read, convert and join the detections; the objects that were read are gone when this returns."""
    if detections and all(isinstance(one, str | os.PathLike) for one in detections):
        sources = {str(path): read_dump(path) if is_dump(path) else read_results(path) for path in detections}
    else:
        sources = {'detections': _read_list(detections)}
    sources = {name: with_image_ids(entries, ground_truth, name) for name, entries in sources.items()}
    by_image = {name: bool(entries) and 'pred_instances' in entries[0] for name, entries in sources.items()}
    held = {name: (dumped_iou_types if by_image[name] else held_iou_types)(entries) for name, entries in sources.items()}
    present = [iou_type for iou_type in ('bbox', 'segm') if any(iou_type in types for types in held.values())]
    found = {}
    for iou_type in iou_types or present or ['bbox']:
        alone = [name for name in sources if held[name] == (iou_type,)]
        holding = [name for name in sources if iou_type in held[name]]
        chosen = (alone if iou_type == 'bbox' else []) or holding or list(sources)
        found[iou_type] = join_detections([
            dump_detections(sources[name], ground_truth, iou_type, classes, name, box_format or 'xyxy') if by_image[name] else
            make_detections(sources[name], ground_truth, iou_type, name, box_format or 'xywh') for name in chosen])
    return found


def _read_list(detections: Sequence) -> list[dict]:
    """Return a COCO results list as it is, and predictions by image in the layout of mmdet's dump."""
    first = detections[0] if detections and isinstance(detections[0], dict) else {}
    if 'scores' in first or 'boxes' in first:
        _check_keys(detections)
    elif 'pred_instances' not in first:
        return read_results(list(detections))
    return image_predictions(list(detections))


def _check_keys(predictions: Sequence) -> None:
    """Raise a ValueError for a key that is not read, as it may be misspelt."""
    for number, entry in enumerate(predictions):
        unknown = next((key for key in entry if key not in IMAGE_KEYS), None) if isinstance(entry, dict) else None
        if unknown is not None:
            close = difflib.get_close_matches(str(unknown), IMAGE_KEYS, 1)
            hint = f'did you mean {close[0]!r}?' if close else f'known: {", ".join(IMAGE_KEYS)}'
            raise ValueError(f'detections[{number}]: unknown key {unknown!r}; {hint}')
