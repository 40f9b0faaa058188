"""The annotations of an mmdet dataset that has no COCO file, such as Pascal VOC, in COCO's layout."""

import operator
from typing import Any


def dataset_annotations(dataset: Any) -> dict:
    """What `ground_truth.read_ground_truth` reads, from the boxes that a dataset holds.

    An instance that the dataset ignores (VOC's difficult ones, by default) becomes a crowd region: detections inside it count
    neither way, and it occludes nothing. Areas are those of the boxes. There are no masks.

    Args:
        dataset: In test mode, so that it holds its annotations; `get_data_info` gives ``img_id``, ``height``, ``width`` and
            ``instances``, each with ``bbox`` (xyxy), ``bbox_label`` and ``ignore_flag``; `metainfo` gives ``classes``.

    Raises:
        ValueError: The dataset does not say so much about its images, or an image id is no number.
    """
    name = type(dataset).__name__
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not classes or not hasattr(dataset, 'get_data_info'):
        raise ValueError(f'{name} has no COCO annotation file and names no classes')
    images, annotations = [], []
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        missing = [key for key in ('img_id', 'height', 'width', 'instances') if key not in info]
        if missing:
            raise ValueError(f'{name} has no COCO annotation file, and its images no {", ".join(missing)}')
        image_id = numeric_id(info['img_id'])
        images.append({'id': image_id, 'height': info['height'], 'width': info['width']})
        for instance in info['instances']:
            left, top, right, bottom = map(float, instance['bbox'])
            width, height = max(right - left, 0.), max(bottom - top, 0.)
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, 'category_id': instance['bbox_label'] + 1,
                                'bbox': [left, top, width, height], 'area': width * height,
                                'iscrowd': int(bool(instance.get('ignore_flag', 0)))})
    categories = [{'id': number, 'name': label} for number, label in enumerate(classes, 1)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def unwrapped(dataset: Any) -> Any:
    """A dataset without the wrappers around it, such as mmengine's RepeatDataset."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def numeric_id(image_id: int | str) -> int:
    """An image id as a number, VOC's ``'000005'`` as 5.

    Raises:
        ValueError: Neither a whole number nor a string of nothing but the digits 0 to 9.

    Example:
        >>> numeric_id('000005'), numeric_id(17)
        (5, 17)
    """
    try:
        if isinstance(image_id, str):
            if not (image_id.isascii() and image_id.isdecimal()):
                raise ValueError
            return int(image_id)
        return operator.index(image_id)
    except (TypeError, ValueError):
        raise ValueError(f'image id {image_id!r}: a number is needed, or a string of digits') from None
