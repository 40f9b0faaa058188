"""The id of a run, in report.json, records.npz and buckets.csv: a folder that mixes two runs is refused."""

import csv
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .inputs.coco_json import read_json
from .inputs.faults import one_line


def run_id(report: Mapping, tables: Iterable[NamedTuple]) -> str:
    """Return what tells the files of one run from those of another: a hash of its report and its records.

    Args:
        report: What becomes report.json.
        tables: Its `Records` of each IoU type.
    """
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode())
    for table in tables:
        for column in table:
            digest.update(np.ascontiguousarray(column.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def check_one_run(path: str | os.PathLike, run: str) -> None:
    """Raise a ValueError where files beside one of a run's are of another run.

    Args:
        path: The file that was read, of those in `_RUN_OF`.
        run: Its `run_id`; empty in files of older versions.
    """
    path = Path(path)
    for name, run_of in _RUN_OF.items():
        other = path.parent / name
        if name == path.name or not other.is_file():
            continue
        try:
            theirs = run_of(other)
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError,
                NotImplementedError, OverflowError, MemoryError, csv.Error) as error:
            theirs = f'damaged: {one_line(error)}'
        if theirs != run:
            raise ValueError(f'{path.parent}: {path.name} and {name} are not of the same run ({run or "no id"} and '
                             f'{theirs or "no id"}); evaluate again, or move one of them away')


def _run_of_records(path: Path) -> str:
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file['header'])).get('run', '')


def _run_of_table(path: Path) -> str:
    with path.open(newline='', encoding='utf-8') as file:
        return next(csv.DictReader(file), {}).get('run') or ''


#: Files that carry the id of their run, and how it is read.
_RUN_OF = {'report.json': lambda path: read_json(path).get('run', ''),
           'records.npz': _run_of_records, 'buckets.csv': _run_of_table}
