"""Convert detections of every layout to a COCO results list, or to predictions by image as in mmdet's dump."""

import contextlib
import difflib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

from mmtied.unpickling import TORCH_START, load_tensors

from . import crowdhuman, visdrone, voc, yolo
from .arrays import GroundTruth
from .coco_json import read_json
from .content import files_with_suffix, is_json_lines, other_kind, read_bytes
from .dumps import IMAGE_KEYS, check_dump, image_predictions, read_dump
from .faults import Broken, one_line
from .layouts import json_lines, known_layout
from .results import WRAPPERS, ResultReading, read_results
from .tensor_pickle import read_tensor_pickle

#: Required keys of flat tensors, which have a row per detection.
_FLAT_KEYS = ('image_ids', 'boxes', 'scores')


def read_source(path: str | os.PathLike, ground_truth: GroundTruth, reading: ResultReading, broken: Broken) -> list[dict]:
    """Read a file or folder of detections without running any code in it.

    Supports JSON, JSON lines, pickles and torch files of tensors and plain containers, folders of YOLO's or VisDrone's text
    files, Pascal VOC's ``comp4_det_test_<class>.txt``, and ``preds`` of mmdet's inferencer (the folder or one file). The ground
    truth provides the sizes and names of images and classes; unreadable lines and files are added to `broken`.
    """
    path = Path(path)
    source = str(path)
    if voc.is_voc_results(path):
        return voc.read_voc_results(path, broken)
    if path.is_dir():
        return _from_folder(path, ground_truth, reading, broken)
    if path.name.lower().removesuffix('.gz').endswith(('.pkl', '.pickle')):
        return read_dump(path)
    content = read_bytes(path)
    if content.startswith((b'PK\x03\x04', TORCH_START)):
        return from_python(_torch_file(path, content), source, ground_truth)
    if content.startswith(b'\x80'):
        return from_python(read_tensor_pickle(path), source, ground_truth)
    if is_json_lines(content):
        return from_python(json_lines(content, broken), source, ground_truth)
    if not content[:4096].lstrip(b'\xef\xbb\xbf \t\r\n').startswith((b'[', b'{')):
        kind = other_kind(content)
        if kind:
            raise ValueError(f'{path}: it is {kind}; expected results as JSON, a .pkl of mmdet, or a torch file of tensors (see '
                             'docs/formats.md)')
    value = read_json(path, content)
    if _is_inferencer(value):
        return image_predictions([_from_inferencer(value, path)])
    return from_python(value, source, ground_truth)


def _from_folder(path: Path, ground_truth: GroundTruth, reading: ResultReading, broken: Broken) -> list[dict]:
    if visdrone.is_visdrone(path):
        return visdrone.read_visdrone_results(path, broken)
    files = _inferencer_files(path)
    if files:
        found = []
        for file in files:
            with broken.at(str(file)):
                found.append(_from_inferencer(read_json(file), file))
        return image_predictions(found)
    if not yolo.is_yolo(path):
        raise ValueError(f'{path}: is a folder, expected a file, or a folder of text files of YOLO, VisDrone or Pascal VOC, '
                         "or preds of mmdet's inferencer")
    places = {file.stem: ground_truth.images.find(file.stem)[0] for file in yolo.label_files(path)}
    sizes = {stem: tuple(ground_truth.image_sizes[place].tolist()) for stem, place in places.items() if place >= 0}
    ids, entries = reading.label_ids(ground_truth), yolo.read_yolo_results(path, sizes, broken)
    for entry in entries:
        label = entry.pop('label')
        if entry['category_id'] is None:
            entry['category_id'] = ids[label] if label < len(ids) else f'class {label}'
    return entries


def from_python(value: Any, source: str, ground_truth: GroundTruth) -> list[dict]:
    """Convert lists, dicts, arrays and tensors to a results list, or to predictions by image in the layout of a dump.

    Supports a COCO results list, bare or under one of `results.WRAPPERS`; a list with a dict per image
    (`dumps.image_predictions`, mmdet's, or detectron2's with ``instances``); a dict from image ids to such dicts, as in the
    examples of torchvision and Hugging Face, or to lists of ``score``, ``label``, ``box``; a dict of flat tensors ``image_ids``,
    ``boxes``, ``scores``, ``labels``; or a single entry of such a list. If results come with their own images and categories
    whose ids differ from the ground truth's, they are matched by file and category names. `source` names the input in messages.
    """
    if isinstance(value, Mapping):
        if all(key in value for key in _FLAT_KEYS):
            return _from_flat(value, source)
        if 'state_dict' in value or 'model' in value or 'optimizer' in value:
            raise ValueError(f"{source}: it is a checkpoint (it has {', '.join(map(str, list(value)[:5]))}), expected results; "
                             '`mmtied test CONFIG CHECKPOINT --out results.pkl` makes them')
        if 'image_id' in value or 'ID' in value:  # a single line of JSON lines
            return from_python([value], source, ground_truth)
        entries = list(value.values())
        if entries and all(isinstance(entry, Mapping) and ('boxes' in entry or 'scores' in entry) for entry in entries):
            return from_python([{**entry, 'image_id': image_id} for image_id, entry in value.items()], source, ground_truth)
        if all(isinstance(of_image, list) and all(isinstance(one, Mapping) and 'box' in one for one in of_image)
               for of_image in entries) and any(entries):
            return [_from_pipeline(image_id, one, source) for image_id, of_image in value.items() for one in of_image]
        if all(key in value for key in ('images', 'annotations', 'categories')) and not any(
                'score' in entry for entry in value['annotations'][:1]):
            raise ValueError(f'{source}: annotations without scores; results of a detector are expected (annotations come first, '
                             'results second)')
        if not any(key in value for key in WRAPPERS):
            _refuse_known(value, source)
        return _by_own_lists(value, read_results(dict(value), source), ground_truth)
    if not isinstance(value, list | tuple):
        raise ValueError(f'{source}: a list was expected, got {type(value).__name__}')
    first = value[0] if value and isinstance(value[0], Mapping) else {}
    if crowdhuman.is_odgt(value, 'dtboxes'):
        return crowdhuman.read_odgt_results(value)
    if 'instances' in first and 'image_id' in first:
        return _from_detectron2(value, ground_truth)
    if 'pred_instances' in first:
        return check_dump(list(value), source) if 'img_id' in first else list(value)
    if 'scores' in first or 'boxes' in first:
        _check_keys(value, source)
        return image_predictions(_with_named_labels(value, ground_truth))
    if value and isinstance(value[0], list | tuple):
        if any(isinstance(of_image, list) and of_image and isinstance(of_image[0], Mapping) for of_image in value):
            raise ValueError(f'{source}: lists of detections without the ids of their images; give a dict {{image_id: list}}')
        return check_dump(list(value), source)
    if 'file_name' in first:  # ultralytics derives ids from names: both '12' and '012.jpg' become 12
        images = [{'id': entry.get('image_id'), 'file_name': entry.get('file_name')} for entry in value
                  if isinstance(entry, Mapping)]
        if all(ground_truth.images.find(name)[0] >= 0 for name in {str(image['file_name']) for image in images}):
            return _by_own_lists({'images': images}, value, ground_truth)
    if 'image_id' not in first:
        _refuse_known(value, source)
    return value if isinstance(value, list) else list(value)


def from_supervision(detections: Any, image_id: int | str | None = None, is_truth: bool = False) -> dict[str, Any]:
    """Convert ``supervision.Detections`` of one image to a dict for `evaluate` or `OcclusionMeanAveragePrecision`.

    Args:
        detections: Any object with ``xyxy`` (n, 4), ``class_id`` (n,), ``confidence`` (n,), and optionally ``mask``
            (n, height, width).
        image_id: The image's id or file name, which `evaluate` needs.
        is_truth: Convert annotations, which need no ``confidence``.

    Raises:
        ValueError: Classes or confidences are missing.

    Example:
        >>> from types import SimpleNamespace
        >>> found = SimpleNamespace(xyxy=[[0., 0., 8., 8.]], class_id=[1], confidence=[.9], mask=None)
        >>> from_supervision(found, image_id=7)
        {'image_id': 7, 'boxes': [[0.0, 0.0, 8.0, 8.0]], 'labels': [1], 'scores': [0.9]}
    """
    wanted = {'labels': 'class_id'} | ({} if is_truth else {'scores': 'confidence'})
    result = ({} if image_id is None else {'image_id': image_id}) | {'boxes': detections.xyxy}
    for key, name in wanted.items():
        value = getattr(detections, name, None)
        if value is None and len(detections.xyxy):
            raise ValueError(f'supervision.Detections: {name} is None, expected one for each of the '
                             f'{len(detections.xyxy)} boxes')
        result[key] = [] if value is None else value
    if getattr(detections, 'mask', None) is not None:
        result['masks'] = np.asarray(detections.mask)  # a CompactMask becomes an array
    return result


def _refuse_known(value: Any, source: str) -> None:
    """Raise a ValueError for a layout that is known not to be results."""
    known = known_layout(value)
    if known:
        raise ValueError(f'{source}: expected results of a detector, but it is {known}')


def _inferencer_files(path: Path) -> list[Path]:
    """Return the files of mmdet's inferencer in a folder or its ``preds``, or [] if its JSON files are something else."""
    files = files_with_suffix(path / 'preds' if (path / 'preds').is_dir() else path, '.json')
    for file in files[:50]:
        with contextlib.suppress(ValueError):  # a file may be truncated
            return files if _is_inferencer(read_json(file)) else []
    return []


def _is_inferencer(value: Any) -> bool:
    """Return whether a value is a prediction by mmdet's inferencer, whose file, ``preds/<stem>.json``, names the image."""
    return isinstance(value, Mapping) and 'image_id' not in value and {'bboxes', 'scores', 'labels'} <= set(value)


def _from_inferencer(value: Any, file: Path) -> dict:
    if not _is_inferencer(value):
        raise ValueError(f"{file}: expected bboxes, scores and labels, as mmdet's inferencer writes them")
    return {'image_id': file.stem, 'boxes': value['bboxes'], **{key: value[key] for key in ('scores', 'labels', 'masks')
                                                               if key in value}}


def _from_detectron2(value: Sequence[Mapping], ground_truth: GroundTruth) -> list[dict]:
    """Convert detectron2's instances by image, whose ``category_id`` indexes the sorted category ids, to results.

    If a ``category_id`` is no such index, all are taken as ids.
    """
    entries = [{**one, 'image_id': entry['image_id']} for entry in value for one in entry['instances']]
    ids = ground_truth.category_ids.tolist()
    if all(entry.get('category_id') in range(len(ids)) for entry in entries):
        return [{**entry, 'category_id': ids[entry['category_id']]} for entry in entries]
    return entries


def _by_own_lists(value: Mapping, entries: list[dict], ground_truth: GroundTruth) -> list[dict]:
    """Replace ids in results by names if the images or categories listed with them have other ids than the ground truth's."""
    images, categories = ({one['id']: one.get(name) for one in value.get(key) or ()
                           if isinstance(one, Mapping) and isinstance(one.get('id'), int | str)}
                          for key, name in (('images', 'file_name'), ('categories', 'name')))
    ours = dict(zip(ground_truth.image_ids.tolist(), ground_truth.file_names, strict=True))
    other_images = all(images.values()) and any(
        PureWindowsPath(ours.get(number) or '').name != PureWindowsPath(str(name)).name for number, name in images.items())
    other_categories = any(ground_truth.category_names.get(number) != name for number, name in categories.items())
    for key, names, differ in (('image_id', images, other_images and any(ours.values())),
                               ('category_id', categories, other_categories)):
        if differ:
            entries = [{**entry, key: names[entry[key]]} if isinstance(entry, Mapping) and isinstance(entry.get(key), int | str)
                       and names.get(entry[key]) is not None else entry for entry in entries]
    return entries


