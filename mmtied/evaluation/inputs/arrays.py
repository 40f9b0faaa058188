"""Instance annotations as compact, validated arrays."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .coco_json import positions
from .image_ids import ImageLookup, is_digits
from .rle import rle_areas, to_rle

#: Placeholder for the segmentation of an annotation without one.
MISSING = object()


class Federated(NamedTuple):
    """LVIS's lists of categories for each image, as sorted cells ``image * K + category``, int64."""

    judged: np.ndarray  # present or verified absent; detections in other cells do not count
    not_exhaustive: np.ndarray  # not all objects are annotated; unmatched detections are ignored


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of a data set.

    Attributes:
        source: Name used in messages, usually the file.
        image_ids: Sorted image ids, shape (I,): int64, uint64 or text, see `image_ids.id_array`.
        image_sizes: Height and width of each image in pixels, shape (I, 2) int64.
        category_ids: Sorted category ids, shape (K,) int64.
        category_names: Name of each category id, in the order of the file.
        frequencies: LVIS's ``frequency`` of each category id, ``'r'``, ``'c'`` or ``'f'``; empty for other data sets.
        image: Index of each annotation's image in `image_ids`, shape (N,) int64. Annotations keep the file's order.
        category: Index of each annotation's category in `category_ids`, shape (N,) int64.
        boxes_xywh: Boxes in pixels, shape (N, 4) float64.
        area: Areas in pixels as stated by the file, shape (N,) float64; COCO states those of the masks.
        crowd: Marks crowd and other ignore regions, shape (N,) bool. Detections inside are neither true nor false positives,
            and the regions occlude nothing.
        annotation_ids: Shape (N,) int64. A region that all categories ignore is repeated for each category.
        file_names: File name of each image, in the order of `image_ids`; empty if the file has none.
        notes: Lines on how the file was interpreted, such as rules for ignoring annotations.
        fields: Values of other keys of the annotations, N each, None if an annotation lacks the key.
        image_fields: Values of other keys of the images, in the order of `image_ids`.
        federated: Category lists for LVIS's protocol.
        merged: Index of the category that replaces each, if categories of one name were merged, shape (K,) int64.
    """

    source: str
    image_ids: np.ndarray
    image_sizes: np.ndarray
    category_ids: np.ndarray
    category_names: dict[int, str]
    image: np.ndarray
    category: np.ndarray
    boxes_xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    annotation_ids: np.ndarray
    _segmentations: list = field(repr=False)
    _rles: dict = field(default_factory=dict, repr=False)
    file_names: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    fields: dict[str, list] = field(default_factory=dict, repr=False)
    image_fields: dict[str, list] = field(default_factory=dict, repr=False)
    federated: Federated | None = field(default=None, repr=False)
    merged: np.ndarray | None = field(default=None, repr=False)
    frequencies: dict[int, str] = field(default_factory=dict, repr=False)

    @cached_property
    def images(self) -> ImageLookup:
        """Lookup of images by id or file name."""
        return ImageLookup(self.image_ids, self.file_names)

    def rle(self, annotation: int) -> dict:
        """Return the run-length code of the annotation at an index, computed on first use.

        Raises:
            ValueError: The segmentation is missing, broken, or of another size than the image.
        """
        if annotation not in self._rles:
            where = f'{self.source}: annotation {self.annotation_ids[annotation]}'
            segmentation = self._segmentations[annotation]
            if segmentation is MISSING:
                raise ValueError(f"{where} has no 'segmentation', which masks need; evaluate bbox only (--iou-type bbox)")
            height, width = self.image_sizes[self.image[annotation]].tolist()
            self._rles[annotation] = to_rle(segmentation, height, width, where)
            self._segmentations[annotation] = None
        return self._rles[annotation]

    def check_masks(self, annotations: np.ndarray) -> None:
        """Compute the run-length codes of the annotations at some indices and check that they are complete.

        Raises:
            ValueError: As `rle`, with the number of such annotations; also for codes that are truncated or do not add up to the
                pixels of their image.
        """
        annotations, rles, broken = annotations.tolist(), [], []
        for annotation in annotations:
            try:
                rles.append(self.rle(annotation))
            except ValueError as error:
                broken.append(error)
        if broken:
            also = f'; {len(broken)} of {len(annotations)} annotations have no usable mask' if len(broken) > 1 else ''
            raise ValueError(f'{broken[0]}{also}; --skip-invalid (skip_invalid=True) leaves such annotations out') from None
        rle_areas(rles, lambda number: f'{self.source}: annotation {self.annotation_ids[annotations[number]]}')

    def with_masks(self) -> 'GroundTruth':
        """Leave out annotations without a usable mask, and warn and add a note with their number."""
        usable = np.ones(len(self.image), dtype=bool)
        for annotation in range(len(usable)):
            try:
                self.check_masks(np.array([annotation]))
            except ValueError:
                usable[annotation] = False
        if usable.all():
            return self
        note = f'{(~usable).sum()} of {len(usable)} annotations have no usable mask and are left out (skip_invalid)'
        warnings.warn(f'{self.source}: {note}', stacklevel=2)
        return replace(self.select(usable), notes=(*self.notes, note))

    def select(self, annotations: np.ndarray) -> 'GroundTruth':
        """Select annotations by a mask or by indices."""
        chosen = np.flatnonzero(annotations) if annotations.dtype == bool else annotations
        columns = {name: getattr(self, name)[chosen]
                   for name in ('image', 'category', 'boxes_xywh', 'area', 'crowd', 'annotation_ids')}
        listed = chosen.tolist()
        new_place = {old: new for new, old in enumerate(listed)}
        return replace(self, **columns, _segmentations=[self._segmentations[number] for number in listed],
                       _rles={new_place[old]: rle for old, rle in self._rles.items() if old in new_place},
                       fields={key: [values[number] for number in listed] for key, values in self.fields.items()})

    def select_images(self, images: np.ndarray) -> 'GroundTruth':
        """Select images by a mask, shape (I,) bool."""
        new_place = np.cumsum(images) - 1
        part = self.select(images[self.image])
        federated, width = self.federated, len(self.category_ids)
        if federated:
            kept = [cells[images[cells // width]] for cells in federated]
            federated = Federated(*(new_place[cells // width] * width + cells % width for cells in kept))
        chosen = np.flatnonzero(images).tolist()
        fields = {key: [values[number] for number in chosen] for key, values in self.image_fields.items()}
        return replace(part, image_fields=fields, image_ids=self.image_ids[images], image_sizes=self.image_sizes[images],
                       image=new_place[part.image], federated=federated,
                       file_names=tuple(np.array(self.file_names, dtype=object)[images]))

    def class_agnostic(self) -> 'GroundTruth':
        """Assign all annotations to one category, the first."""
        if self.federated:
            raise ValueError(f"{self.source}: LVIS lists for each category the images in which it was searched for, so LVIS's "
                             "protocol cannot ignore categories; use protocol='coco' (--protocol coco)")
        first = int(self.category_ids[0])
        return replace(self, category=np.zeros_like(self.category), category_ids=self.category_ids[:1],
                       category_names={first: 'all categories'}, frequencies={})

    def names_of(self, categories: np.ndarray) -> list[str]:
        """Return the names of the categories at some indices in `category_ids`."""
        return [str(self.category_names[category_id]) for category_id in self.category_ids[categories].tolist()]

    def frequencies_of(self, categories: np.ndarray) -> list[str]:
        """Return LVIS's frequencies of the categories at some indices in `category_ids`; empty for other data sets."""
        ids = self.category_ids[categories].tolist()
        return [self.frequencies[category_id] for category_id in ids] if self.frequencies else []

    def named_ids(self, values: Sequence, digits: bool = False) -> list:
        """Replace category names by ids, and unknown names by an id that no category has.

        With `digits`, strings of digits that name no category count as ids.
        """
        ids = {str(name): number for number, name in reversed(self.category_names.items())}
        nowhere = int(self.category_ids[0]) - 2**32
        return [value if not isinstance(value, str) else ids.get(value, int(value) if digits and is_digits(value) else nowhere)
                for value in values]

    def find_categories(self, ids: np.ndarray) -> np.ndarray:
        """Return the index of each category id, after merging, or -1 for unknown ids."""
        found = positions(ids, self.category_ids)
        return found if self.merged is None else np.where(found < 0, -1, self.merged[found])

    def select_categories(self, category_ids: Sequence[int] | None = None) -> np.ndarray:
        """Return the sorted indices of some category ids (default: all) in `category_ids`."""
        if category_ids is None:
            return np.arange(len(self.category_ids))
        ids = np.unique(np.asarray(category_ids, dtype=np.int64))
        found = positions(ids, self.category_ids)
        if (found < 0).any():
            raise ValueError(f'{self.source}: category_ids: category id {ids[found < 0][0]} is not in the annotation file')
        return found
