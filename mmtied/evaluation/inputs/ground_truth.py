"""COCO instance annotations as compact, checked arrays; from a file, a dict or an mmdet dataset without a COCO file."""

import gc
import json
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .rle import rle_areas, to_rle

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


def label_category_ids(ground_truth: GroundTruth, classes: Sequence[str] | None = None) -> list[int]:
    """The category id of each label: the categories in the order of the annotation file, as mmdet numbers them.

    Args:
        ground_truth: The annotations.
        classes: Names of the model's classes, where it has fewer than the file. Their order does not matter, as mmdet takes
            the file's.

    Raises:
        ValueError: A name that the annotation file does not have, or one that comes twice.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> annotations = read_ground_truth({
        ...     'images': [{'id': 1, 'height': 9, 'width': 9}], 'annotations': [],
        ...     'categories': [{'id': 18, 'name': 'dog'}, {'id': 1, 'name': 'person'}, {'id': 17, 'name': 'cat'}]})
        >>> label_category_ids(annotations)
        [18, 1, 17]
        >>> label_category_ids(annotations, ['cat', 'dog'])
        [18, 17]
    """
    names = ground_truth.category_names
    if classes is None:
        return list(names)
    missing = [name for name in classes if name not in names.values()]
    if missing:
        raise ValueError(f'classes: {ground_truth.source} has no category named {missing[0]!r}; '
                         f'it has {", ".join(map(str, names.values()))}')
    repeated = [name for number, name in enumerate(classes) if name in classes[:number]]
    if repeated:
        raise ValueError(f'classes: {repeated[0]!r} comes more than once')
    return [category_id for category_id, name in names.items() if name in classes]


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


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: The file is missing, not a file, empty, truncated or not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    try:
        with path.open('rb') as file, no_collection():
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        state = 'empty' if path.stat().st_size == 0 else 'not complete JSON'
        raise ValueError(f'{path}: the file is {state} ({error})') from None


@contextmanager
def no_collection() -> Iterator[None]:
    """Within the block, do not look for unreachable cycles, which takes two thirds of the time of reading a large file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_entries(entries: Any, keys: Sequence[str], where: str) -> None:
    """A ValueError unless `entries` is a list of objects which all have `keys`."""
    if not isinstance(entries, list):
        raise ValueError(f'{where}: a list was expected, got {type(entries).__name__}')
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f'{where}[{number}]: an object was expected, got {type(entry).__name__}')
        for key in keys:
            if key not in entry:
                raise ValueError(f'{where}[{number}] has no {key!r}')


def integer_column(entries: Sequence[dict], key: str, where: str) -> np.ndarray:
    """The integers under `key`, shape (N,) int64."""
    return _column(entries, key, (), 'iu', where, 'an integer').astype(np.int64)


def number_column(entries: Sequence[dict], key: str, where: str) -> np.ndarray:
    """The finite numbers under `key`, shape (N,) float64."""
    return _column(entries, key, (), 'iuf', where, 'a finite number').astype(np.float64)


def box_column(entries: Sequence[dict], where: str) -> np.ndarray:
    """The boxes under ``bbox``, shape (N, 4) xywh float64, finite and without negative sides."""
    boxes = _column(entries, 'bbox', (4,), 'iuf', where, 'four finite numbers [x, y, width, height]').astype(np.float64)
    negative = (boxes[:, 2:] < 0).any(axis=1)
    if negative.any():
        number = int(negative.argmax())
        raise ValueError(f"{where}[{number}]: 'bbox' must have sides of at least 0, got {entries[number]['bbox']}")
    return boxes


def _column(entries: Sequence[dict], key: str, shape: tuple[int, ...], kinds: str, where: str, expected: str) -> np.ndarray:
    """The values under `key` as one array, (N, *shape), of one of NumPy's dtype kinds; else the first bad one is named."""

    def as_array(values: Any, wanted: tuple[int, ...]) -> np.ndarray | None:
        try:
            array = np.array(values)
        except ValueError:  # ragged
            return None
        return array if array.shape == wanted and array.dtype.kind in kinds and np.isfinite(array).all() else None

    if not entries:
        return np.empty((0, *shape))
    column = as_array([entry[key] for entry in entries], (len(entries), *shape))
    if column is None:
        bad = (number for number, entry in enumerate(entries) if as_array(entry[key], shape) is None)
        number = next(bad, 0)
        raise ValueError(f'{where}[{number}]: {key!r} must be {expected}, got {entries[number][key]!r}')
    return column


def check_unique(ids: np.ndarray, where: str) -> None:
    """A ValueError that names an id which comes twice."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f'{where}: id {values[counts > 1][0]} comes more than once; ids must be unique')


def positions(ids: np.ndarray, known: np.ndarray, key: str, where: str) -> np.ndarray:
    """Where each id stands in the sorted `known` ids; a ValueError names one that is not there."""
    index = np.searchsorted(known, ids)
    found = known[np.minimum(index, len(known) - 1)] == ids if len(known) else np.zeros(len(ids), dtype=bool)
    if not found.all():
        number = int(np.argmin(found))
        raise ValueError(f'{where}[{number}]: {key} {ids[number]} is not in the annotation file')
    return index
