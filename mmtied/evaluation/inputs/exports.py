"""Exports of annotation tools that are not in COCO's layout: datumaro's JSON, Label Studio's JSON, CVAT's XML."""

import warnings
from itertools import chain
from typing import Any
from xml.etree import ElementTree

from pycocotools import mask as mask_api

from .coco_json import polygon_box
from .content import IMAGE_SUFFIXES
from .faults import Broken, one_line
from .rle import rle_areas, to_rle


def is_datumaro(data: Any) -> bool:
    """Return whether this is datumaro's own JSON."""
    return isinstance(data, dict) and isinstance(data.get('items'), list) and isinstance(data.get('categories'), dict)


def read_datumaro(data: dict, broken: Broken) -> tuple[dict, list[str]]:
    """Convert datumaro's own JSON; return COCO's dict, and notes. Boxes, polygons and masks are read.

    Polygons of one group are parts of one object.
    """
    labels = (data['categories'].get('label') or {}).get('labels') or []
    builder = _Builder([label['name'] for label in labels])
    for number, item in enumerate(data['items']):
        with broken.at(f'{broken.source}: items[{number}]'):
            image = item.get('image') or {}
            height, width = image.get('size') or (None, None)
            builder.image(item.get('id', number), image.get('path') or f'{item.get("id")}', height, width)
            for entry in item.get('annotations') or []:
                with broken.at(f'{broken.source}: items[{number}]'):
                    _add_datumaro(builder, entry)
    return builder.done(broken.source)


def _add_datumaro(builder: '_Builder', entry: dict) -> None:
    crowd = (entry.get('attributes') or {}).get('is_crowd', False)
    if entry.get('type') == 'bbox':
        builder.box(entry.get('label_id'), entry['bbox'], crowd)
    elif entry.get('type') == 'polygon':
        builder.polygon(entry.get('label_id'), entry.get('points') or [], crowd, group=entry.get('group'))
    elif entry.get('type') == 'mask':
        code = to_rle(entry['rle'], *entry['rle']['size'], 'mask')
        rle_areas([code], lambda _: 'mask')  # toBbox trusts it
        builder.box(entry.get('label_id'), mask_api.toBbox(code).tolist(), crowd, segmentation=entry['rle'])
    elif entry.get('type') != 'label':  # of the whole image
        builder.skipped += 1


def is_label_studio(data: Any) -> bool:
    """Return whether this is Label Studio's JSON export."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and 'data' in first and ('annotations' in first or 'completions' in first)


def read_label_studio(data: list, broken: Broken) -> tuple[dict, list[str]]:
    """Convert Label Studio's JSON: the first annotation of each task that was not cancelled; return COCO's dict, and notes."""
    shapes_of: dict[int, list] = {}
    for number, task in enumerate(data):
        with broken.at(f'{broken.source}[{number}]'):
            shapes_of[number] = _label_studio_shapes(task)
    names = sorted({name for shapes in shapes_of.values() for _, labels in shapes for name in labels})
    builder = _Builder(names)
    for number, shapes in shapes_of.items():
        if not shapes:
            builder.empty += 1
            continue
        with broken.at(f'{broken.source}[{number}]'):
            task, first = data[number], shapes[0][0]
            builder.image(task.get('id', number + 1), _label_studio_file(task['data']), first['original_height'],
                          first['original_width'])
            for entry, labels in shapes:
                with broken.at(f'{broken.source}[{number}]'):
                    _add_label_studio(builder, names.index(labels[0]), entry['value'], first)
    return builder.done(broken.source)


def _add_label_studio(builder: '_Builder', label: int, value: dict, size: dict) -> None:
    x, y = size['original_width'] / 100, size['original_height'] / 100
    if value.get('rotation'):
        builder.skipped += 1
    elif 'points' in value:
        builder.polygon(label, [side * scale for point in value['points'] for side, scale in zip(point, (x, y), strict=True)])
    elif 'width' in value:
        builder.box(label, [value['x'] * x, value['y'] * y, value['width'] * x, value['height'] * y])
    else:
        builder.skipped += 1


def _label_studio_file(data: dict) -> str:
    """Return the file of a task's image: of several texts, one that ends like an image's name."""
    texts = [value.rpartition('?d=')[2] for value in data.values() if isinstance(value, str)]  # of local storage
    return next((text for text in texts if text.lower().endswith(IMAGE_SUFFIXES)), next(iter(texts), ''))


def _label_studio_shapes(task: dict) -> list[tuple[dict, list[str]]]:
    drawn = [entry for entry in task.get('annotations') or task.get('completions') or [] if not entry.get('was_cancelled')]
    shapes = []
    for entry in drawn[0].get('result') or [] if drawn else []:
        value = entry.get('value') or {}
        labels = value.get('rectanglelabels') or value.get('polygonlabels') or []
        if labels and 'original_width' in entry:
            shapes.append((entry, labels))
    return shapes


def is_cvat(content: bytes) -> bool:
    """Return whether this is CVAT's XML for images."""
    return b'<annotations>' in content[:2000] and b'<image ' in content


