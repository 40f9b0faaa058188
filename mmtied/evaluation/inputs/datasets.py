"""Annotations and classes of mmdet datasets."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .coco_json import read_json
from .openmmlab import coco_from_images


def dataset_annotations(dataset: Any) -> dict:
    """Build a COCO annotation dict from the boxes of an mmdet dataset that has no COCO file, such as Pascal VOC or CrowdHuman.

    What is ignored, and why, is said by `coco_from_images`; the notes are under ``info``.

    Args:
        dataset: In test mode, so that it keeps its annotations. `get_data_info` gives ``img_id``, ``height``, ``width`` and
            ``instances``, each with ``bbox`` (xyxy), ``bbox_label`` and ``ignore_flag``; `metainfo` gives ``classes``.

    Raises:
        ValueError: The dataset lacks one of these.
    """
    name = type(dataset).__name__
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not classes or not hasattr(dataset, 'get_data_info'):
        raise ValueError(f'{name} has no COCO annotation file and names no classes')
    classes = [classes] if isinstance(classes, str) else classes

    def infos() -> Iterable[dict]:
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            missing = [key for key in ('img_id', 'height', 'width', 'instances') if key not in info]
            if missing:
                raise ValueError(f'{name} has no COCO annotation file, and its images have no {", ".join(missing)}')
            yield {**info, 'file_name': info.get('img_path')}

    data, notes = coco_from_images(infos(), classes, name)
    return {**data, 'info': {'notes': notes}}


def coco_file(dataset: Any) -> str | None:
    """Return the path of a dataset's annotation file where it is a COCO file, by its content, or if remote by its name."""
    path = getattr(dataset, 'ann_file', None)
    if not isinstance(path, str) or not Path(path).name:
        return None
    if hasattr(dataset, 'cat_ids') or hasattr(dataset, 'COCOAPI'):
        return path
    if not Path(path).is_file():
        return path if path.endswith('.json') else None
    try:
        data = read_json(path)
    except ValueError:
        return None
    return path if isinstance(data, dict) and {'images', 'annotations'} <= set(data) else None


def dataset_label_names(dataset: Any) -> list[str] | None:
    """Return the name of each label that a dataset gives its annotations, and a model trained on it predicts.

    mmdet's COCO datasets number the categories in the order of their file, whatever the order of ``classes``, and without those
    that the file lacks.

    Raises:
        ValueError: A class has no category in the dataset's own file, so that labels of a model and of the file would differ.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    classes = [classes] if isinstance(classes, str) else list(classes or ())
    ids = getattr(dataset, 'cat_ids', None)
    path = getattr(dataset, 'ann_file', None)
    if not ids or not isinstance(path, str) or not Path(path).is_file():
        return classes or None
    data = read_json(path)
    names = {entry['id']: entry['name'] for entry in data.get('categories') or ()}
    missing = [name for name in classes if name not in names.values()]
    if missing:
        close = difflib.get_close_matches(str(missing[0]), [str(name) for name in names.values()], 1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        raise ValueError(f'classes: {path} has no category named {missing[0]!r}, so mmdet numbers labels as if the class were '
                         f"not there{hint}; the dataset's metainfo=dict(classes=...) must name categories of the file, or "
                         'label_names=[...] list the labels of the model')
    listed = [names.get(number) for number in ids]
    return list(dict.fromkeys(listed)) if None not in listed else classes or None


def unwrapped(dataset: Any) -> Any:
    """Return a dataset without the wrappers around it, such as mmengine's RepeatDataset."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset
