"""Exports of annotation tools: datumaro's JSON, Label Studio's JSON and CVAT's XML."""

from itertools import chain
from typing import Any
from xml.etree import ElementTree

from pycocotools import mask as mask_api

from .coco_builder import CocoBuilder, polygon_box
from .content import IMAGE_SUFFIXES
from .faults import Broken, one_line
from .rle import rle_areas, to_rle


class _Shapes(CocoBuilder):
    """Collects shapes with labels numbered from 0, and counts skipped ones."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names, self.skipped, self._groups = names, 0, {}

    def add_shape(self, label: int | None, box: list[float], crowd: bool = False, **others: Any) -> None:
        """Add a box, or a shape given by its `segmentation`, to the last image."""
        if label is None or not 0 <= label < len(self.names):
            raise ValueError(f'label {one_line(label)} is not among the {len(self.names)} labels')
        self.add_box(self.images[-1]['id'], label + 1, box, bool(crowd), **others)

    def add_polygon(self, label: int | None, points: list[float], crowd: bool = False, group: int | None = None,
                    **others: Any) -> None:
        """Add a polygon; those of one image, label and group (from 1) are parts of one object."""
        key = len(self.images), label, group
        if group and key in self._groups:
            entry = self._groups[key]
            entry['segmentation'].append(points)
            entry['bbox'] = polygon_box(list(chain(*entry['segmentation'])))
            return
        self.add_shape(label, polygon_box(points), crowd, segmentation=[points], **others)
        self._groups[key] = self.annotations[-1]

    def done(self, source: str) -> tuple[dict, list[str]]:
        """Return COCO's dict, and notes."""
        self.note(self.skipped, 'shapes are skipped: rotated, or neither box nor polygon', warn_of=source)
        return self.coco(self.names)


def read_datumaro(data: dict, broken: Broken) -> tuple[dict, list[str]]:
    """Convert boxes, polygons and masks in datumaro's own JSON; return COCO's dict, and notes.

    Polygons of one group are parts of one object.
    """
    labels = (data['categories'].get('label') or {}).get('labels') or []
    shapes = _Shapes([label['name'] for label in labels])
    for number, item in enumerate(data['items']):
        where = f'{broken.source}: items[{number}]'
        with broken.at(where):
            image = item.get('image') or {}
            height, width = image.get('size') or (None, None)
            sides = {} if height is None else dict(height=height, width=width)
            shapes.add_image(item.get('id', number), image.get('path') or f'{item.get("id")}', **sides)
            for entry in item.get('annotations') or []:
                with broken.at(where):
                    _add_datumaro(shapes, entry)
    return shapes.done(broken.source)


def _add_datumaro(shapes: _Shapes, entry: dict) -> None:
    kind, label = entry.get('type'), entry.get('label_id')
    crowd = (entry.get('attributes') or {}).get('is_crowd', False)
    if kind == 'bbox':
        shapes.add_shape(label, entry['bbox'], crowd)
    elif kind == 'polygon':
        shapes.add_polygon(label, entry.get('points') or [], crowd, entry.get('group'))
    elif kind == 'mask':
        code = to_rle(entry['rle'], *entry['rle']['size'], 'mask')
        rle_areas([code], lambda _: 'mask')  # toBbox checks nothing
        shapes.add_shape(label, mask_api.toBbox(code).tolist(), crowd, segmentation=entry['rle'])
    elif kind != 'label':  # labels belong to the whole image
        shapes.skipped += 1


def read_label_studio(data: list, broken: Broken) -> tuple[dict, list[str]]:
    """Convert Label Studio's JSON, the first uncancelled annotation of each task; return COCO's dict, and notes."""
    drawn: dict[int, list] = {}
    for number, task in enumerate(data):
        with broken.at(f'{broken.source}[{number}]'):
            drawn[number] = _label_studio_shapes(task)
    shapes = _Shapes(sorted({name for entries in drawn.values() for _, names in entries for name in names}))
    for number, entries in drawn.items():
        where, task = f'{broken.source}[{number}]', data[number]
        with broken.at(where):
            if not entries:
                continue
            first = entries[0][0]
            height, width = first['original_height'], first['original_width']
            shapes.add_image(task.get('id', number + 1), _label_studio_file(task['data']), height=height, width=width)
            for entry, names in entries:
                with broken.at(where):
                    _add_label_studio(shapes, shapes.names.index(names[0]), entry['value'], width / 100, height / 100)
    empty = sum(not entries for entries in drawn.values())
    shapes.note(empty, 'tasks without annotations, and so without image sizes, are left out', warn_of=broken.source)
    return shapes.done(broken.source)


def _label_studio_shapes(task: dict) -> list[tuple[dict, list[str]]]:
    """Return the shapes of a task with their labels."""
    drawn = [entry for entry in task.get('annotations') or task.get('completions') or [] if not entry.get('was_cancelled')]
    shapes = []
    for entry in drawn[0].get('result') or [] if drawn else []:
        value = entry.get('value') or {}
        labels = value.get('rectanglelabels') or value.get('polygonlabels') or []
        if labels and 'original_width' in entry:
            shapes.append((entry, labels))
    return shapes


def _add_label_studio(shapes: _Shapes, label: int, value: dict, x: float, y: float) -> None:
    """Add a shape with coordinates in units of `x` and `y` pixels."""
    if 'points' in value and not value.get('rotation'):
        shapes.add_polygon(label, [side * scale for point in value['points'] for side, scale in zip(point, (x, y), strict=True)])
    elif 'width' in value and not value.get('rotation'):
        shapes.add_shape(label, [value['x'] * x, value['y'] * y, value['width'] * x, value['height'] * y])
    else:
        shapes.skipped += 1


def _label_studio_file(data: dict) -> str:
    """Return the file of a task's image: the first text with an image suffix, or else the first text."""
    texts = [value.rpartition('?d=')[2] for value in data.values() if isinstance(value, str)]  # ?d= is local storage
    return next((text for text in texts if text.lower().endswith(IMAGE_SUFFIXES)), next(iter(texts), ''))


def is_cvat(content: bytes) -> bool:
    """Return whether this is CVAT's XML for images."""
    return b'<annotations>' in content[:2000] and b'<image ' in content


def read_cvat(content: bytes, broken: Broken) -> tuple[dict, list[str]]:
    """Convert boxes and polygons in "CVAT for images 1.1"; return COCO's dict, and notes."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f'{broken.source}: not complete XML ({error})') from None
    listed = [label.findtext('name') for label in root.iter('label')]
    shapes = _Shapes(list(dict.fromkeys([*filter(None, listed), *(shape.get('label') for shape in root.iterfind('image/*'))])))
    for image in root.iterfind('image'):
        where = f'{broken.source}: image {image.get("name")}'
        with broken.at(where):
            shapes.add_image(int(image.get('id')), image.get('name'), height=int(image.get('height')),
                             width=int(image.get('width')))
            for shape in image:
                with broken.at(where):
                    _add_cvat(shapes, shape)
    return shapes.done(broken.source)


def _add_cvat(shapes: _Shapes, shape: ElementTree.Element) -> None:
    label = shapes.names.index(shape.get('label')) if shape.get('label') in shapes.names else None
    occluded = int(shape.get('occluded', 0))
    if shape.tag == 'box' and not float(shape.get('rotation', 0)):
        left, top, right, bottom = (float(shape.get(side)) for side in ('xtl', 'ytl', 'xbr', 'ybr'))
        shapes.add_shape(label, [left, top, right - left, bottom - top], occluded=occluded)
    elif shape.tag == 'polygon':
        points = [float(side) for point in shape.get('points').split(';') for side in point.split(',')]
        shapes.add_polygon(label, points, occluded=occluded)
    else:
        shapes.skipped += 1
