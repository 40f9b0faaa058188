"""COCO instance annotations as compact, checked arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as mask_api

from .coco_json import box_column, check_entries, check_unique, integer_column, number_column, positions, read_json
from .rle import rle_areas

_MISSING = object()


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of a data set.

    Args:
        source: Where it was read from, for messages.
        image_ids: Sorted image ids, shape (I,) int64.
        image_sizes: Height and width of each image in pixels, shape (I, 2) int64.
        category_ids: Sorted category ids, shape (K,) int64.
        category_names: Name of each category id, in the order of the file.
        image: Position of each annotation's image in `image_ids`, shape (N,) int64. Annotations keep the file's order.
        category: Position of each annotation's category in `category_ids`, shape (N,) int64.
        boxes_xywh: Boxes in pixels, shape (N, 4) float64.
        area: The file's areas in pixels, shape (N,) float64: those of the masks, for COCO.
        crowd: Whether an annotation is a crowd region, shape (N,) bool.
        annotation_ids: Shape (N,) int64.
        file_names: File name of each image, in the order of `image_ids`; empty where the file has none.
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

    def rle(self, annotation: int) -> dict:
        """The run-length code of the annotation at a position, made on first use and kept.

        Raises:
            ValueError: The annotation has no segmentation, a broken one, or one of another size than its image.
        """
        if annotation not in self._rles:
            where = f'{self.source}: annotation {self.annotation_ids[annotation]}'
            segmentation = self._segmentations[annotation]
            if segmentation is _MISSING:
                raise ValueError(f"{where} has no 'segmentation', which masks need; evaluate bbox only")
            height, width = self.image_sizes[self.image[annotation]].tolist()
            self._rles[annotation] = to_rle(segmentation, height, width, where)
            self._segmentations[annotation] = None
        return self._rles[annotation]

    def check_masks(self, annotations: np.ndarray) -> None:
        """Make the run-length codes of some annotations at once and check that they are whole.

        Args:
            annotations: Positions, shape (M,).

        Raises:
            ValueError: As `rle`, and a code that is cut off or does not add up to the pixels of its image.
        """
        annotations = annotations.tolist()
        rle_areas([self.rle(annotation) for annotation in annotations],
                  lambda number: f'{self.source}: annotation {self.annotation_ids[annotations[number]]}')

    def select_categories(self, category_ids: Sequence[int] | None = None) -> np.ndarray:
        """Position of each of `category_ids` in the file's sorted ids, all of them by default; sorted, without repeats."""
        if category_ids is None:
            return np.arange(len(self.category_ids))
        ids = np.unique(np.asarray(category_ids, dtype=np.int64))
        return positions(ids, self.category_ids, 'category id', f'{self.source}: category_ids')


def read_ground_truth(annotations: str | os.PathLike | dict) -> GroundTruth:
    """Read COCO instance annotations from a file, or from a dict of the same layout.

    `iscrowd` counts as 0 where it is missing, and an `ignore` key has no effect, as in COCOeval.

    Raises:
        ValueError: Missing, empty or truncated file; no images; broken or duplicate ids; ids that do not match; boxes with
            negative or infinite sides; a bbox or area missing. The message is one line and names the entry.
    """
    if isinstance(annotations, dict):
        source, data = 'annotations', annotations
    else:
        source, data = str(annotations), read_json(annotations)
    if not isinstance(data, dict) or any(key not in data for key in ('images', 'annotations', 'categories')):
        raise ValueError(f"{source}: not a COCO instances file, which has 'images', 'annotations' and 'categories'")
    images, entries, categories = data['images'], data['annotations'], data['categories']
    at_images, at_entries, at_categories = (f'{source}: {key}' for key in ('images', 'annotations', 'categories'))
    check_entries(images, ('id', 'height', 'width'), at_images)
    check_entries(entries, ('id', 'image_id', 'category_id', 'bbox', 'area'), at_entries)
    check_entries(categories, ('id', 'name'), at_categories)
    if not images:
        raise ValueError(f'{source}: the file lists no images')

    image_ids = integer_column(images, 'id', at_images)
    if not categories:
        raise ValueError(f'{at_categories}: there are none, and detections are evaluated by category')
    category_ids = integer_column(categories, 'id', at_categories)
    annotation_ids = integer_column(entries, 'id', at_entries)
    for ids, where in ((image_ids, at_images), (category_ids, at_categories), (annotation_ids, at_entries)):
        check_unique(ids, where)
    sizes = np.stack([integer_column(images, 'height', at_images), integer_column(images, 'width', at_images)], axis=1)
    if (sizes < 1).any():
        number = int((sizes < 1).any(axis=1).argmax())
        raise ValueError(f"{at_images}[{number}]: 'height' and 'width' must be at least 1, got {sizes[number].tolist()}")
    order = np.argsort(image_ids)
    area = number_column(entries, 'area', at_entries)
    if (area < 0).any():
        number = int((area < 0).argmax())
        raise ValueError(f"{at_entries}[{number}]: 'area' must be at least 0, got {area[number]}")
    return GroundTruth(
        source=source,
        image_ids=image_ids[order],
        image_sizes=sizes[order],
        category_ids=np.sort(category_ids),
        category_names={entry['id']: entry['name'] for entry in categories},
        image=positions(integer_column(entries, 'image_id', at_entries), image_ids[order], 'image id', at_entries),
        category=positions(integer_column(entries, 'category_id', at_entries), np.sort(category_ids), 'category id',
                           at_entries),
        boxes_xywh=box_column(entries, at_entries),
        area=area,
        crowd=_crowd_column(entries, at_entries),
        annotation_ids=annotation_ids,
        _segmentations=[entry.get('segmentation', _MISSING) for entry in entries],
        file_names=tuple(str(images[number].get('file_name', '')) for number in order.tolist()))


def _crowd_column(entries: Sequence[dict], where: str) -> np.ndarray:
    """The crowd flags, shape (N,) bool; a ValueError names one that is neither 0 nor 1."""
    flags = [entry.get('iscrowd', 0) for entry in entries]
    for number, flag in enumerate(flags):
        if flag not in (0, 1):
            raise ValueError(f"{where}[{number}]: 'iscrowd' must be 0 or 1, got {flag!r}")
    return np.array(flags, dtype=bool)


def to_rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Polygons, uncompressed or compressed run-length code as compressed run-length code of a (height, width) image.

    That a code is whole is for `rle.rle_areas` to check, for many at once.

    Raises:
        ValueError: Broken, or of another size; starts with `where`.
    """
    if isinstance(segmentation, dict):
        size, counts = segmentation.get('size'), segmentation.get('counts')
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise ValueError(f'{where}: its mask has size {size}, its image [{height}, {width}] (height, width)')
        if isinstance(counts, str | bytes):
            return segmentation
    try:
        rle = mask_api.frPyObjects(segmentation, height, width)
        return mask_api.merge(rle) if isinstance(segmentation, list) else rle
    except Exception:  # pycocotools raises bare Exception, TypeError or IndexError, by what is broken
        raise ValueError(f'{where}: its segmentation is neither polygons nor a run-length code') from None
