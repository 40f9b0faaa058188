"""OpenMMLab's layout of images with instances, in its JSON files (``metainfo``, ``data_list``) and in datasets, as COCO's."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from .faults import Broken, shown
from .yolo import MOST_CLASSES


def is_middle_format(data: Any) -> bool:
    """Return whether this is the content of a file in OpenMMLab's own layout."""
    return isinstance(data, dict) and isinstance(data.get('data_list'), list)


def read_middle_format(data: dict, source: str, broken: Broken) -> tuple[dict, list[str]]:
    """Convert OpenMMLab's layout; return COCO's dict, and notes."""
    classes = (data.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        classes = [classes]
    if not classes:
        labels = [instance.get('bbox_label', -1) for image in data['data_list'] if isinstance(image, dict)
                  for instance in image.get('instances') or []]
        if max(labels, default=0) >= MOST_CLASSES:
            raise ValueError(f'{source}: labels must be below {MOST_CLASSES}, got {shown(max(labels))}')
        classes = [str(label) for label in range(max(labels, default=0) + 1)]
    return coco_from_images(data['data_list'], classes, f'{source}: data_list', broken)


def coco_from_images(images: Iterable[dict], classes: Sequence[str], where: str,
                     broken: Broken | None = None) -> tuple[dict, list[str]]:
    """Convert images with their instances to a dict of COCO's layout.

    Instances with ``ignore_flag`` (VOC's difficult ones, CrowdHuman's ignored ones) and with ``is_group_of`` (Open Images)
    become crowd regions: detections inside them count neither way, and they occlude nothing. Those of a negative label are
    regions for every class.

    Args:
        images: Each with ``height``, ``width``, ``instances`` and ``img_id``, or else ``img_path``. Instances have ``bbox``
            (xyxy), ``bbox_label``, and perhaps ``ignore_flag``, ``mask`` and others, which are kept.
        classes: Name of each label.
        where: Name for messages.
        broken: Gets images and instances that cannot be used; None refuses them here.

    Returns:
        The dict, and notes on what is ignored. Areas are those of the boxes.

    Raises:
        ValueError: An image or an instance lacks one of these, or a label has no class.
    """
    listed, annotations, own = [], [], broken or Broken(where)
    counts = {'ignore_flag': 0, 'is_group_of': 0}
    for number, info in enumerate(images):
        missing = [key for key in ('height', 'width', 'instances') if not isinstance(info, dict) or key not in info]
        if missing:
            own.add(f'{where}[{number}] has no {", ".join(missing)}')
            continue
        path = str(info.get('img_path') or info.get('file_name') or '')
        image_id = info.get('img_id', PurePath(path).stem or number)
        listed.append({'id': image_id, 'height': info['height'], 'width': info['width'], 'file_name': path})
        for instance in info['instances']:
            with own.at(f'{where}[{number}]'):
                box = instance.get('bbox')
                if box is None or len(box) != 4:
                    raise ValueError(f"{where}[{number}]: an instance has the 'bbox' {shown(box)}, expected [x1, y1, x2, y2]")
                left, top, right, bottom = map(float, box)
                label = int(instance.get('bbox_label', 0))
                if label >= len(classes):
                    raise ValueError(f'{where}[{number}]: label {label} is not from 0 to {len(classes) - 1}, the classes')
                counted = [key for key in counts if instance.get(key)]
                for key in counted:
                    counts[key] += 1
                width, height = max(right - left, 0.), max(bottom - top, 0.)
                extra = {key: value for key, value in instance.items() if key not in ('bbox', 'bbox_label', 'mask', 'bbox_id')
                         and not isinstance(value, np.ndarray)}
                annotations.append({**extra, 'id': len(annotations) + 1, 'image_id': image_id,
                                    'category_id': label + 1 if label >= 0 else None, 'bbox': [left, top, width, height],
                                    'area': width * height, 'iscrowd': int(bool(counted) or label < 0),
                                    'segmentation': instance.get('mask')})
    if broken is None:
        own.settle()
    named = {'ignore_flag': 'have an ignore_flag (difficult or ignored objects)', 'is_group_of': 'are groups (IsGroupOf)'}
    notes = [f'{count} annotations {named[key]}: they are ignored' for key, count in counts.items() if count]
    categories = [{'id': number, 'name': str(name)} for number, name in enumerate(classes, 1)]
    return {'images': listed, 'annotations': annotations, 'categories': categories}, notes