def _with_named_labels(predictions: Sequence[Any], ground_truth: GroundTruth) -> list[Any]:
    """Convert text labels, as of Hugging Face's open-vocabulary models, to category ids in predictions by image.

    Texts that name no category get an id that no category has.
    """
    def texts_of(entry: Any) -> list[str]:
        given = (entry.get('text_labels') or entry.get('labels')) if isinstance(entry, Mapping) else None
        return list(given) if isinstance(given, list | tuple) and given and isinstance(given[0], str) else []

    texts = list(map(texts_of, predictions))
    if not any(texts):
        return [{key: value for key, value in entry.items() if key != 'text_labels'} if isinstance(entry, Mapping) else entry
                for entry in predictions]
    return [{**{key: value for key, value in entry.items() if key != 'labels'}, 'text_labels': of_image,
             'category_ids': ground_truth.named_ids(of_image)} for entry, of_image in zip(predictions, texts, strict=True)]


def _from_flat(value: Mapping, source: str) -> list[dict]:
    columns = {name: np.asarray(column.cpu() if isinstance(column, torch.Tensor) else column) for name, column in value.items()
               if name in (*_FLAT_KEYS, 'labels', 'category_ids')}
    for name, column in columns.items():
        if len(column) != len(columns['scores']):
            raise ValueError(f'{source}: {name} has {len(column)} rows, scores {len(columns["scores"])}')
    image_ids = columns.pop('image_ids')
    return image_predictions([
        {'image_id': image_id, **{name: column[image_ids == image_id] for name, column in columns.items()}}
        for image_id in dict.fromkeys(image_ids.tolist())])


def _from_pipeline(image_id: Any, entry: Mapping, source: str) -> dict:
    """Convert an entry of Hugging Face's object detection pipeline to a result."""
    box = entry['box']
    try:
        left, top, right, bottom = (float(box[side]) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    except (KeyError, TypeError):
        raise ValueError(f"{source}: image id {image_id}: 'box' must have xmin, ymin, xmax, ymax, got {one_line(box)}") from None
    return {'image_id': image_id, 'category_id': entry.get('label'), 'score': entry.get('score'),
            'bbox': [left, top, right - left, bottom - top]}


def _torch_file(path: Path, content: bytes) -> Any:
    file = io.BytesIO(content)
    if content.startswith(b'PK') and not zipfile.is_zipfile(file):
        raise ValueError(f'{path}: the file is not a complete zip file, as torch.save writes')
    packed = len(content) != path.stat().st_size
    file.seek(0)  # is_zipfile moves the position
    return load_tensors(file if packed else path)


def _check_keys(predictions: Sequence, source: str) -> None:
    """Raise a ValueError for unknown keys, which may be misspelt, and for images without ids."""
    for number, entry in enumerate(predictions):
        unknown = next((key for key in entry if key not in IMAGE_KEYS), None) if isinstance(entry, Mapping) else None
        if unknown is not None:
            close = difflib.get_close_matches(str(unknown), IMAGE_KEYS, 1)
            hint = f'did you mean {close[0]!r}?' if close else f'known: {", ".join(IMAGE_KEYS)}'
            raise ValueError(f'{source}[{number}]: unknown key {unknown!r}; {hint}')
    if predictions and isinstance(predictions[0], Mapping) and 'image_id' not in predictions[0]:
        raise ValueError(f"{source}[0] has no 'image_id'; add it to each dict, or give a dict {{image_id: prediction}}")
