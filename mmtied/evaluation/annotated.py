"""Write occlusion ratios into COCO annotations for other tools: FiftyOne, other evaluators, custom scripts."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..atomic import atomic_files, save_text
from .buckets import Bucket, Evaluation, bucket_members
from .inputs.ground_truth import read_ground_truth
from .inputs.layouts import read_annotations


class Annotated(NamedTuple):
    """Annotations with occlusion ratios, see `annotate`."""

    annotations: dict  # a copy in COCO format with the new keys
    buckets: dict[str, list]  # ids of images, or of annotations for ``unit='instance'``, by bucket name

    def save(self, folder: str | os.PathLike, name: str = 'annotations.json') -> list[Path]:
        """Write both as JSON, `name` and ``buckets.json``, into a folder, all or nothing; return the paths."""
        if name == 'buckets.json':
            raise ValueError("annotate: the annotations cannot be named 'buckets.json', which holds the ids; use another name")
        with atomic_files(folder, 'buckets.json', re.escape(name)) as temporary:
            for file, value in ((name, self.annotations), ('buckets.json', self.buckets)):
                save_text(temporary / file, json.dumps(value, allow_nan=False) + '\n')
        return [Path(folder) / name, Path(folder) / 'buckets.json']


def annotate(annotations: Any, evaluation: Evaluation | None = None, **reading: Any) -> Annotated:
    """Write the occlusion ratio r of each image and each annotation into a copy of COCO annotations.

    Each image and each annotation gets its ``occlusion_ratio``; None where r is undefined: images without instances, crowds,
    skipped annotations. ``occlusion_bucket`` is the name of the bucket of r, or None; it is omitted for cumulative buckets, which
    overlap. ``info['occlusion']`` records the definition. Everything else is copied unchanged.

    Args:
        annotations: A COCO instances file, a dict in that format, or a pycocotools ``COCO``.
        evaluation: Definition and buckets, by default `covered` in tenths; `unit` selects whose ids the buckets list.
        **reading: Arguments of `read_ground_truth`.

    Raises:
        ValueError: Invalid annotations; the one-line message names the entry.

    Example:
        >>> boxes = [[0, 0, 4, 4], [2, 0, 4, 4]]
        >>> data = {'images': [{'id': 7, 'height': 9, 'width': 9}], 'categories': [{'id': 1, 'name': 'cat'}], 'annotations': [
        ...     {'id': number, 'image_id': 7, 'category_id': 1, 'bbox': box, 'area': 16} for number, box in enumerate(boxes)]}
        >>> found = annotate(data)
        >>> found.annotations['images'][0]['occlusion_ratio'], found.annotations['annotations'][1]['occlusion_bucket']
        (0.5, '[0.5,0.6)')
        >>> {name: ids for name, ids in found.buckets.items() if ids}
        {'[0.5,0.6)': [7]}
    """
    evaluation = evaluation or Evaluation()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # read_ground_truth repeats them
        data, *_ = read_annotations(annotations, reading.get('image_folder'), reading.get('skip_invalid', False))
    ground_truth = read_ground_truth(annotations, **reading)
    places, _ = ground_truth.images.find_all([entry['id'] for entry in data['images']])
    of_entry = dict(zip(ground_truth.annotation_ids.tolist(), evaluation.ratios(ground_truth, 'instance').tolist(), strict=True))
    ratios = {'image': evaluation.ratios(ground_truth, 'image')[places], 'instance': np.array(
        [of_entry.get(entry.get('id', number), np.nan) for number, entry in enumerate(data['annotations'], 1)])}
    buckets = None if evaluation.cumulative else evaluation.buckets
    images = _with_ratios(data['images'], ratios['image'], buckets)
    entries = _with_ratios(data['annotations'], ratios['instance'], buckets)
    info = data['info'] if isinstance(data.get('info'), Mapping) else {}
    settings = {'definition': evaluation.definition, 'same_category': evaluation.same_category, 'edges': list(evaluation.edges),
                'cumulative': evaluation.cumulative}
    ids = [entry.get('id', number) for number, entry in enumerate(images if evaluation.unit == 'image' else entries, 1)]
    members = bucket_members(ratios[evaluation.unit], evaluation.buckets).T
    return Annotated({**data, 'info': {**info, 'occlusion': settings}, 'images': images, 'annotations': entries}, {
        bucket.name: [ids[number] for number in np.flatnonzero(inside).tolist()]
        for bucket, inside in zip(evaluation.buckets, members, strict=True)})


def _with_ratios(entries: list[dict], ratios: np.ndarray, buckets: tuple[Bucket, ...] | None) -> list[dict]:
    """Copy images or annotations with their ratio and bucket name, None if undefined."""
    result = [{**entry, 'occlusion_ratio': None if np.isnan(ratio) else ratio}
              for entry, ratio in zip(entries, ratios.tolist(), strict=True)]
    if buckets:
        for entry, members in zip(result, bucket_members(ratios, buckets), strict=True):
            entry['occlusion_bucket'] = buckets[int(members.argmax())].name if members.any() else None
    return result
