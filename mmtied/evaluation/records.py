"""records.npz: the match records of one run, from which runs can be compared later without their detections.

The file is not trusted: reading checks every array and value, and raises a ValueError that describes the fault.
"""

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path, check_can_read, real_path
from ..version import __version__
from .accumulate import Positives, Records
from .inputs.coco_json import read_json
from .inputs.faults import one_line
from .inputs.ground_truth import GroundTruth
from .protocol import IOU_THRESHOLDS, IOU_TYPES, STATISTICS, UNITS, check_proposal_nums, evaluated_thresholds

#: File name, beside report.json.
FILE_NAME = 'records.npz'
_FORMAT = 1
#: Types of the columns of `Records` in the file, in order.
_RECORD_TYPES = dict(image=np.int32, category=np.int32, rank=np.int32, score=np.float64, matched=np.int16, ignored=np.int16,
                     target=np.int32, iou=np.float32)


@dataclass(frozen=True)
class SavedGroups:
    """The buckets of one evaluation."""

    description: dict  # definition, unit, cumulative, and ``buckets`` with name, lower and upper edge
    members: Tensor  # images of each bucket, (I, B) bool
    columns: Tensor  # column of `Records` for each bucket, (B,) int64


@dataclass(frozen=True)
class SavedRun:
    """The saved part of an evaluated run."""

    source: str  # where the run was read from, for messages
    records: dict[str, Records]  # match records by IoU type, in the order of `join_records`
    positives: Positives  # the ground truths that count
    image_ids: np.ndarray  # sorted, (I,) integers or strings
    category_names: tuple[str, ...]  # names of the K evaluated categories
    evaluations: tuple[SavedGroups, ...]  # buckets of each evaluation, the main one first
    proposal_nums: tuple[int, ...]  # limits of detections, see `Statistic.limit`
    fingerprint: str  # of the annotations, see `fingerprint`
    mask_fingerprint: str = ''  # of the masks if the run used them, otherwise empty
    name: str = ''  # name given by the user, otherwise empty
    run: str = ''  # see `run_id`; empty until the run is saved


def name_runs(paths: Sequence[str | os.PathLike], given: Sequence[str] = ()) -> list[str]:
    """Name runs by the shortest distinct suffixes of their folders; equal folders get equal names.

    `paths` are folders, or files in them. The hook's folder ``occlusion`` and common trailing parts are ignored. `given` names
    (empty for none) take precedence unless two would then be equal.

    Example:
        >>> name_runs(['runs/r50/occlusion/report.json', 'runs/tied/occlusion'])
        ['r50', 'tied']
    """
    folders = [path.parent if path.suffix in ('.npz', '.json') else path for path in (real_path(path) for path in paths)]
    parts = [(folder.parent if folder.name == 'occlusion' else folder).parts for folder in folders]
    while len(set(parts)) > 1 and all(len(path) > 1 for path in parts) and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    ends = []
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ['/'.join(path[-length:]) for path in parts]
        if len(set(ends)) == len(set(parts)):
            break
    named = [name or end for name, end in zip(given, ends, strict=True)] if given else ends
    return named if len(set(named)) == len(named) else ends


def write_records(run: SavedRun, folder: str | os.PathLike) -> Path:
    """Write ``records.npz`` into a folder atomically and return its path.

    Of the match bits, only each group's column for all areas is kept.
    """
    used = torch.unique(torch.cat([torch.zeros(1, dtype=torch.int64), *(part.columns for part in run.evaluations)]))
    header = dict(format=_FORMAT, version=__version__, name=run.name, run=run.run, fingerprint=run.fingerprint,
                  mask_fingerprint=run.mask_fingerprint, proposal_nums=run.proposal_nums,
                  category_names=run.category_names, iou_types=list(run.records), thresholds=evaluated_thresholds().tolist(),
                  evaluations=[part.description for part in run.evaluations])
    arrays = dict(header=np.array(json.dumps(header)), image_ids=run.image_ids)
    for name, column in run.positives._asdict().items():
        arrays[f'positives.{name}'] = (column[:, used.to(column.device)] if name == 'counted' else column).cpu().numpy()
    for number, part in enumerate(run.evaluations):
        arrays[f'members.{number}'] = np.packbits(part.members.cpu().numpy(), axis=0)
        arrays[f'columns.{number}'] = torch.searchsorted(used, part.columns).cpu().numpy()
    for iou_type, table in run.records.items():
        for name, column in table._asdict().items():
            column = column[:, used.to(column.device)] if name in ('matched', 'ignored') else column
            arrays[f'{iou_type}.{name}'] = _compact(column.cpu().numpy().astype(_RECORD_TYPES[name]))
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return path