def read_cvat(content: bytes, broken: Broken) -> tuple[dict, list[str]]:
    """Convert "CVAT for images 1.1"; return COCO's dict, and notes. Only boxes and polygons are read."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f'{broken.source}: not complete XML ({error})') from None
    listed = [label.findtext('name') for label in root.iter('label')]
    names = list(dict.fromkeys([*filter(None, listed), *(shape.get('label') for shape in root.iterfind('image/*'))]))
    builder = _Builder(names)
    for image in root.iterfind('image'):
        where = f'{broken.source}: image {image.get("name")}'
        with broken.at(where):
            builder.image(int(image.get('id')), image.get('name'), int(image.get('height')), int(image.get('width')))
            for shape in image:
                with broken.at(where):
                    _add_cvat(builder, shape)
    return builder.done(broken.source)


def _add_cvat(builder: '_Builder', shape: ElementTree.Element) -> None:
    label = builder.names.index(shape.get('label')) if shape.get('label') in builder.names else None
    extra = {'occluded': int(shape.get('occluded', 0))}
    if shape.tag == 'box' and not float(shape.get('rotation', 0)):
        left, top, right, bottom = (float(shape.get(side)) for side in ('xtl', 'ytl', 'xbr', 'ybr'))
        builder.box(label, [left, top, right - left, bottom - top], False, extra)
    elif shape.tag == 'polygon':
        points = [float(side) for point in shape.get('points').split(';') for side in point.split(',')]
        builder.polygon(label, points, False, extra)
    else:
        builder.skipped += 1


class _Builder:
    """Collects images and shapes as COCO's dict; ids of categories count from 1."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.images, self.annotations, self.skipped, self.empty = names, [], [], 0, 0
        self._groups: dict[tuple, dict] = {}

    def image(self, image_id: Any, path: str, height: Any, width: Any) -> None:
        image = {'id': image_id, 'file_name': path}
        self.images.append(image if height is None else image | {'height': height, 'width': width})

    def box(self, label: int | None, box: list[float], crowd: bool = False, extra: dict | None = None, **shape: Any) -> None:
        if label is None or not 0 <= label < len(self.names):
            raise ValueError(f'label {one_line(label)} is not among the {len(self.names)} labels')
        shape = shape or {'area': box[2] * box[3]}  # these layouts state none
        self.annotations.append({**(extra or {}), 'id': len(self.annotations) + 1, 'image_id': self.images[-1]['id'],
                                 'category_id': label + 1, 'bbox': list(box), 'iscrowd': int(bool(crowd)), **shape})

    def polygon(self, label: int | None, points: list[float], crowd: bool = False, extra: dict | None = None,
                group: int | None = None) -> None:
        """Add a polygon; those of one image, label and group, which counts from 1, are parts of one object."""
        key = len(self.images), label, group
        if group and key in self._groups:
            entry = self._groups[key]
            entry['segmentation'].append(points)
            entry['bbox'] = polygon_box(list(chain(*entry['segmentation'])))
            return
        self.box(label, polygon_box(points), crowd, extra, segmentation=[points])
        self._groups[key] = self.annotations[-1]

    def done(self, source: str) -> tuple[dict, list[str]]:
        notes = [f'{self.skipped} shapes are neither boxes nor polygons, or rotated, and left out'] if self.skipped else []
        if self.empty:
            notes.append(f'{self.empty} tasks without an annotation, and so without a size, are left out')
        for note in notes:
            warnings.warn(f'{source}: {note}', stacklevel=2)
        categories = [{'id': number, 'name': name} for number, name in enumerate(self.names, 1)]
        return {'images': self.images, 'annotations': self.annotations, 'categories': categories}, notes
