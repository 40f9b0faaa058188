"""Read JSON files, and COCO's lists of objects as NumPy columns, with one-line errors that name the file and the entry."""

import gc
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

#: How boxes may be given: left, top, width, height, or left, top, right, bottom.
BOX_FORMATS = ('xywh', 'xyxy')


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file, with orjson where it is installed.

    Raises:
        ValueError: The file is missing, not a file, empty, truncated or not JSON.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f'{path}: is a folder, expected a file')
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    content = path.read_bytes()
    try:
        with no_collection():
            return _parse_json(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: the file is {"not complete JSON" if content else "empty"} ({error})') from None


def _parse_json(content: bytes) -> Any:
    """Parse JSON; orjson is 3 times as fast, but takes neither NaN and Infinity nor a byte order mark, which json accepts."""
    try:
        import orjson

        return orjson.loads(content)
    except (ImportError, ValueError):
        return json.loads(content)


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause garbage collection, which takes most of the time of building millions of objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_entries(entries: Any, keys: Sequence[str], where: str) -> None:
    """Raise a ValueError unless `entries` is a list of dicts which all have `keys`."""
    if not isinstance(entries, list):
        raise ValueError(f'{where}: a list was expected, got {type(entries).__name__}')
    try:
        if set(map(type, entries)) <= {dict}:
            deque(map(itemgetter(*keys), entries), maxlen=0)  # half the time of the loop below, which names the entry
            return
    except KeyError:
        pass
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f'{where}[{number}]: an object was expected, got {type(entry).__name__}')
        for key in keys:
            if key not in entry:
                raise ValueError(f'{where}[{number}] has no {key!r}')


def integer_column(entries: Sequence[dict], key: str, where: str) -> np.ndarray:
    """Return the integers under `key`, shape (N,) int64."""
    return _column(entries, key, 'iu', where, 'an integer').astype(np.int64)


def number_column(entries: Sequence[dict], key: str, where: str) -> np.ndarray:
    """Return the finite numbers under `key`, shape (N,) float64."""
    return _column(entries, key, 'iuf', where, 'a finite number').astype(np.float64)


def box_column(entries: Sequence[dict], where: str, box_format: str = 'xywh') -> np.ndarray:
    """Return the boxes under ``bbox``, shape (N, 4) xywh float64, finite and without negative sides.

    Args:
        entries: Objects with a ``bbox``.
        where: Name for messages.
        box_format: Format of the boxes, ``'xywh'`` or ``'xyxy'``.
    """
    boxes = _plain_boxes(entries)
    if boxes is None:
        names = '[x, y, width, height]' if box_format == 'xywh' else '[x1, y1, x2, y2]'
        boxes = _column(entries, 'bbox', 'iuf', where, f'four finite numbers {names}', (4,)).astype(np.float64)
    if box_format == 'xyxy':
        boxes[:, 2:] -= boxes[:, :2]
    negative = (boxes[:, 2:] < 0).any(axis=1)
    if negative.any():
        number = int(negative.argmax())
        raise ValueError(f"{where}[{number}]: 'bbox' must have sides of at least 0, got {entries[number]['bbox']}")
    return boxes


def _plain_boxes(entries: Sequence[dict]) -> np.ndarray | None:
    """Convert boxes that are lists of four Python numbers, 3 times as fast as `np.array`; None where one is not, or infinite."""
    boxes = [entry['bbox'] for entry in entries]
    if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}:
        return None
    if not set(map(type, chain.from_iterable(boxes))) <= {int, float}:
        return None
    try:
        array = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
    except OverflowError:  # an integer beyond the largest float
        return None
    return array if np.isfinite(array).all() else None


def _column(entries: Sequence[dict], key: str, kinds: str, where: str, expected: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return the values under `key` as one array (N, *shape) of one of NumPy's dtype kinds, or name the first bad one."""

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
    """Raise a ValueError that names a repeated id."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f'{where}: id {values[counts > 1][0]} is repeated; ids must be unique')


def positions(ids: np.ndarray, known: np.ndarray, key: str, where: str) -> np.ndarray:
    """Return the index of each id among the sorted `known` ids; a ValueError names one that is not there."""
    index = np.searchsorted(known, ids)
    found = known[np.minimum(index, len(known) - 1)] == ids if len(known) else np.zeros(len(ids), dtype=bool)
    if not found.all():
        number = int(np.argmin(found))
        raise ValueError(f'{where}[{number}]: {key} {ids[number]} is not in the annotation file')
    return index
