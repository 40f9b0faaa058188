"""COCO instance annotations as compact, checked arrays: from a file, a dict, a pycocotools COCO or an mmdet dataset."""

import difflib
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from .coco_json import box_column, check_entries, check_unique, integer_column, number_column, positions, read_json
from .rle import rle_areas, to_rle

_MISSING = object()
#: Keys of annotations and images that COCO defines; others are kept as fields.
_ENTRY_KEYS = frozenset(('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'))
_IMAGE_KEYS = frozenset(('id', 'height', 'width', 'file_name', 'license', 'coco_url', 'flickr_url', 'date_captured'))


@dataclass(frozen=True)
class GroundTruth:
    """The annotations of a data set.

    Attributes:
        source: Name for messages, usually the file.
        image_ids: Sorted image ids, shape (I,) int64.
        image_sizes: Height and width of each image in pixels, shape (I, 2) int64.
        category_ids: Sorted category ids, shape (K,) int64.
        category_names: Name of each category id, in the order of the file.
        image: Index of each annotation's image in `image_ids`, shape (N,) int64. Annotations keep the file's order.
        category: Index of each annotation's category in `category_ids`, shape (N,) int64.
        boxes_xywh: Boxes in pixels, shape (N, 4) float64.
        area: Areas as the file states them, in pixels, shape (N,) float64; those of the masks, for COCO.
        crowd: Marks crowd regions, shape (N,) bool.
        annotation_ids: Shape (N,) int64.
        file_names: File name of each image, in the order of `image_ids`; empty where the file has none.
        fields: Other keys of the annotations, each with a value or None for every annotation.
        image_fields: Other keys of the images, in the order of `image_ids`.
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
    fields: dict[str, list] = field(default_factory=dict, repr=False)
    image_fields: dict[str, list] = field(default_factory=dict, repr=False)

    def rle(self, annotation: int) -> dict:
        """Return the run-length code of the annotation at an index; it is made on first use and kept.

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
        """Make the run-length codes of the annotations at some indices and check that they are complete.

        Raises:
            ValueError: As `rle`; also for a code that is cut off or does not add up to the pixels of its image.
        """
        annotations = annotations.tolist()
        rle_areas([self.rle(annotation) for annotation in annotations],
                  lambda number: f'{self.source}: annotation {self.annotation_ids[annotations[number]]}')

    def select_categories(self, category_ids: Sequence[int] | None = None) -> np.ndarray:
        """Return the sorted indices of some category ids in `category_ids`; of all ids by default."""
        if category_ids is None:
            return np.arange(len(self.category_ids))
        ids = np.unique(np.asarray(category_ids, dtype=np.int64))
        return positions(ids, self.category_ids, 'category id', f'{self.source}: category_ids')


def read_ground_truth(annotations: Any) -> GroundTruth:
    """Read COCO instance annotations.

    A missing ``iscrowd`` counts as 0 and an ``ignore`` key has no effect, as in COCOeval.

    Args:
        annotations: A file, a dict of the same layout, or a pycocotools ``COCO``. A `GroundTruth` is returned as it is.

    Raises:
        ValueError: The file is missing, empty or truncated; there are no images; ids are broken, repeated or unknown; a box or
            an area is missing, negative or infinite. The message is one line and names the entry.
    """
    if isinstance(annotations, GroundTruth):
        return annotations
    annotations = getattr(annotations, 'dataset', annotations)
    source, data = ('annotations', annotations) if isinstance(annotations, dict) else (str(annotations), read_json(annotations))
    if not isinstance(data, dict) or any(key not in data for key in ('images', 'annotations', 'categories')):
        raise ValueError(f"{source}: not a COCO instances file, which has 'images', 'annotations' and 'categories'")
    images, entries, categories = data['images'], data['annotations'], data['categories']
    at_images, at_entries, at_categories = (f'{source}: {key}' for key in ('images', 'annotations', 'categories'))
    check_entries(images, ('id', 'height', 'width'), at_images)
    check_entries(entries, ('id', 'image_id', 'category_id', 'bbox', 'area'), at_entries)
    check_entries(categories, ('id', 'name'), at_categories)
    if not images:
        raise ValueError(f'{source}: the file lists no images')
    if not categories:
        raise ValueError(f'{at_categories}: there are none, and detections are evaluated by category')

    image_ids = integer_column(images, 'id', at_images)
    category_ids = integer_column(categories, 'id', at_categories)
    annotation_ids = integer_column(entries, 'id', at_entries)
    for ids, where in ((image_ids, at_images), (category_ids, at_categories), (annotation_ids, at_entries)):
        check_unique(ids, where)
    order = np.argsort(image_ids)
    sizes = np.stack([integer_column(images, side, at_images) for side in ('height', 'width')], axis=1)
    if (sizes < 1).any():
        number = int((sizes < 1).any(axis=1).argmax())
        raise ValueError(f"{at_images}[{number}]: 'height' and 'width' must be at least 1, got {sizes[number].tolist()}")
    area = number_column(entries, 'area', at_entries)
    if (area < 0).any():
        number = int((area < 0).argmax())
        raise ValueError(f"{at_entries}[{number}]: 'area' must be at least 0, got {area[number]}")
    image_of_entry, category_of_entry = (integer_column(entries, key, at_entries) for key in ('image_id', 'category_id'))
    return GroundTruth(
        source=source,
        image_ids=image_ids[order],
        image_sizes=sizes[order],
        category_ids=np.sort(category_ids),
        category_names={entry['id']: entry['name'] for entry in categories},
        image=positions(image_of_entry, image_ids[order], 'image id', at_entries),
        category=positions(category_of_entry, np.sort(category_ids), 'category id', at_entries),
        boxes_xywh=box_column(entries, at_entries),
        area=area,
        crowd=_crowd_column(entries, at_entries),
        annotation_ids=annotation_ids,
        _segmentations=[entry.get('segmentation', _MISSING) for entry in entries],
        file_names=tuple(str(images[number].get('file_name', '')) for number in order.tolist()),
        fields=_other_fields(entries, _ENTRY_KEYS),
        image_fields=_other_fields([images[number] for number in order.tolist()], _IMAGE_KEYS))


def _other_fields(entries: Sequence[dict], known: frozenset[str]) -> dict[str, list]:
    """Return the values of every key that is not among the known ones, None where an entry has none."""
    names = set().union(*map(dict.keys, entries)) - known
    return {key: [entry.get(key) for entry in entries] for key in sorted(map(str, names))}


def _crowd_column(entries: Sequence[dict], where: str) -> np.ndarray:
    """Return the crowd flags, shape (N,) bool; a ValueError names one that is neither 0 nor 1."""
    flags = [entry.get('iscrowd', 0) for entry in entries]
    for number, flag in enumerate(flags):
        if flag not in (0, 1):
            raise ValueError(f"{where}[{number}]: 'iscrowd' must be 0 or 1, got {flag!r}")
    return np.array(flags, dtype=bool)


def label_category_ids(ground_truth: GroundTruth, classes: Sequence[str] | None = None) -> list[int]:
    """Return the category id of each label: the categories in the order of the annotation file, as mmdet numbers them.

    Args:
        ground_truth: The annotations.
        classes: Names of the model's classes, where it has fewer than the file. Their order is ignored; mmdet too uses the
            file's.

    Raises:
        ValueError: A name is not in the annotation file, or is repeated.

    Example:
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
    known = set(names.values())
    missing = [name for name in classes if name not in known]
    if missing:
        close = difflib.get_close_matches(str(missing[0]), [str(name) for name in known - set(classes)], 1)
        raise ValueError(f'classes: {ground_truth.source} has no category named {missing[0]!r}; '
                         f'{f"did you mean {close[0]!r}? It" if close else "it"} has {", ".join(map(str, names.values()))}')
    repeated = [name for number, name in enumerate(classes) if name in classes[:number]]
    if repeated:
        raise ValueError(f'classes: {repeated[0]!r} is repeated')
    return [category_id for category_id, name in names.items() if name in classes]


def with_image_ids(entries: Sequence[dict], ground_truth: GroundTruth, source: str) -> Sequence[dict]:
    """Return entries whose image ids are strings with the annotation file's ids.

    A string is an image's file name, with or without folders and suffix, where only one image has it; or else a number in
    digits, as in Pascal VOC. Entries with integers, by their first one, are returned as they are.

    Args:
        entries: Dicts with ``image_id`` or ``img_id``.
        ground_truth: The annotations.
        source: Name for messages.

    Raises:
        ValueError: A string is neither.

    Warns:
        UserWarning: File names were looked up.
    """
    key = next((key for key in ('image_id', 'img_id') if entries and key in entries[0]), None)
    if key is None or not isinstance(entries[0][key], str):
        return entries
    ids = {}
    for image_id, name in zip(ground_truth.image_ids.tolist(), ground_truth.file_names, strict=False):
        for form in {name, PurePath(name).name, PurePath(name).stem} - {''}:
            ids[form] = None if form in ids else image_id  # None: several images
    found, by_name = [], False
    for number, entry in enumerate(entries):
        name = entry[key]
        image_id = ids.get(name) if isinstance(name, str) else name
        by_name |= isinstance(name, str) and image_id is not None
        if image_id is None:
            if not (name.isascii() and name.isdecimal()):
                reason = 'several images have' if name in ids else 'no image has'
                example = next((name for name in ground_truth.file_names if name), 'none')
                raise ValueError(f'{source}[{number}]: {key} {name!r} is a string, and {reason} it as file name; expected an id '
                                 f"of {ground_truth.source}, or a file's name such as {example}")
            image_id = int(name)
        found.append({**entry, key: image_id})
    if by_name:
        warnings.warn(f'{source}: image ids such as {entries[0][key]!r} were looked up among the file names of '
                      f'{ground_truth.source}', stacklevel=2)
    return found


def dataset_annotations(dataset: Any) -> dict:
    """Build a COCO annotation dict from the boxes of an mmdet dataset that has no COCO file, such as Pascal VOC.

    Instances that the dataset ignores (VOC's difficult ones, by default) become crowd regions: detections inside them count
    neither way, and they occlude nothing. Areas are those of the boxes. There are no masks.

    Args:
        dataset: In test mode, so that it keeps its annotations. `get_data_info` gives ``img_id``, ``height``, ``width`` and
            ``instances``, each with ``bbox`` (xyxy), ``bbox_label`` and ``ignore_flag``; `metainfo` gives ``classes``.

    Raises:
        ValueError: The dataset lacks one of these, or an image id is not a number.
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
            raise ValueError(f'{name} has no COCO annotation file, and its images have no {", ".join(missing)}')
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
    """Return a dataset without the wrappers around it, such as mmengine's RepeatDataset."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def numeric_id(image_id: int | str) -> int:
    """Return an image id as a number; VOC's ``'000005'`` is 5.

    Raises:
        ValueError: The id is neither an integer nor a string of the digits 0 to 9.

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
