"""Occlusion stated by annotations: a field, visible and full boxes or masks, or named levels.

`field:NAME` reads a numeric key of images or annotations; `field:1-NAME` is 1 minus its value, for a visible share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .inputs.ground_truth import GroundTruth

#: Prefix of the definition of a field.
PREFIX = 'field:'
#: Keys of the visible and the full extent, in order of precedence; None is the annotation's own box or mask.
VISIBLE_BOXES = (('vbox', 'fbox'), ('vis_bbox', None), ('visible_bbox', None), ('bbox_vis', None), ('i_bbox', 'a_bbox'))
VISIBLE_MASKS = (('i_segm', 'a_segm'), ('visible_mask', None), ('visible_segm', None))


def field_of(definition: str) -> str | None:
    """Return the field that a definition names, None for a computed one.

    Example:
        >>> field_of('field:1-vis_ratio'), field_of('covered')
        ('vis_ratio', None)
    """
    return definition.removeprefix(PREFIX).removeprefix('1-') if definition.startswith(PREFIX) else None


def with_image_field(ground_truth: 'GroundTruth', name: str, values: Mapping) -> 'GroundTruth':
    """Return annotations with an additional image field, for labels in a separate file.

    Keys of `values` are image ids, as numbers or digits, or file names; images without a value are in no bucket. Raises a
    ValueError if no image has a value.
    """
    from .inputs.faults import shown
    from .inputs.image_ids import is_digits

    by_id = {int(key): value for key, value in values.items() if isinstance(key, int) or is_digits(str(key))}
    names = ground_truth.file_names or ('', ) * len(ground_truth.image_ids)
    column = [by_id.get(image_id, values.get(file))
              for image_id, file in zip(ground_truth.image_ids.tolist(), names, strict=True)]
    if all(value is None for value in column):
        raise ValueError(f'{name}: no key is the id or the file name of an image of {ground_truth.source}; '
                         f'got keys such as {shown(next(iter(values), None))}')
    return replace(ground_truth, image_fields={**ground_truth.image_fields, name: column})


def stated_ratios(ground_truth: 'GroundTruth', definition: str, unit: str, levels: Sequence | None = None) -> np.ndarray:
    """Return the stated occlusion of images, shape (I,), or annotations, shape (N,), float64; NaN if not stated.

    If only annotations have the field, an image gets the mean over its non-crowd annotations; for levels, their common level, or
    the number of levels if they differ. If only images have it, annotations get their image's value. An image's hidden share is
    the ratio of summed areas.

    Args:
        ground_truth: The annotations.
        definition: ``field:NAME``, ``field:1-NAME``, ``visible_box`` or ``visible_mask``.
        unit: ``'image'`` or ``'instance'``.
        levels: Names or values of levels; the returned numbers are positions in this list.

    Raises:
        ValueError: The annotations do not state it, or a value is neither a number nor a level.
    """
    name = field_of(definition)
    if name is None:
        hidden, full = _hidden(ground_truth, definition)
        if unit == 'image':
            hidden, full = (_sum_by_image(ground_truth, part) for part in (hidden, full))
        return np.round(np.divide(hidden, full, out=np.full(len(full), np.nan), where=full > 0), 9)
    own, other = ground_truth.image_fields, ground_truth.fields
    own, other = (own, other) if unit == 'image' else (other, own)
    if name not in own and name not in other:
        known = sorted({*own, *other})
        raise ValueError(f'definition {definition!r}: {ground_truth.source} has no field {name!r}; '
                         f'its images and annotations have {", ".join(known) or "no fields beyond COCO"}')
    column = _numbers(own[name] if name in own else other[name], f'{ground_truth.source}: {name}', levels)
    column = np.round(1 - column, 9) if definition.startswith(f'{PREFIX}1-') else column
    if unit == 'instance':
        return np.where(ground_truth.crowd, np.nan, column if name in own else column[ground_truth.image])
    if name in own:
        return column
    known = ~np.isnan(column)
    total, number = (_sum_by_image(ground_truth, part) for part in (np.where(known, column, 0), known.astype(float)))
    mean = np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0)
    if levels:  # the mean of different levels is not a level
        mixed = known & ~ground_truth.crowd & (column != mean[ground_truth.image])
        mean[np.unique(ground_truth.image[mixed])] = len(levels)
    return mean


def _numbers(values: Sequence[Any], where: str, levels: Sequence | None) -> np.ndarray:
    """Convert values to numbers, or to positions in `levels`; None becomes NaN."""
    places = {level: number for number, level in enumerate(levels or ())}

    def as_number(value: Any) -> float:
        if value is None:
            return np.nan
        found = value if isinstance(value, Real) and not levels else None
        if levels and isinstance(value, str | Real):
            found = places.get(value, places.get(f'{value:g}' if isinstance(value, Real) else None))  # --levels 0 1 2
        if found is None:
            from .inputs.faults import shown

            expected = f'one of {", ".join(map(str, levels))}' if levels else "a number, or levels=[...] for names"
            raise ValueError(f'{where}: got {shown(value)}, expected {expected}')
        return found

    return np.array([as_number(value) for value in values], dtype=np.float64)


def _hidden(ground_truth: 'GroundTruth', definition: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden and the full area of each annotation; both are 0 for crowds and where not stated."""
    fields, boxes = ground_truth.fields, definition == 'visible_box'
    pairs = VISIBLE_BOXES if boxes else VISIBLE_MASKS
    found = next((pair for pair in pairs if all(key is None or key in fields for key in pair)), None)
    if found is None:
        wanted = '; or '.join(' and '.join(key or ('bbox' if boxes else 'segmentation') for key in pair) for pair in pairs)
        raise ValueError(f'definition {definition!r}: the annotations of {ground_truth.source} have no visible and full extent; '
                         f'expected {wanted}')
    own = ground_truth.boxes_xywh.__getitem__ if boxes else ground_truth.rle
    area = _box_area if boxes else _mask_area
    hidden, full = np.zeros((2, len(ground_truth.image)))
    for number in np.flatnonzero(~ground_truth.crowd).tolist():
        visible, whole = (fields[key][number] if key else own(number) for key in found)
        if visible is not None and whole is not None:
            full[number] = area(ground_truth, number, whole)
            hidden[number] = max(full[number] - area(ground_truth, number, visible), 0)
    return hidden, full


def _box_area(ground_truth: 'GroundTruth', number: int, box: Sequence[float]) -> float:
    if len(box) != 4:
        from .inputs.faults import shown

        raise ValueError(f'{ground_truth.source}: annotation {ground_truth.annotation_ids[number]}: expected a box x, y, width, '
                         f'height, got {shown(box)}')
    return max(float(box[2]), 0) * max(float(box[3]), 0)


def _mask_area(ground_truth: 'GroundTruth', number: int, mask: Any) -> float:
    from .inputs.rle import rle_areas, to_rle  # imports PyTorch, which reading the definitions does not need

    where = f'{ground_truth.source}: annotation {ground_truth.annotation_ids[number]}'
    rle = to_rle(mask, *ground_truth.image_sizes[ground_truth.image[number]].tolist(), where)
    return float(rle_areas([rle], lambda _: where)[0])


def _sum_by_image(ground_truth: 'GroundTruth', values: np.ndarray) -> np.ndarray:
    """Sum the values of non-crowd annotations over each image."""
    single = ~ground_truth.crowd
    return np.bincount(ground_truth.image[single], values[single], minlength=len(ground_truth.image_ids))
