"""Read annotations, detections in many formats, run-length codes and images.

Invalid input raises a one-line ValueError that names the file and the entry.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmtied.cli import no_collection

from .dumps import dump_detections, dumped_iou_types
from .faults import Broken, naming
from .ground_truth import GroundTruth, read_ground_truth
from .results import Detections, ResultReading, held_iou_types, join_detections, make_detections, read_results
from .sources import from_python, from_supervision, read_source

__all__ = ['Detections', 'GroundTruth', 'from_supervision', 'load_detections', 'read_ground_truth']


def load_detections(detections: Any, ground_truth: GroundTruth, iou_types: Sequence[str] | None = None,
                    classes: Sequence[str] | None = None, box_format: str | None = None, *, skip_invalid: bool = False,
                    label_names: Sequence[str] | None = None, category_offset: int = 0, any_category: bool = False,
                    notes: list[str] | None = None) -> dict[str, Detections]:
    """Read the detections of one detector.

    If some files have boxes only, bbox is evaluated on those alone: mmdet's segm results also contain boxes, but with the scores
    of the masks.

    Args:
        detections: One or more files or folders in a layout listed in docs/formats.md, or the same in Python, see
            `sources.from_python`. Image ids may also be file names, see `image_ids.ImageLookup`.
        ground_truth: The annotations that the ids refer to.
        iou_types: Any of ``'bbox'`` and ``'segm'`` (default: all that the detections contain).
        classes: Names of the model's classes, if its labels count only some of the annotation file's categories. Results of
            categories missing from the annotation file are then left out.
        box_format: One of `protocol.BOX_FORMATS` (default: ``'xywh'`` for COCO results, ``'xyxy'`` for predictions by image).
        skip_invalid: Leave out invalid detections, and report how many.
        label_names: Names of the model's labels in order, if its classes differ from those of the annotations.
        category_offset: Added to category ids or labels.
        any_category: Assign detections of unknown categories to the first one, for class-agnostic AP.
        notes: List to which the warnings' texts are appended.

    Returns:
        The detections by IoU type, joined over the files.

    Raises:
        ValueError: A file or an entry is invalid; the message names it.

    Warns:
        UserWarning: Detections are left out, or image ids were looked up by name.
    """
    reading = ResultReading(classes, box_format, skip_invalid, label_names, category_offset, any_category)
    if isinstance(detections, str | os.PathLike):
        detections = [detections]
    elif hasattr(detections, 'dataset'):
        detections = _without_polygons(read_results(detections))
    elif isinstance(detections, Mapping):
        detections = _without_polygons(from_python(detections, 'detections', ground_truth))
    if not isinstance(detections, list | tuple):
        raise ValueError('detections: expected a file, a list of files or a list of dicts, got '
                         f'{type(detections).__name__}')
    lines: list[str] = []
    with no_collection():  # results can be millions of objects
        found = _load(detections, ground_truth, iou_types, reading, lines)
    for line in dict.fromkeys(lines):
        warnings.warn(line, stacklevel=2)
        if notes is not None:
            notes.append(line)
    return found


def _without_polygons(entries: list[dict]) -> list[dict]:
    """Remove the polygons that pycocotools' `loadRes` derives from boxes."""
    if entries and isinstance(entries[0], dict) and isinstance(entries[0].get('segmentation'), list) and 'bbox' in entries[0]:
        return [{key: value for key, value in entry.items() if key != 'segmentation'} for entry in entries]
    return entries


def _load(detections: Sequence, ground_truth: GroundTruth, iou_types: Sequence[str] | None, reading: ResultReading,
          lines: list[str]) -> dict[str, Detections]:
    """Read, convert and join the detections, and append warnings to `lines`; frees the parsed objects on return."""
    if detections and all(isinstance(one, str | os.PathLike) for one in detections):
        sources = {}
        for name in map(str, detections):
            broken = Broken(name, reading.skip_invalid)
            with naming(name):
                sources[name] = read_source(name, ground_truth, reading, broken)
            lines += filter(None, [broken.settle()])
    else:
        with naming('detections'):
            sources = {'detections': from_python(list(detections), 'detections', ground_truth)}
    types_of, by_image = {}, {}
    for name, entries in sources.items():
        first = entries[0] if entries and isinstance(entries[0], Mapping) else {}
        by_image[name] = 'pred_instances' in first
        if reading.label_names and isinstance(first.get('category_id'), int):
            lines.append(f"{name}: --label-names (label_names=...) has no effect, as 'category_id' refers to the annotations' "
                         'categories; --category-offset shifts ids')
        with naming(name):
            types_of[name] = (dumped_iou_types if by_image[name] else held_iou_types)(entries)
    present = [iou_type for iou_type in ('bbox', 'segm') if any(iou_type in types for types in types_of.values())]
    found = {}
    for iou_type in iou_types or present or ['bbox']:
        alone = [name for name in sources if types_of[name] == (iou_type,)]
        holding = [name for name in sources if iou_type in types_of[name]]
        parts, chosen = [], (alone if iou_type == 'bbox' else []) or holding or list(sources)
        for name in chosen:
            convert, notes = dump_detections if by_image[name] else make_detections, []
            with naming(name):
                parts.append(convert(sources[name], ground_truth, iou_type, name, reading, notes))
            lines += [f'{name}: {note}' for note in notes]
        found[iou_type] = join_detections(parts)
        if len(parts) > 1 and _overlap(parts, len(ground_truth.category_ids)):
            lines.append(f'{" and ".join(chosen)} have {iou_type} results for the same images and categories, and are joined as '
                         'parts of one detector; evaluate two detectors separately, and compare them')
    return found


def _overlap(parts: Sequence[Detections], num_categories: int) -> bool:
    """Return whether several parts have detections in the same image and category."""
    cells = [np.unique(part.image * num_categories + part.category) for part in parts]
    return len(np.unique(np.concatenate(cells))) < sum(map(len, cells))
