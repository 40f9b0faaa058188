"""Image ids of any kind (integers up to 64 bits, file names, stems) and the lookup of their images."""

import operator
from collections.abc import Sequence
from functools import cached_property
from pathlib import PureWindowsPath
from typing import Any

import numpy as np

from .coco_json import positions
from .faults import one_line, shown

#: Positions returned for ids of no image, and of several images.
UNKNOWN, AMBIGUOUS = -1, -2
#: Longer numbers are not accepted as ids: Python formats them slowly or refuses to.
_MOST_BITS, _MOST_DIGITS = 1000, 300


def id_array(ids: Sequence[Any], key: str, where: str) -> np.ndarray:
    """Return ids as one array: int64, uint64 from 2**63 on, or text.

    Integers beyond 64 bits or mixed with text become strings. If all ids are strings of digits, as in Pascal VOC, they become
    integers, unless that makes two of them equal.

    Example:
        >>> id_array([3, 2**63], 'id', 'images').dtype, id_array(['000012', '000003'], 'id', 'images').tolist()
        (dtype('uint64'), [12, 3])
        >>> id_array(['12', '012', 'a'], 'id', 'images').tolist()
        ['12', '012', 'a']
    """
    plain = [plain_id(value) for value in ids]
    if None in plain:
        number = plain.index(None)
        raise ValueError(f'{where}[{number}]: {key!r} must be an integer or a string, got {shown(ids[number])}')
    if all(isinstance(value, str) for value in plain) and all(map(is_digits, plain)):
        numbers = list(map(int, plain))
        plain = numbers if len(set(numbers)) == len(set(plain)) else plain
    if all(isinstance(value, int) for value in plain):
        low, high = min(plain, default=0), max(plain, default=0)
        if low >= -2**63 and high < 2**63:
            return np.array(plain, dtype=np.int64)
        if low >= 0 and high < 2**64:
            return np.array(plain, dtype=np.uint64)
    return np.array(list(map(str, plain)), dtype=np.str_)


def plain_id(value: Any) -> int | str | None:
    """Return an id as an int or a str; None if it is neither. Whole floats and tensors with one element are accepted."""
    if type(value) is str or (type(value) is int and value.bit_length() < _MOST_BITS):
        return value
    if isinstance(value, bool | np.bool_):
        return None
    try:
        if hasattr(value, 'ndim') and hasattr(value, 'item'):  # an array or a tensor
            value = value.item()
        if isinstance(value, float):  # orjson reads integers of more than 64 bits as floats
            return int(value) if value.is_integer() and abs(value) <= 2**53 else None
        number = operator.index(value)
        return number if number.bit_length() < _MOST_BITS else None
    except (TypeError, ValueError, RuntimeError):
        return str(value) if isinstance(value, str) else None


class ImageLookup:
    """Finds images by id (from `id_array`), or by a file name or stem that is unique."""

    def __init__(self, image_ids: np.ndarray, file_names: Sequence[str]) -> None:
        self.image_ids, self.file_names = image_ids, file_names

    @cached_property
    def _positions(self) -> dict[int | str, int]:
        return {image_id: position for position, image_id in enumerate(self.image_ids.tolist())}

    @cached_property
    def _names(self) -> dict[str, int]:
        names: dict[str, int] = {}
        for position, name in enumerate(self.file_names):
            path = PureWindowsPath(name)  # also splits at /
            for form in {name, path.name, path.stem} - {''}:
                names[form] = AMBIGUOUS if form in names else position
        return names

    @cached_property
    def _numeric_stems(self) -> dict[int, int]:
        stems: dict[int, int] = {}
        for form, position in self._names.items():
            if is_digits(form):
                stems[int(form)] = AMBIGUOUS if stems.get(int(form), position) != position else position
        return stems

    def find(self, image_id: Any) -> tuple[int, bool]:
        """Return the position of an id, `UNKNOWN` or `AMBIGUOUS`, and whether it matched a file name."""
        value = plain_id(image_id)
        if value is None:
            return UNKNOWN, False
        position = self._positions.get(str(value) if self.image_ids.dtype.kind == 'U' else value, UNKNOWN)
        if position != UNKNOWN or not isinstance(value, str):
            return position, False
        for form in (value, PureWindowsPath(value).name):
            if form in self._names:
                return self._names[form], True
        return self._positions.get(int(value), UNKNOWN) if is_digits(value) else UNKNOWN, False

    def find_all(self, ids: Sequence[Any]) -> tuple[np.ndarray, bool]:
        """Return the position of each id, shape (D,) int64, and whether some matched file names.

        Integers are taken as file stems if more of them match stems such as ``000000000139`` than ids, as in ultralytics'
        results.
        """
        if self.image_ids.dtype == np.int64 and set(map(type, ids)) == {int} and max(map(abs, ids)) < 2**63:
            found = positions(np.array(ids, dtype=np.int64), self.image_ids)
            if (found >= 0).all():
                return found, False
            stems = np.array([self._numeric_stems.get(value, UNKNOWN) for value in ids], dtype=np.int64)
            return (stems, True) if (stems >= 0).sum() > (found >= 0).sum() else (found, False)
        table = {value: self.find(value) for value in set(map(_key, ids))}
        found = np.array([table[_key(value)][0] for value in ids], dtype=np.int64)
        return found, any(by_name for _, by_name in table.values())

    def describe(self, image_id: Any, position: int, source: str) -> str:
        """Explain why an id has no image."""
        too_large = type(image_id) is int or (type(image_id) is float and image_id.is_integer())
        if plain_id(image_id) is None and not too_large:
            return f'the image id must be an integer id or a file name, got {shown(image_id)}'
        if position == AMBIGUOUS:
            return f'image id {shown(image_id)} is the file name of several images of {source}; expected an id'
        if not len(self.image_ids):
            return f'image id {shown(image_id)} is not in {source}'
        name = one_line(next((name for name in self.file_names if name), ''), 60)
        return (f'image id {shown(image_id)} is not in {source}; expected an id such as {one_line(self.image_ids[0], 60)}'
                + (f', or a file name such as {name}' if name else ''))


def _key(value: Any) -> int | str | None:
    return value if type(value) in (int, str) else plain_id(value)


def is_digits(text: str) -> bool:
    """Return whether a text is an integer of reasonable length."""
    return len(text) <= _MOST_DIGITS and text.isascii() and text.isdecimal()
