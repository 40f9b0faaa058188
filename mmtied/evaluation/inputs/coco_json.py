"""Columns of COCO's JSON lists as arrays, with one-line errors that name the file and the entry."""

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


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
