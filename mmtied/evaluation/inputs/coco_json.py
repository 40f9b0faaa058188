"""Read JSON files, and convert COCO's lists of objects to NumPy columns with one-line errors that name the file and the entry."""

import json
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from mmtied.cli import no_collection

from ..protocol import BOX_FORMATS
from .content import check_memory, json_memory, other_kind, read_bytes
from .faults import Faults, one_line, shown


def read_json(path: str | os.PathLike, content: bytes | None = None) -> Any:
    """Read a JSON file, optionally gzipped, or its `content`; uses orjson if it is installed."""
    content = read_bytes(path) if content is None else content
    check_memory(json_memory(content), path)
    try:
        with no_collection():
            return _parse_json(content)
    except RecursionError:
        state = 'nested too deeply to be read'
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        kind = other_kind(content)
        state = (f'not JSON, but {kind}' if kind else f'empty ({error})' if not content else
                 f'not complete JSON ({error})' if isinstance(error, json.JSONDecodeError) else
                 f'not in UTF-8 ({one_line(error)}); save it in that encoding')
    except ValueError:
        raise ValueError(f'{path}: the file has an integer of more than {sys.get_int_max_str_digits()} digits') from None
    raise ValueError(f'{path}: the file is {state}')


def _parse_json(content: bytes) -> Any:
    """Parse JSON; orjson is 3 times as fast, but unlike json rejects NaN, Infinity and byte order marks."""
    try:
        import orjson

        return orjson.loads(content)
    except (ImportError, ValueError):
        return json.loads(content)


#: Largest coordinate of a box; areas and sums of larger ones lose floating-point precision.
FARTHEST_BOX = 1e15


def check_entries(entries: Any, keys: Sequence[str], where: str, faults: Faults | None = None) -> list[dict]:
    """Check that entries are a list of dicts with `keys`, and return them; `where` names the list in messages.

    Faulty entries are added to `faults` and replaced by a complete entry. Without `faults` they raise a ValueError.
    """
    if not isinstance(entries, list):
        raise ValueError(f'{where}: a list was expected, got {type(entries).__name__}')
    try:
        if set(map(type, entries)) <= {dict}:
            deque(map(itemgetter(*keys), entries), maxlen=0)  # twice as fast as the loop below, which names the entry
            return entries
    except KeyError:
        pass
    missing: dict[int, str] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            missing[number] = f': an object was expected, got {type(entry).__name__}'
        elif not all(key in entry for key in keys):
            missing[number] = (f' has no {next(key for key in keys if key not in entry)!r}; it has '
                               f'{one_line(", ".join(map(str, entry)), 80) or "nothing"}')
    found = faults or Faults(where, len(entries), None)
    entries = replace_faulty(entries, missing, found)
    if faults is None:
        found.settle()
    return entries


def replace_faulty(entries: list, messages: Mapping[int, str], faults: Faults) -> list:
    """Mark the entries at some indices as faulty, and return the list with each replaced by a valid entry.

    Raises:
        ValueError: No entry is valid.
    """
    bad = np.isin(np.arange(len(entries)), list(messages))
    if bad.all():
        faults.skip, faults.exempt[:] = None if faults.skip is None else False, False
    faults.add(bad, messages.__getitem__)
    if bad.all():
        faults.settle()
    good = entries[int(np.argmin(bad))]
    return [good if faulty else entry for entry, faulty in zip(entries, bad.tolist(), strict=True)]


def values_of(entries: Sequence[dict], key: str) -> list[Any]:
    """Return each entry's value under `key`, or None."""
    try:
        return list(map(itemgetter(key), entries))  # twice as fast as the line below
    except KeyError:
        return [entry.get(key) for entry in entries]


def integer_column(entries: Sequence[dict], key: str, faults: Faults, values: list | None = None) -> np.ndarray:
    """Return the integers under `key`, or `values`, shape (N,) int64; whole floats are accepted."""
    column = _column(entries, key, 'an integer', faults, values=values)
    if column.dtype != np.int64 and len(column):
        whole = (column == np.round(column)) & (np.abs(column.astype(np.float64)) < 2.**63)
        faults.add(~whole, lambda number: f': {key!r} must be an integer, got {shown(entries[number][key])}'
                   + (' (below 2**63)' if column[number] == np.round(column[number]) else ''))
        column = np.where(whole, column, 0)
    return column.astype(np.int64)


