"""OpenMMLab's images with instances, from JSON files (``metainfo``, ``data_list``) or mmdet datasets, in COCO's layout."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from .coco_builder import MOST_CLASSES, CocoBuilder
from .coco_json import read_json
from .faults import Broken, shown

#: Keys that mark ignored instances, and their meaning.
_IGNORED = {'ignore_flag': 'have an ignore_flag (difficult or ignored objects)', 'is_group_of': 'are groups (IsGroupOf)'}


def read_middle_format(data: dict, broken: Broken) -> tuple[dict, list[str]]:
    """Convert the content of a JSON file in OpenMMLab's layout; return COCO's dict, and notes."""
    classes = class_names(data.get('metainfo'))
    if not classes:
        largest = max((instance.get('bbox_label', -1) for image in data['data_list'] if isinstance(image, dict)
                       for instance in image.get('instances') or []), default=0)
        if largest >= MOST_CLASSES:
            raise ValueError(f'{broken.source}: labels must be below {MOST_CLASSES}, got {shown(largest)}')
        classes = map(str, range(largest + 1))
    return coco_from_images(data['data_list'], list(classes), f'{broken.source}: data_list', broken)


def coco_from_images(images: Iterable[dict], classes: Sequence[str], where: str, broken: Broken) -> tuple[dict, list[str]]:
    """Convert images with their instances to COCO's layout; return its dict, and notes on ignored instances.

    Instances with ``ignore_flag`` (difficult in VOC, ignored in CrowdHuman) or ``is_group_of`` (Open Images) become crowd
    regions: detections inside are neither true nor false positives, and they occlude nothing. A negative label makes a region
    for every class. Areas are those of the boxes.

    Each image has ``height``, ``width``, ``instances``, and ``img_id`` or ``img_path``; instances have ``bbox`` (xyxy),
    ``bbox_label``, and optionally ``ignore_flag``, ``mask`` and other keys, which are kept. `classes` names the labels.
    """
    builder, counts = CocoBuilder(), dict.fromkeys(_IGNORED, 0)
    for number, info in enumerate(images):
        missing = [key for key in ('height', 'width', 'instances') if not isinstance(info, dict) or key not in info]
        if missing:
            broken.add(f'{where}[{number}] has no {", ".join(missing)}')
            continue
        path = str(info.get('img_path') or info.get('file_name') or '')
        image_id = info.get('img_id', PurePath(path).stem or number)
        builder.add_image(image_id, path, height=info['height'], width=info['width'])
        for instance in info['instances']:
            with broken.at(f'{where}[{number}]'):
                box = instance.get('bbox')
                if box is None or len(box) != 4:
                    raise ValueError(f"an instance has the 'bbox' {shown(box)}, expected [x1, y1, x2, y2]")
                left, top, right, bottom = map(float, box)
                label = int(instance.get('bbox_label', 0))
                if label >= len(classes):
                    raise ValueError(f'label {label} is outside 0 to {len(classes) - 1}, the classes')
                marks = [key for key in counts if instance.get(key)]
                for key in marks:
                    counts[key] += 1
                width, height = max(right - left, 0.), max(bottom - top, 0.)
                others = {key: value for key, value in instance.items() if key not in ('bbox', 'bbox_label', 'mask', 'bbox_id')
                          and not isinstance(value, np.ndarray)}
                others |= {'area': width * height, 'segmentation': instance.get('mask')}
                builder.add_box(image_id, label + 1 if label >= 0 else None, [left, top, width, height],
                                bool(marks) or label < 0, **others)
    for key, count in counts.items():
        builder.note(count, f'annotations {_IGNORED[key]}: they are ignored')
    return builder.coco(map(str, classes))


def dataset_annotations(dataset: Any) -> dict:
    """Build COCO's dict from an mmdet dataset without a COCO file, such as Pascal VOC or CrowdHuman.

    The dataset must be in test mode, so that it keeps its annotations. ``info`` has the notes of `coco_from_images`.
    """
    name, classes = type(dataset).__name__, class_names(getattr(dataset, 'metainfo', None))
    if not classes or not hasattr(dataset, 'get_data_info'):
        raise ValueError(f'{name} has no COCO annotation file and names no classes')

    def infos() -> Iterator[dict]:
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            missing = [key for key in ('img_id', 'height', 'width', 'instances') if key not in info]
            if missing:
                raise ValueError(f'{name} has no COCO annotation file, and its images have no {", ".join(missing)}')
            yield info

    broken = Broken(name, None)
    data, notes = coco_from_images(infos(), classes, name, broken)
    broken.settle()
    return {**data, 'info': {'notes': notes}}


def class_names(metainfo: dict | None) -> list[str]:
    """Return the classes in OpenMMLab's metainfo, a list or a single name; empty without them."""
    classes = (metainfo or {}).get('classes') or ()
    return [classes] if isinstance(classes, str) else list(classes)


def coco_file(dataset: Any) -> str | None:
    """Return the path of a dataset's annotation file if it is a COCO file, judged by content or, if remote, by name."""
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
    """Return the names of a dataset's labels, which are also those of a model trained on it.

    mmdet's COCO datasets number the categories in the order of their file, regardless of the order of ``classes``, and skip
    classes that the file lacks.
    """
    classes = class_names(getattr(dataset, 'metainfo', None))
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
        raise ValueError(f'classes: {path} has no category named {missing[0]!r}, so mmdet numbers labels without it{hint}; the '
                         "dataset's metainfo=dict(classes=...) must name categories of the file, or label_names=[...] must list "
                         "the model's labels")
    listed = [names.get(number) for number in ids]
    return list(dict.fromkeys(listed)) if None not in listed else classes or None


def unwrapped(dataset: Any) -> Any:
    """Return the dataset inside wrappers such as mmengine's RepeatDataset."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset
