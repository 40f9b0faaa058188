"""Images and objects of other layouts, collected as COCO's dict."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

#: Largest number of classes that labels may count.
MOST_CLASSES = 100_000


class CocoBuilder:
    """Collects images, objects and notes on how they were read; ids of annotations count from 1."""

    def __init__(self) -> None:
        self.images, self.annotations, self.notes = [], [], []

    def add_image(self, image_id: Any, file_name: str, **sides: Any) -> dict:
        """Add an image, and return its entry; `sides` are its height and width, where they are known."""
        self.images.append({'id': image_id, 'file_name': file_name, **sides})
        return self.images[-1]

    def add_box(self, image_id: Any, category_id: Any, box_xywh: Sequence[float], ignored: bool = False, **others: Any) -> None:
        """Add an object; one without an ``area`` or a ``segmentation`` has the area of its box. `others` are kept as they are."""
        area = {} if 'segmentation' in others else {'area': box_xywh[2] * box_xywh[3]}
        self.annotations.append({**area, **others, 'id': len(self.annotations) + 1, 'image_id': image_id,
                                 'category_id': category_id, 'bbox': list(box_xywh), 'iscrowd': int(ignored)})

    @property
    def num_ignored(self) -> int:
        """Number of objects that are ignored."""
        return sum(entry['iscrowd'] for entry in self.annotations)

    def note(self, count: int, text: str, warn_of: str | None = None) -> None:
        """Note what some objects or images, perhaps none, are; with a warning where `warn_of` names the source."""
        if count:
            self.notes.append(f'{count} {text}')
            if warn_of is not None:
                warnings.warn(f'{warn_of}: {self.notes[-1]}', stacklevel=2)

    def coco(self, names: Iterable[str], first_id: int = 1) -> tuple[dict, list[str]]:
        """Return COCO's dict, with categories of these names that count from `first_id`, and the notes."""
        categories = [{'id': number, 'name': name} for number, name in enumerate(names, first_id)]
        return {'images': self.images, 'annotations': self.annotations, 'categories': categories}, self.notes


def polygon_box(points: Sequence[float]) -> list[float]:
    """Return the box left, top, width, height around the corners x1, y1, x2, y2, ... of a polygon.

    Example:
        >>> polygon_box([1, 2, 5, 2, 3, 8])
        [1, 2, 4, 6]
    """
    xs, ys = points[::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
