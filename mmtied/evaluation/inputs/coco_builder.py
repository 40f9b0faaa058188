"""Build a dict in COCO's layout from images and objects of other layouts."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

#: Largest number of classes.
MOST_CLASSES = 100_000


class CocoBuilder:
    """Collects images, objects and notes on how they were read; annotation ids start at 1."""

    def __init__(self) -> None:
        self.images, self.annotations, self.notes = [], [], []

    def add_image(self, image_id: Any, file_name: str, **sides: Any) -> dict:
        """Add an image and return its entry; `sides` are its height and width, if known."""
        self.images.append({'id': image_id, 'file_name': file_name, **sides})
        return self.images[-1]

    def add_box(self, image_id: Any, category_id: Any, box_xywh: Sequence[float], ignored: bool = False, **others: Any) -> None:
        """Add an object and other keys of it; without ``area`` or ``segmentation``, its area is that of the box."""
        area = {} if 'segmentation' in others else {'area': box_xywh[2] * box_xywh[3]}
        self.annotations.append({**area, **others, 'id': len(self.annotations) + 1, 'image_id': image_id,
                                 'category_id': category_id, 'bbox': list(box_xywh), 'iscrowd': int(ignored)})

    @property
    def num_ignored(self) -> int:
        """Number of ignored objects."""
        return sum(entry['iscrowd'] for entry in self.annotations)

    def note(self, count: int, text: str, warn_of: str | None = None) -> None:
        """Add a note with the count and a text if the count is above 0; also warn if `warn_of` names the source."""
        if count:
            self.notes.append(f'{count} {text}')
            if warn_of is not None:
                warnings.warn(f'{warn_of}: {self.notes[-1]}', stacklevel=2)

    def coco(self, names: Iterable[str], first_id: int = 1) -> tuple[dict, list[str]]:
        """Return COCO's dict, with category ids from `first_id` for these names, and the notes."""
        categories = [{'id': number, 'name': name} for number, name in enumerate(names, first_id)]
        return {'images': self.images, 'annotations': self.annotations, 'categories': categories}, self.notes


def polygon_box(points: Sequence[float]) -> list[float]:
    """Return the bounding box left, top, width, height of a polygon x1, y1, x2, y2, ...

    Example:
        >>> polygon_box([1, 2, 5, 2, 3, 8])
        [1, 2, 4, 6]
    """
    xs, ys = points[::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