def read_records(path: str | os.PathLike) -> SavedRun:
    """Read a saved run.

    Args:
        path: The file, or its folder.

    Raises:
        ValueError: The file is missing, damaged, of another kind or from an older mmtied, its arrays are inconsistent, or files
            beside it belong to another run.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path.with_name(FILE_NAME) if path.name == 'report.json' else path
    if not path.exists():
        raise ValueError(f'{path}: no such file; mmtied evaluations write {FILE_NAME} beside report.json')
    check_can_read(path)
    if not is_zipfile(path):
        raise ValueError(f'{path}: not match records, or damaged; expected {FILE_NAME}, or its folder')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays['header']))
        older = header['format'] == _FORMAT and not {'name', 'thresholds'} <= set(header)
        run = None if older else _checked_run(str(path), header, arrays)
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f'{path}: not match records, or damaged ({one_line(error)})') from None
    if older:
        raise ValueError(f'{path}: written by an older version of mmtied; evaluate again')
    if path.name == FILE_NAME:
        check_one_run(path, run.run)
    return run


def run_id(report: Mapping, tables: Iterable[Records]) -> str:
    """Return an id that marks the files of one run: a hash of its report and records."""
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode())
    for table in tables:
        for column in table:
            digest.update(np.ascontiguousarray(column.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def check_one_run(path: str | os.PathLike, run: str) -> None:
    """Raise a ValueError if files beside `path`, a file of the run with id `run`, belong to another run."""
    path = Path(path)
    for name in ('report.json', FILE_NAME, 'buckets.csv'):
        other = path.parent / name
        if name == path.name or not other.is_file():
            continue
        try:
            theirs = _run_of(other)
        except Exception as error:  # see read_records
            theirs = f'damaged: {one_line(error)}'
        if theirs != run:
            raise ValueError(f'{path.parent}: {path.name} and {name} belong to different runs ({run or "no id"} and '
                             f'{theirs or "no id"}); evaluate again, or move one of them away')


def fingerprint(ground_truth: GroundTruth) -> str:
    """Hash image ids and sizes, category ids, and annotations with their ids, boxes, areas and crowd flags."""
    digest = hashlib.sha256()
    columns = ('image_ids', 'image_sizes', 'category_ids', 'annotation_ids', 'image', 'category', 'boxes_xywh', 'area', 'crowd')
    for name in columns:
        digest.update(np.ascontiguousarray(getattr(ground_truth, name)).tobytes())
    return digest.hexdigest()


def mask_fingerprint(ground_truth: GroundTruth) -> str:
    """Hash the run-length codes of all masks, converted from polygons if necessary; invalid masks hash as empty."""
    digest = hashlib.sha256()
    for annotation in range(len(ground_truth.annotation_ids)):
        try:
            counts = ground_truth.rle(annotation)['counts']
            digest.update(counts.encode() if isinstance(counts, str) else counts)
        except ValueError:  # not evaluated: evaluated masks were checked
            pass
        digest.update(b' ')  # a separator, as codes have no spaces
    return digest.hexdigest()


def checked_array(arrays: Mapping[str, np.ndarray], name: str, kind: str, shape: Sequence[int | None],
                  below: int | None = None) -> np.ndarray:
    """Return an array of the file after checking its dtype kind, one of `kind`, and its shape, in which None is any length.

    If `below` is given, all numbers must be in [0, below).

    Example:
        >>> checked_array({'rank': np.array([0, 7])}, 'rank', 'i', (None,), 5)
        Traceback (most recent call last):
        ValueError: rank: expected numbers from 0 to 4, got numbers from 0 to 7
    """
    array = arrays[name]
    fits = len(shape) == array.ndim and all(of in (None, length) for of, length in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in kind or not fits:
        raise ValueError(f'{name}: type {array.dtype} and shape {array.shape} do not fit the other arrays')
    if below is not None and array.size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f'{name}: expected numbers from 0 to {below - 1}, got numbers from {array.min()} to {array.max()}')
    return array


def _checked_run(source: str, header: dict, arrays: Mapping[str, np.ndarray]) -> SavedRun:
    """Build the run from the file's contents after checking that they are consistent."""
    if header['format'] != _FORMAT:
        raise ValueError(f'format {header["format"]}; this version reads format {_FORMAT}')
    _check_header(header)
    image_ids = checked_array(arrays, 'image_ids', 'iuU', (None, ))
    if not (image_ids[1:] > image_ids[:-1]).all():
        raise ValueError('image_ids: not strictly increasing')
    num_images, num_categories = len(image_ids), len(header['category_names'])
    num_positives, num_columns = checked_array(arrays, 'positives.counted', 'b', (None, None)).shape
    checked_array(arrays, 'positives.image', 'i', (num_positives, ), num_images)
    checked_array(arrays, 'positives.category', 'i', (num_positives, ), num_categories)
    thresholds = _checked_thresholds(header)
    evaluations = []
    for number, description in enumerate(header['evaluations']):
        num_buckets = len(description['buckets'])
        packed = checked_array(arrays, f'members.{number}', 'u', (-(-num_images // 8), num_buckets))
        members = np.unpackbits(packed, axis=0, count=num_images).astype(bool)
        columns = checked_array(arrays, f'columns.{number}', 'i', (num_buckets, ), num_columns)
        evaluations.append(SavedGroups(description, torch.from_numpy(members), torch.from_numpy(columns)))
    return SavedRun(source=source,
                    records={iou_type: _checked_records(arrays, iou_type, thresholds, num_positives,
                                                         num_images, num_categories, num_columns)
                             for iou_type in header['iou_types']},
                    positives=Positives(*(torch.from_numpy(arrays[f'positives.{name}']) for name in Positives._fields)),
                    image_ids=image_ids,
                    category_names=tuple(header['category_names']),
                    evaluations=tuple(evaluations),
                    proposal_nums=tuple(header['proposal_nums']),
                    fingerprint=header['fingerprint'],
                    mask_fingerprint=header['mask_fingerprint'],
                    name=header['name'],
                    run=header.get('run', ''))


def _checked_thresholds(header: Mapping) -> list[float]:
    """Return the IoU thresholds of the match bits: COCO's, then others, including all that `STATISTICS` need."""
    thresholds = header['thresholds']
    plain = isinstance(thresholds, list) and {*map(type, thresholds)} <= {int, float} and np.isfinite(thresholds).all()
    if not plain or not len(IOU_THRESHOLDS) <= len(thresholds) <= 15:
        raise ValueError(f"thresholds: expected COCO's ten and at most five others, got {thresholds}")
    for statistic in STATISTICS.values():
        if statistic.iou is not None and not np.isclose(thresholds, statistic.iou).any():
            raise ValueError(f'no matches at IoU {statistic.iou:g}, which {statistic.name} needs; evaluate again')
    return thresholds


def _at_current_thresholds(bits: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Move match bits from the file's order of thresholds to that of `evaluated_thresholds`."""
    current = evaluated_thresholds()
    if len(current) == len(thresholds) and np.allclose(current, thresholds):
        return bits
    moved = np.zeros_like(bits)
    for place, threshold in enumerate(current):
        moved |= ((bits >> int(np.isclose(thresholds, threshold).argmax())) & 1) << place
    return moved


def _checked_records(arrays: Mapping[str, np.ndarray], iou_type: str, thresholds: Sequence[float], num_positives: int,
                     num_images: int, num_categories: int, num_columns: int) -> Records:
    """Return checked records; they must be in the order of `accumulate.join_records`."""
    number = len(checked_array(arrays, f'{iou_type}.image', 'i', (None, ), num_images))
    bits = 'i', (number, num_columns), 1 << len(thresholds)
    kinds = dict(category=('i', (number, ), num_categories), rank=('i', (number, ), max(number, 1)), matched=bits, ignored=bits,
                 score=('f', (number, )), target=('i', (number, )), iou=('f', (number, )))
    of_type = {name: arrays[f'{iou_type}.{name}'] for name in _RECORD_TYPES}
    for name, needed in kinds.items():
        checked_array(arrays, f'{iou_type}.{name}', *needed)
    if not np.isfinite(of_type['score']).all():
        raise ValueError(f'{iou_type}.score: scores must be finite numbers')
    if number and not -1 <= of_type['target'].min() <= of_type['target'].max() < num_positives:
        raise ValueError(f'{iou_type}.target: expected numbers from -1 to {num_positives - 1}')
    if not (np.abs(of_type['iou'] - .5) <= .5).all():
        raise ValueError(f'{iou_type}.iou: expected numbers from 0 to 1')
    image, category, rank, score = (of_type[name] for name in ('image', 'category', 'rank', 'score'))
    equal = np.ones(max(number - 1, 0), dtype=bool)
    for column in (category, -score, image, rank):
        if (equal & (column[1:] < column[:-1])).any():
            raise ValueError(f'{iou_type}: the records are not sorted by category, score, image and rank')
        equal &= column[1:] == column[:-1]
    cells = image.astype(np.int64) * num_categories + category
    order = np.argsort(cells, kind='stable')
    if (rank[order] != np.arange(number) - np.searchsorted(cells[order], cells[order])).any():
        raise ValueError(f'{iou_type}.rank: ranks must count from 0 in each image and category')
    for name in ('matched', 'ignored'):
        of_type[name] = _at_current_thresholds(of_type[name], thresholds)
    return Records(*(torch.from_numpy(of_type[name].astype(kind)) for name, kind in _RECORD_TYPES.items())).wide()


def _check_header(header: Mapping) -> None:
    """Raise a ValueError unless all values of the header have the right types."""
    names, iou_types, evaluations = header['category_names'], header['iou_types'], header['evaluations']
    texts = [header['fingerprint'], header['mask_fingerprint'], header['name'], header.get('run', '')]
    if not isinstance(names, list) or not all(isinstance(text, str) for text in [*names, *texts]):
        raise ValueError('name, categories and fingerprints must be strings')
    if not isinstance(iou_types, list) or not iou_types or len(set(iou_types)) < len(iou_types) or set(iou_types) - {*IOU_TYPES}:
        raise ValueError(f'expected distinct IoU types among {", ".join(IOU_TYPES)}, got {iou_types}')
    check_proposal_nums(header['proposal_nums'])
    if not isinstance(evaluations, list) or not evaluations:
        raise ValueError('no evaluations')
    for number, description in enumerate(evaluations):
        if not _has_kinds(description, definition=str, unit=str, cumulative=bool, buckets=list) or (
                description['unit'] not in UNITS) or not all(
                _has_kinds(bucket, name=str, lower=int | float, upper=int | float | None) for bucket in description['buckets']):
            raise ValueError(f"evaluation {number}: expected 'definition', 'unit', 'cumulative' and 'buckets', each with 'name', "
                             "'lower' and 'upper'")


def _has_kinds(value: object, **kinds: Any) -> bool:
    """Return whether a value is a dict with exactly these keys and types, and finite numbers."""
    return isinstance(value, dict) and set(value) == set(kinds) and all(
        isinstance(value[key], kind) and isinstance(value[key], bool) == (kind is bool)
        and not (isinstance(value[key], int | float) and not math.isfinite(value[key])) for key, kind in kinds.items())


def _compact(column: np.ndarray) -> np.ndarray:
    """Convert float64 scores to float32 if lossless, as for most detectors."""
    if column.dtype != np.float64:
        return column
    with np.errstate(over='ignore'):
        single = column.astype(np.float32)
    return single if np.array_equal(single, column) else column


def _run_of(path: Path) -> str:
    """Return the run id in a file."""
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file['header'])).get('run', '')
    if path.suffix == '.csv':
        with path.open(newline='', encoding='utf-8') as file:
            return next(csv.DictReader(file), {}).get('run') or ''
    return read_json(path).get('run', '')
