"""Whether what a records.npz holds can be match records; each check raises a ValueError that says what is wrong."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from .accumulate import Positives, Records
from .evaluations import UNITS
from .protocol import IOU_THRESHOLDS, IOU_TYPES, check_proposal_nums


def checked_array(arrays: Mapping[str, np.ndarray], name: str, kind: str, shape: Sequence[int | None],
                  below: int | None = None) -> np.ndarray:
    """An array of the file.

    Args:
        arrays: By name.
        name: Which.
        kind: The `kind` that its dtype must have.
        shape: The shape that it must have, None for any length.
        below: Where given, its numbers must be at least 0 and below this.

    Example:
        >>> checked_array({'rank': np.array([0, 7])}, 'rank', 'i', (None,), 5)
        Traceback (most recent call last):
        ValueError: rank: numbers from 0 to 4 are needed, got some from 0 to 7
    """
    array = arrays[name]
    fits = len(shape) == array.ndim and all(of in (None, length) for of, length in zip(shape, array.shape, strict=True))
    if array.dtype.kind != kind or not fits:
        raise ValueError(f'{name}: has type {array.dtype} and shape {array.shape}, which does not fit the rest')
    if below is not None and array.size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f'{name}: numbers from 0 to {below - 1} are needed, got some from {array.min()} to {array.max()}')
    return array


def check_image_ids(image_ids: np.ndarray) -> None:
    """The ids are sorted and all different."""
    if not (image_ids[1:] > image_ids[:-1]).all():
        raise ValueError('image_ids: not sorted, or repeated')


def check_header(header: Mapping) -> None:
    """The header has plain values of the right kinds."""
    names, iou_types, evaluations = header['category_names'], header['iou_types'], header['evaluations']
    if not isinstance(names, list) or not _are_texts([*names, header['version'], header['fingerprint'],
                                                      header['mask_fingerprint']]):
        raise ValueError('its names, version and fingerprints must be text')
    if not isinstance(iou_types, list) or not iou_types or len(set(iou_types)) < len(iou_types) or set(iou_types) - {*IOU_TYPES}:
        raise ValueError(f'IoU types among {", ".join(IOU_TYPES)} are needed, each once, got {iou_types}')
    check_proposal_nums(header['proposal_nums'])
    if any(isinstance(number, bool) for number in header['proposal_nums']):
        raise ValueError(f'proposal_nums: whole numbers are needed, got {header["proposal_nums"]}')
    if not isinstance(evaluations, list) or not evaluations:
        raise ValueError('no evaluation in it')
    for number, description in enumerate(evaluations):
        if not _is_description(description):
            raise ValueError(f"evaluation {number}: 'definition', 'unit', 'cumulative' and 'buckets' are needed, with the name "
                             'and the edges of each')


def check_positives(arrays: Mapping[str, np.ndarray], num_images: int, num_categories: int, num_columns: int) -> None:
    """The ground truths are of images and categories that there are."""
    names = dict(zip(Positives._fields, (f'positives.{name}' for name in Positives._fields), strict=True))
    number = len(checked_array(arrays, names['image'], 'i', (None, ), num_images))
    checked_array(arrays, names['category'], 'i', (number, ), num_categories)
    checked_array(arrays, names['counted'], 'b', (number, num_columns))


def check_records(arrays: Mapping[str, np.ndarray], iou_type: str, num_images: int, num_categories: int,
                  num_columns: int) -> None:
    """The records are of images and categories that there are, and in the order of `accumulate.join_records`."""
    names = {name: f'{iou_type}.{name}' for name in Records._fields}
    number = len(checked_array(arrays, names['image'], 'i', (None, ), num_images))
    checked_array(arrays, names['category'], 'i', (number, ), num_categories)
    checked_array(arrays, names['rank'], 'i', (number, ), max(number, 1))
    for name in ('matched', 'ignored'):
        checked_array(arrays, names[name], 'i', (number, num_columns), 1 << len(IOU_THRESHOLDS))
    if not np.isfinite(checked_array(arrays, names['score'], 'f', (number, ))).all():
        raise ValueError(f'{names["score"]}: scores must be finite numbers')
    image, category, rank, score = (arrays[names[name]] for name in ('image', 'category', 'rank', 'score'))
    equal = np.ones(max(number - 1, 0), dtype=bool)
    for column in (category, -score, image, rank):
        if (equal & (column[1:] < column[:-1])).any():
            raise ValueError(f'{iou_type}: the records are not sorted by category, score, image and rank')
        equal &= column[1:] == column[:-1]
    cells = image.astype(np.int64) * num_categories + category
    order = np.argsort(cells, kind='stable')
    if (rank[order] != np.arange(number) - np.searchsorted(cells[order], cells[order])).any():
        raise ValueError(f'{names["rank"]}: ranks must count from 0 in each image and category')


def _are_texts(values: Sequence) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_description(description: object) -> bool:
    """Whether it is that of `records_file.SavedGroups`."""
    return (isinstance(description, dict) and set(description) == {'definition', 'unit', 'cumulative', 'buckets'}
            and isinstance(description['definition'], str) and description['unit'] in UNITS
            and isinstance(description['cumulative'], bool) and isinstance(description['buckets'], list)
            and all(map(_is_bucket, description['buckets'])))


def _is_bucket(bucket: object) -> bool:
    """Whether it has a name and edges; the upper one is None for a cumulative bucket."""
    return (isinstance(bucket, dict) and set(bucket) == {'name', 'lower', 'upper'} and isinstance(bucket['name'], str)
            and _is_finite(bucket['lower']) and (bucket['upper'] is None or _is_finite(bucket['upper'])))


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
