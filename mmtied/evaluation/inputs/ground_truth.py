"""Read instance annotations from a file or folder of any layout, a dict, or a pycocotools COCO."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mmtied.cli import no_collection

from ..protocol import BOX_FORMATS, PROTOCOLS
from .arrays import MISSING, GroundTruth
from .categories import read_federated, read_frequencies
from .coco_json import box_column, check_entries, check_unique, integer_column, number_column, positions, values_of
from .faults import Faults, naming, one_line, shown
from .image_ids import ImageLookup, id_array, is_digits
from .images import with_sizes
from .layouts import read_annotations
from .plausibility import describe_annotations, describe_regions, repeated_rows
from .rle import rle_areas, to_rle

__all__ = ['GroundTruth', 'Reading', 'read_ground_truth']

#: COCO's keys of annotations; others are kept in `GroundTruth.fields`.
_ENTRY_KEYS = frozenset(('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'))
#: COCO's and LVIS's keys of images; others are kept in `GroundTruth.image_fields`.
_IMAGE_KEYS = frozenset(('id', 'height', 'width', 'file_name', 'license', 'coco_url', 'flickr_url', 'date_captured',
                         'neg_category_ids', 'not_exhaustive_category_ids'))

#: Largest side of an image in pixels.
_LARGEST_SIDE = 2**31 - 1


@dataclass(frozen=True)
class Reading:
    """Options for reading annotations.

    Args:
        ignore_key: Keys such as ``'ignore'`` that mark an annotation as ignored if true.
        ignore_categories: Names or ids of categories whose annotations are regions in which detections of every category are
            ignored, such as VisDrone's category 0.
        skip_invalid: Leave out invalid annotations, and report how many, instead of refusing the file.
        box_format: Format of the boxes, one of `protocol.BOX_FORMATS`.
        drop_duplicates: Keep one of several annotations with the same image, category and box.
        swap_sizes: Swap the width and height of every image.
        image_folder: Folder of the images, for sizes that the annotations lack.
        protocol: ``'coco'``, ``'lvis'``, or ``'auto'`` for LVIS's if images have ``neg_category_ids``.
    """

    ignore_key: str | Sequence[str] = ()
    ignore_categories: Sequence[str | int] = ()
    skip_invalid: bool = False
    box_format: str = 'xywh'
    drop_duplicates: bool = False
    swap_sizes: bool = False
    image_folder: str | os.PathLike | None = None
    protocol: str = 'auto'

    def __post_init__(self) -> None:
        for name in ('ignore_key', 'ignore_categories'):
            value = getattr(self, name)
            object.__setattr__(self, name, (value, ) if isinstance(value, str | int) else tuple(value or ()))
        if self.box_format not in BOX_FORMATS:
            raise ValueError(f'box_format: expected one of {", ".join(BOX_FORMATS)}, got {self.box_format!r}')
        if self.protocol not in PROTOCOLS:
            raise ValueError(f'protocol: expected auto, coco or lvis, got {self.protocol!r}')


def read_ground_truth(annotations: Any, **reading: Any) -> GroundTruth:
    """Read instance annotations.

    A missing or null ``iscrowd`` counts as 0, and ``area`` as that of the mask, or of the box if there is no mask.

    Args:
        annotations: A file or folder in a layout listed in docs/formats.md, a dict in COCO's layout, or a pycocotools ``COCO``.
            A `GroundTruth` is returned unchanged.
        **reading: Arguments of `Reading`: ignore_key, ignore_categories, skip_invalid, box_format, drop_duplicates,
            swap_sizes, image_folder, protocol.

    Raises:
        ValueError: The file is missing, empty, truncated or of another layout; there are no images; ids are invalid, repeated or
            unknown; a box or an area is negative or infinite. The one-line message names the entry and counts such entries.

    Warns:
        UserWarning: A likely mistake: repeated annotations, boxes that look like another format, or swapped width and height.
            Also if areas or sizes had to be derived.
    """
    if isinstance(annotations, GroundTruth):
        return annotations
    reading = Reading(**reading)
    name = str(annotations) if isinstance(annotations, str | os.PathLike) else 'annotations'
    with no_collection(), naming(name):
        data, source, notes = read_annotations(annotations, reading.image_folder, reading.skip_invalid)
        truth, lines = _Builder(data, source, reading, list(notes)).build()
    for line in lines:
        warnings.warn(f'{source}: {line}', stacklevel=2)
    return truth


class _Builder:
    """Converts a dict in COCO's layout to a `GroundTruth`."""

    def __init__(self, data: dict, source: str, reading: Reading, notes: list[str]) -> None:
        self.source, self.reading, self.notes, self.lines = source, reading, notes, []
        self.images, self.entries, self.categories = (data[key] for key in ('images', 'annotations', 'categories'))
        self.at_images, self.at_entries, self.at_categories = (f'{source}: {key}' for key in ('images', 'annotations',
                                                                                              'categories'))

    def build(self) -> tuple[GroundTruth, list[str]]:
        """Return the ground truth, and the texts of warnings."""
        image_ids, sizes, names = self._read_images()
        category_ids, category_names = self._read_categories()
        lookup = ImageLookup(image_ids, names)
        faults = Faults(self.at_entries, len(self.entries) if isinstance(self.entries, list) else 0, self.reading.skip_invalid)
        entries = check_entries(self.entries, ('image_id', 'category_id', 'bbox'), self.at_entries, faults)
        image, by_name = lookup.find_all(values_of(entries, 'image_id'))
        faults.add(image < 0, lambda number: ': ' + lookup.describe(entries[number]['image_id'], int(image[number]),
                                                                    'the list of images'))
        image = np.maximum(image, 0)
        if by_name and not isinstance(self.images[0]['id'], str):  # readers of folders take stems as ids
            self.lines.append('image ids of annotations were looked up among the file names')
        crowd = self._read_crowd(entries, faults)
        category = self._read_category(entries, category_ids, crowd, faults)
        boxes = box_column(entries, self.reading.box_format, sizes[image], faults)
        segmentations = values_of(entries, 'segmentation')
        if set(map(type, segmentations)) != {list} or not all(segmentations) or not all(map(itemgetter(0), segmentations)):
            segmentations = list(map(_segmentation, segmentations))
        area = self._read_area(entries, boxes, segmentations, sizes[image], faults)
        annotation_ids = self._annotation_ids(entries, faults)
        line = faults.settle()
        if line:
            self.lines.append(line.removeprefix(f'{self.source}: '))
        fields = _other_fields(entries, _ENTRY_KEYS)
        truth = GroundTruth(
            source=self.source, image_ids=image_ids, image_sizes=sizes, category_ids=category_ids, category_names=category_names,
            image=image, category=category, boxes_xywh=boxes, area=area,
            crowd=self._apply_ignore_keys(entries, fields, crowd), annotation_ids=annotation_ids, _segmentations=segmentations,
            file_names=names, fields=fields, image_fields=_other_fields(self.images, _IMAGE_KEYS))
        if faults.bad.any():
            truth = truth.select(~faults.bad)
        truth = self._drop_duplicates(truth)
        self.lines += describe_annotations(truth.boxes_xywh, truth.image_sizes[truth.image], truth.image_sizes)
        truth = self._read_federated(self._spread(truth))
        if truth.crowd.any():
            self.notes.append(f'{truth.crowd.sum()} annotations are crowds or other ignored regions: detections inside are '
                              'ignored, and they occlude nothing')
        return replace(truth, notes=tuple(dict.fromkeys((*self.notes, *self.lines)))), self.lines

    def _read_images(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Return ids, sizes and file names, sorted by id."""
        images = check_entries(self.images, ('id', ), self.at_images)
        if not images:
            raise ValueError(f'{self.source}: the file lists no images')
        ids = id_array([image['id'] for image in images], 'id', self.at_images)
        check_unique(ids, self.at_images)
        unsized = next((f'{self.at_images}[{number}] has no {side!r}' for number, image in enumerate(images)
                        for side in ('height', 'width') if image.get(side) is None), None)
        if unsized:
            if self.reading.image_folder is None:
                raise ValueError(f'{unsized}; --images FOLDER (image_folder=...) takes sizes from the image files')
            images = with_sizes(images, self.reading.image_folder)
            self.lines.append('missing image sizes were read from the image files')
        faults = Faults(self.at_images, len(images), None)
        sizes = np.stack([integer_column(images, side, faults) for side in ('height', 'width')], axis=1)
        faults.add(((sizes < 1) | (sizes > _LARGEST_SIDE)).any(axis=1), lambda number: (
            f": 'height' and 'width' must be from 1 to {_LARGEST_SIDE}, got {sizes[number].tolist()}"))
        faults.settle()
        order = np.argsort(ids, kind='stable')
        sizes = sizes[:, ::-1] if self.reading.swap_sizes else sizes
        self.images = [images[number] for number in order.tolist()]
        return ids[order], sizes[order], tuple(map(_file_name, self.images))

    def _read_categories(self) -> tuple[np.ndarray, dict[int, str]]:
        categories = check_entries(self.categories, ('id', 'name'), self.at_categories)
        if not categories:
            raise ValueError(f'{self.at_categories}: the list is empty, but detections are evaluated by category')
        faults = Faults(self.at_categories, len(categories), None)
        ids = integer_column(categories, 'id', faults, list(map(_from_digits, values_of(categories, 'id'))))
        faults.settle()
        check_unique(ids, self.at_categories)
        names = [_text(category['name']) for category in categories]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            self.lines.append(f'several categories are named {twice!r}; results with category ids treat them as different')
        return np.sort(ids), dict(zip(ids.tolist(), names, strict=True))

    def _read_category(self, entries: list[dict], category_ids: np.ndarray, crowd: np.ndarray, faults: Faults) -> np.ndarray:
        """Return indices of categories, -1 for ignored regions without a category."""
        values = values_of(entries, 'category_id')
        open_regions = np.zeros(len(values), dtype=bool)
        if not {type(None), str}.isdisjoint(map(type, values)):
            open_regions = np.array([value is None for value in values], dtype=bool) & crowd
            values = [int(category_ids[0]) if is_open else _from_digits(value)
                      for value, is_open in zip(values, open_regions.tolist(), strict=True)]
        category = positions(integer_column(entries, 'category_id', faults, values), category_ids)
        faults.add(category < 0, lambda number: f': category id {shown(values[number])} is not in the list of categories')
        return np.where(open_regions, -1, np.maximum(category, 0))

    def _read_area(self, entries: list[dict], boxes: np.ndarray, segmentations: list, sizes: np.ndarray,
                   faults: Faults) -> np.ndarray:
        stated = values_of(entries, 'area')
        missing = np.array([value is None for value in stated], dtype=bool)
        there = [dict(area=0 if value is None else value) for value in stated] if missing.any() else entries
        area = number_column(there, 'area', faults)
        if missing.any():
            num_masks, num = 0, int(missing.sum())
            for number in np.flatnonzero(missing & ~faults.bad).tolist():
                area[number] = boxes[number, 2] * boxes[number, 3]
                if segmentations[number] is not MISSING:
                    with suppress(ValueError):  # a broken mask is reported when masks are needed
                        area[number] = rle_areas([to_rle(segmentations[number], *sizes[number].tolist(), '')])[0]
                        num_masks += 1
            origin = 'masks' if num_masks == num else 'boxes' if not num_masks else 'masks, or boxes without'
            self.lines.append(f"{num} of {len(entries)} annotations have no 'area', so it is that of their {origin}")
        faults.add(area < 0, lambda number: f": 'area' must be at least 0, got {area[number]}")
        return area

    def _annotation_ids(self, entries: list[dict], faults: Faults) -> np.ndarray:
        if not any('id' in entry for entry in entries):
            return np.arange(1, len(entries) + 1)
        ids = integer_column(check_entries(entries, ('id', ), self.at_entries, faults), 'id', faults)
        check_unique(ids[~faults.bad], self.at_entries)
        return ids

    def _read_crowd(self, entries: list[dict], faults: Faults) -> np.ndarray:
        flags = [flag or 0 for flag in values_of(entries, 'iscrowd')]
        bad = [not isinstance(flag, int | float) or flag not in (0, 1) for flag in flags]
        faults.add(np.array(bad, dtype=bool), lambda number: f": 'iscrowd' must be 0 or 1, got {shown(flags[number])}")
        return np.array([flag == 1 for flag in flags], dtype=bool)

    def _apply_ignore_keys(self, entries: list[dict], fields: dict[str, list], crowd: np.ndarray) -> np.ndarray:
        for key in self.reading.ignore_key:
            here = _marks(values_of(entries, key))
            if not here.any():
                self.lines.append(f'--ignore-key {key}: the key is missing or false in all annotations')
            self.notes.append(f'{here.sum()} annotations are ignored because of their {key!r} (--ignore-key)')
            crowd = crowd | here
        left = (_marks(fields['ignore']) & ~crowd).sum() if 'ignore' in fields else 0
        if left:
            self.lines.append(f"{left} annotations have 'ignore': 1; as in COCOeval they count, and they occlude; --ignore-key "
                              'ignore makes them ignored regions, which occlude nothing')
        return crowd

    def _drop_duplicates(self, truth: GroundTruth) -> GroundTruth:
        rows = np.column_stack([truth.image, truth.category, truth.crowd, truth.boxes_xywh])
        repeated = repeated_rows(rows)
        repeated = repeated[~truth.crowd[repeated]]
        if not len(repeated):
            return truth
        line = (f'{len(repeated)} of {len(rows)} annotations repeat another one (same image, category and box), such as '
                f'annotation {truth.annotation_ids[repeated[0]]}')
        if self.reading.drop_duplicates:
            self.lines.append(f'{line}, and are left out (drop_duplicates)')
            return truth.select(np.delete(np.arange(len(rows)), repeated))
        self.lines.append(f'{line}; each counts as an object and occludes the other, so r is too high; --drop-duplicates '
                          '(drop_duplicates=True) keeps one of each')
        return truth

    def _spread(self, truth: GroundTruth) -> GroundTruth:
        """Repeat regions of ignored categories, or without a category, for every category."""
        names, ids = {str(name): number for number, name in truth.category_names.items()}, truth.category_ids.tolist()
        chosen = []
        for wanted in self.reading.ignore_categories:
            number = names.get(str(wanted), int(wanted) if is_digits(str(wanted).removeprefix('-')) else None)
            if number not in ids:
                raise ValueError(f'{self.source}: --ignore-categories {wanted}: there is no such category; the file has '
                                 f'{one_line(", ".join(f"{name} ({number})" for number, name in truth.category_names.items()))}')
            chosen.append(ids.index(number))
        regions = (truth.category < 0) | np.isin(truth.category, chosen)
        self.lines += describe_regions(truth.names_of(np.arange(len(ids))), truth.category[~truth.crowd & ~regions])
        if not regions.any():
            return truth
        others = np.setdiff1d(np.arange(len(ids)), chosen)
        self.notes.append(f'{regions.sum()} regions have an ignored category or none: detections of every category inside are '
                          'ignored, and the regions occlude nothing (--ignore-categories)')
        repeats = np.where(regions, len(others), 1)
        source = np.repeat(np.arange(len(regions)), repeats)
        spread = truth.select(source)
        of_region = np.flatnonzero(regions[source])
        spread.category[of_region] = np.tile(others, len(of_region) // len(others))
        spread.crowd[of_region] = True
        return spread

    def _read_federated(self, truth: GroundTruth) -> GroundTruth:
        """Add LVIS's lists of categories and frequencies, unless COCO's protocol is used."""
        stated = any('neg_category_ids' in image or 'not_exhaustive_category_ids' in image for image in self.images)
        if self.reading.protocol == 'coco' or (self.reading.protocol == 'auto' and not stated):
            if stated:
                self.lines.append("images have LVIS's neg_category_ids, which COCO's protocol does not use (--protocol coco)")
            return truth
        self.notes.append("LVIS's protocol: at most 300 detections per image count, only in judged categories; unmatched ones "
                          'are ignored if annotation is not exhaustive (--protocol coco for COCO)')
        return replace(truth, federated=read_federated(self.images, truth, self.at_images),
                       frequencies=read_frequencies(self.categories))


def _from_digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and is_digits(value) else value


def _file_name(image: dict) -> str:
    """Return the file name of an image; LVIS has URLs such as http://images.cocodataset.org/val2017/000000397133.jpg."""
    return str(image.get('file_name') or urlsplit(str(image.get('coco_url') or '')).path)


def _text(name: Any) -> str:
    """Return a name as text that can be encoded in UTF-8."""
    return (name if isinstance(name, str) else shown(name)).encode('utf-8', 'replace').decode()


def _other_fields(entries: Sequence[dict], known: frozenset[str]) -> dict[str, list]:
    """Return the entries' values under every key that is not `known`, None if an entry lacks it."""
    names = set().union(*entries) - known
    return {key: values_of(entries, key) for key in sorted(map(str, names))}


def _segmentation(value: Any) -> Any:
    """Return a segmentation, or MISSING if it is empty or a list of empty polygons."""
    if value is None or (isinstance(value, list | dict) and not value) or (isinstance(value, list) and not any(value)):
        return MISSING
    return value


def _marks(values: list) -> np.ndarray:
    """Return which values are true, as a boolean, number or word."""
    return np.array([value.strip().lower() in ('1', 'true', 'yes') if isinstance(value, str) else bool(value)
                     for value in values], dtype=bool)
