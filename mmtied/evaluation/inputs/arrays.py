"""Instance annotations as compact, checked arrays."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .coco_json import positions
from .image_ids import ImageLookup, is_digits
from .rle import rle_areas, to_rle

#: Stands for a segmentation that an annotation lacks.
MISSING = object()


class Federated(NamedTuple):
    """Categories that LVIS lists for each image, as sorted cells ``image * K + category``, int64."""

    judged: np.ndarray  # present, or known to be absent; detections elsewhere do not count
    not_exhaustive: np.ndarray  # not all objects are annotated; a detection without a match is ignored


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of a data set.

    Attributes:
        source: Name for messages, usually the file.
        image_ids: Sorted image ids, shape (I,): int64, uint64 or text, see `image_ids.id_array`.
        image_sizes: Height and width of each image in pixels, shape (I, 2) int64.
        category_ids: Sorted category ids, shape (K,) int64.
        category_names: Name of each category id, in the order of the file.
        frequencies: LVIS's ``frequency`` of each category id, ``'r'``, ``'c'`` or ``'f'``; empty for other data sets.
        image: Index of each annotation's image in `image_ids`, shape (N,) int64. Annotations keep the file's order.
        category: Index of each annotation's category in `category_ids`, shape (N,) int64.
        boxes_xywh: Boxes in pixels, shape (N, 4) float64.
        area: Areas as the file states them, in pixels, shape (N,) float64; those of the masks, for COCO.
        crowd: Marks crowd regions and all else that is ignored, shape (N,) bool. Detections inside count neither way, and
            they occlude nothing.
        annotation_ids: Shape (N,) int64. A region that all categories ignore stands once for each category.
        file_names: File name of each image, in the order of `image_ids`; empty where the file has none.
        notes: What was done with the file that its reader should know, such as rules of what is ignored; a line each.
        fields: The values of other keys of the annotations, N of each, None where an annotation lacks the key.
        image_fields: Other keys of the images, in the order of `image_ids`.
        federated: For LVIS's protocol.
        merged: Index of the category that stands for each, where those of one name were merged, shape (K,) int64.
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
        """Finds images by id or file name."""
        return ImageLookup(self.image_ids, self.file_names)

    def rle(self, annotation: int) -> dict:
        """Return the run-length code of the annotation at an index; it is made on first use and kept.

        Raises:
            ValueError: The annotation has no segmentation, a broken one, or one of another size than its image.
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
        """Make the run-length codes of the annotations at some indices and check that they are complete.

        Raises:
            ValueError: As `rle`, with the number of such annotations; also for a code that is cut off or does not add up to the
                pixels of its image.
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
        """Return the same without annotations that have no usable mask, which a note counts."""
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
        """Return the same with some annotations only, by a mask or by indices in order."""
        chosen = np.flatnonzero(annotations) if annotations.dtype == bool else annotations
        columns = {name: getattr(self, name)[chosen]
                   for name in ('image', 'category', 'boxes_xywh', 'area', 'crowd', 'annotation_ids')}
        listed = chosen.tolist()
        new_place = {old: new for new, old in enumerate(listed)}
        return replace(self, **columns, _segmentations=[self._segmentations[number] for number in listed],
                       _rles={new_place[old]: rle for old, rle in self._rles.items() if old in new_place},
                       fields={key: [values[number] for number in listed] for key, values in self.fields.items()})

    def select_images(self, images: np.ndarray) -> 'GroundTruth':
        """Return the same with some images only, shape (I,) bool."""
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
        """Return the same with one category, the first, for all annotations."""
        if self.federated:
            raise ValueError(f'{self.source}: LVIS says for each category where it was looked for, so its protocol cannot leave '
                             "categories out; use protocol='coco' (--protocol coco)")
        first = int(self.category_ids[0])
        return replace(self, category=np.zeros_like(self.category), category_ids=self.category_ids[:1],
                       category_names={first: 'all categories'}, frequencies={})

    def names_of(self, categories: np.ndarray) -> list[str]:
        """Return the names of the categories at some positions in `category_ids`."""
        return [str(self.category_names[category_id]) for category_id in self.category_ids[categories].tolist()]

    def frequencies_of(self, categories: np.ndarray) -> list[str]:
        """Return LVIS's frequencies of the categories at some positions in `category_ids`; empty for other data sets."""
        ids = self.category_ids[categories].tolist()
        return [self.frequencies[category_id] for category_id in ids] if self.frequencies else []

    def named_ids(self, values: Sequence, digits: bool = False) -> list:
        """Return ids in place of texts: that of the category with the name, or one that no category has.

        With `digits`, texts of digits that name no category are ids too.
        """
        ids = {str(name): number for number, name in reversed(self.category_names.items())}
        nowhere = int(self.category_ids[0]) - 2**32
        return [value if not isinstance(value, str) else ids.get(value, int(value) if digits and is_digits(value) else nowhere)
                for value in values]

    def find_categories(self, ids: np.ndarray) -> np.ndarray:
        """Return the index of each category id, -1 where there is none; that of the one which stands for it, if merged."""
        found = positions(ids, self.category_ids)
        return found if self.merged is None else np.where(found < 0, -1, self.merged[found])

    def select_categories(self, category_ids: Sequence[int] | None = None) -> np.ndarray:
        """Return the sorted indices of some category ids in `category_ids`; of all ids by default."""
        if category_ids is None:
            return np.arange(len(self.category_ids))
        ids = np.unique(np.asarray(category_ids, dtype=np.int64))
        found = positions(ids, self.category_ids)
        if (found < 0).any():
            raise ValueError(f'{self.source}: category_ids: category id {ids[found < 0][0]} is not in the annotation file')
        return found