def number_column(entries: Sequence[dict], key: str, faults: Faults) -> np.ndarray:
    """Return the finite numbers under `key`, shape (N,) float64."""
    return _column(entries, key, 'a finite number', faults).astype(np.float64) + 0.  # -0. becomes 0.


def box_column(entries: Sequence[dict], box_format: str, sizes: np.ndarray, faults: Faults) -> np.ndarray:
    """Return the boxes under ``bbox``, shape (N, 4) xywh float64, finite and without negative sides.

    `box_format` is one of `BOX_FORMATS`; `sizes`, (N, 2), are height and width of each box's image for formats ending in ``n``.
    """
    boxes = _plain_boxes(values_of(entries, 'bbox'))
    if boxes is None:
        expected = f'four finite numbers [{BOX_FORMATS[box_format]}]'
        boxes = _column(entries, 'bbox', expected, faults, (4,)).astype(np.float64)
    far = (np.abs(boxes) > FARTHEST_BOX).any(axis=1)
    faults.add(far, lambda number: f": 'bbox' must have numbers of at most {FARTHEST_BOX:g} in size, got "
                                   f'{shown(entries[number]["bbox"])}')
    boxes[far] = 0
    boxes = to_xywh(boxes, box_format, sizes) + 0.
    faults.add((boxes[:, 2:] < 0).any(axis=1), lambda number: ": 'bbox' must have sides of at least 0, got "
                                                              f'{shown(entries[number]["bbox"])}')
    return boxes


def to_xywh(boxes: np.ndarray, box_format: str, sizes: np.ndarray | None = None) -> np.ndarray:
    """Convert boxes to left, top, width, height in pixels, possibly in place; arguments as for `box_column`.

    Example:
        >>> to_xywh(np.array([[.5, .5, .2, .4]]), 'cxcywhn', np.array([[100, 200]])).tolist()
        [[80.0, 30.0, 40.0, 40.0]]
    """
    if box_format.endswith('n'):
        boxes = boxes * np.tile(sizes[:, ::-1], 2)
    if box_format.startswith('xyxy'):
        boxes[:, 2:] -= boxes[:, :2]
    elif box_format.startswith('cxcywh'):
        boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes


def _plain_boxes(boxes: list) -> np.ndarray | None:
    """Convert lists of four finite Python numbers, 3 times as fast as `np.array`; return None if any box is something else."""
    if (set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4}
            or not set(map(type, chain.from_iterable(boxes))) <= {int, float}):
        return None
    try:
        array = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
    except OverflowError:  # an integer beyond the largest float
        return None
    return array if np.isfinite(array).all() else None


def _column(entries: Sequence[dict], key: str, expected: str, faults: Faults, shape: tuple[int, ...] = (),
            values: list | None = None) -> np.ndarray:
    """Return the numbers under `key` as one array (N, *shape), with 0 for faulty entries."""
    if not entries:
        return np.empty((0, *shape))
    values = values_of(entries, key) if values is None else values
    column = _as_array(values, (len(entries), *shape))
    if column is not None:
        return column
    single = [_as_array(value, shape) for value in values]
    faults.add(np.array([array is None for array in single]),
               lambda number: f': {key!r} must be {expected}, got {shown(values[number])}')
    return np.stack([np.zeros(shape) if array is None else array for array in single])


def _as_array(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return finite numbers as an array; None for other shapes and values, including booleans, which NumPy would accept."""
    try:
        array = None if _has_bools(values, len(shape)) else np.array(values)
    except (ValueError, OverflowError, TypeError):  # ragged, or too large
        return None
    return array if array is not None and array.shape == shape and array.dtype.kind in 'iuf' and np.isfinite(
        array).all() else None


def _has_bools(value: Any, depth: int) -> bool:
    """Return whether lists nested to a depth contain booleans."""
    if not depth:
        return isinstance(value, bool | np.bool_)
    if depth == 1:
        return isinstance(value, list | tuple) and not {bool, np.bool_}.isdisjoint(map(type, value))
    return isinstance(value, list | tuple) and any(_has_bools(item, depth - 1) for item in value)


def check_unique(ids: np.ndarray, where: str) -> None:
    """Raise a ValueError that names a repeated id."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f'{where}: id {values[counts > 1][0]} is repeated; ids must be unique')


def positions(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the index of each id among the sorted `known` ids, -1 for unknown ids, shape (N,) int64."""
    if not len(known):
        return np.full(len(ids), -1)
    index = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[index] == ids, index, -1)
