"""records.npz: the match records of one run, from which runs are compared later, without the detections.

Nothing in the file is trusted: reading checks every array and value, and a ValueError says what is wrong.
"""

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path, check_can_read, real_path
from ..version import __version__
from .accumulate import UNKNOWN, Positives, Records
from .buckets import Grouping
from .inputs.faults import one_line
from .inputs.ground_truth import GroundTruth
from .protocol import IOU_THRESHOLDS, IOU_TYPES, STATISTICS, UNITS, check_proposal_nums, evaluated_thresholds
from .run_id import check_one_run

#: The file's name beside report.json.
FILE_NAME = 'records.npz'
_FORMAT = 1
#: Types of the columns of `Records` in the file, in their order.
_RECORD_TYPES = dict(image=np.int32, category=np.int32, rank=np.int32, score=np.float64, matched=np.int16, ignored=np.int16,
                     target=np.int32, iou=np.float32)


@dataclass(frozen=True)
class SavedGroups:
    """The buckets of one evaluation."""

    description: dict  # definition, unit, cumulative, and ``buckets``: name, lower and upper edge of each
    members: Tensor  # images of each bucket, (I, B) bool
    columns: Tensor  # column of `Records` that each bucket reads, (B,) int64

    @property
    def grouping(self) -> Grouping:
        """The groups without their description."""
        return Grouping(self.members, self.columns)


@dataclass(frozen=True)
class SavedRun:
    """The part of an evaluated run that is saved."""

    source: str  # where it was read from, for messages
    records: dict[str, Records]  # match records by IoU type, sorted as `join_records` sorts
    positives: Positives  # the ground truths that count
    image_ids: np.ndarray  # sorted, (I,) integers or text
    category_names: tuple[str, ...]  # names of the K evaluated categories
    evaluations: tuple[SavedGroups, ...]  # the buckets, those of the main evaluation first
    proposal_nums: tuple[int, ...]  # limits of detections, see `Statistic.limit`
    fingerprint: str  # of the annotations, see `fingerprint`
    mask_fingerprint: str = ''  # of their masks, where the run used them; otherwise empty
    name: str = ''  # the name that the run was given, if any
    version: str = __version__  # the mmtied that wrote it
    run: str = ''  # see `run_id`; empty before a run is saved


def name_runs(paths: Sequence[str | os.PathLike], given: Sequence[str] = ()) -> list[str]:
    """Name runs by the shortest ends of their folders that tell them apart; equal folders get equal names.

    Args:
        paths: Folders, or files in them. The hook's folder ``occlusion`` and what all have at their ends do not count.
        given: The name that each run was given, or an empty text; it is used unless two names would then agree.

    Example:
        >>> name_runs(['runs/r50/occlusion/report.json', 'runs/tied/occlusion'])
        ['r50', 'tied']
        >>> name_runs(['a/run/1', 'b/run/1', 'b/run/2'])
        ['a/run/1', 'b/run/1', 'b/run/2']
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
    """Write ``records.npz`` into a folder, whole or not at all, and return its path.

    Only the columns of match bits that some evaluation reads for all areas are kept.
    """
    used = torch.unique(torch.cat([torch.zeros(1, dtype=torch.int64), *(part.columns for part in run.evaluations)]))
    header = dict(format=_FORMAT, version=run.version, name=run.name, run=run.run, fingerprint=run.fingerprint,
                  mask_fingerprint=run.mask_fingerprint, proposal_nums=run.proposal_nums,
                  category_names=run.category_names, iou_types=list(run.records), thresholds=evaluated_thresholds().tolist(),
                  evaluations=[part.description for part in run.evaluations])
    arrays = dict(header=np.array(json.dumps(header)), image_ids=run.image_ids)
    for name, column in run.positives._asdict().items():
        arrays[f'positives.{name}'] = _array(column[:, used.to(column.device)] if name == 'counted' else column)
    for number, part in enumerate(run.evaluations):
        arrays[f'members.{number}'] = np.packbits(_array(part.members), axis=0)
        arrays[f'columns.{number}'] = _array(torch.searchsorted(used, part.columns))
    for iou_type, table in run.records.items():
        for name, column in table._asdict().items():
            column = column[:, used.to(column.device)] if name in ('matched', 'ignored') else column
            arrays[f'{iou_type}.{name}'] = _compact(_array(column).astype(_RECORD_TYPES[name]))
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return path


def read_records(path: str | os.PathLike) -> SavedRun:
    """Read a run back.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        ValueError: The file is missing, truncated, not of this kind, its arrays do not fit together, or files beside it are of
            another run.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        raise ValueError(f'{path}: no such file; an evaluation by mmtied writes {FILE_NAME} beside report.json')
    check_can_read(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        run = _checked_run(str(path), json.loads(str(arrays['header'])), arrays)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OSError, zipfile.BadZipFile,
            zlib.error, RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(f'{path}: not the match records of a run, or damaged ({one_line(error)})') from None
    if path.name == FILE_NAME:
        check_one_run(path, run.run)
    return run


def fingerprint(ground_truth: GroundTruth) -> str:
    """Hash the images' ids and sizes and the annotations' ids, boxes, areas and crowd flags."""
    digest = hashlib.sha256()
    columns = ('image_ids', 'image_sizes', 'category_ids', 'annotation_ids', 'image', 'category', 'boxes_xywh', 'area', 'crowd')
    for name in columns:
        digest.update(np.ascontiguousarray(getattr(ground_truth, name)).tobytes())
    return digest.hexdigest()


def mask_fingerprint(ground_truth: GroundTruth) -> str:
    """Hash all run-length codes, made from polygons where the file has those; an unusable mask counts as none."""
    digest = hashlib.sha256()
    for annotation in range(len(ground_truth.annotation_ids)):
        try:
            counts = ground_truth.rle(annotation)['counts']
            digest.update(counts.encode() if isinstance(counts, str) else counts)
        except ValueError:  # a mask that was not evaluated: those that were are checked
            pass
        digest.update(b' ')  # which no code has
    return digest.hexdigest()


def checked_array(arrays: Mapping[str, np.ndarray], name: str, kind: str, shape: Sequence[int | None],
                  below: int | None = None) -> np.ndarray:
    """Return an array of the file.

    Args:
        arrays: By name.
        name: Which array.
        kind: The `kind` that its dtype must have; one of several letters.
        shape: The shape that it must have, None for any length.
        below: Where given, its numbers must be at least 0 and below this.

    Example:
        >>> checked_array({'rank': np.array([0, 7])}, 'rank', 'i', (None,), 5)
        Traceback (most recent call last):
        ValueError: rank: numbers from 0 to 4 are needed, got some from 0 to 7
    """
    array = arrays[name]
    fits = len(shape) == array.ndim and all(of in (None, length) for of, length in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in kind or not fits:
        raise ValueError(f'{name}: has type {array.dtype} and shape {array.shape}, which does not fit the rest')
    if below is not None and array.size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f'{name}: numbers from 0 to {below - 1} are needed, got some from {array.min()} to {array.max()}')
    return array


def _checked_run(source: str, header: dict, arrays: Mapping[str, np.ndarray]) -> SavedRun:
    """Build the run from what the file holds, after checking that its parts fit together."""
    if header['format'] != _FORMAT:
        raise ValueError(f'format {header["format"]}, this version reads {_FORMAT}')
    _check_header(header)
    image_ids = checked_array(arrays, 'image_ids', 'iuU', (None, ))
    if not (image_ids[1:] > image_ids[:-1]).all():
        raise ValueError('image_ids: not sorted, or repeated')
    sizes = num_images, num_categories, num_columns = (len(image_ids), len(header['category_names']),
                                                       arrays['positives.counted'].shape[1])
    num_positives = len(checked_array(arrays, 'positives.image', 'i', (None, ), num_images))
    checked_array(arrays, 'positives.category', 'i', (num_positives, ), num_categories)
    checked_array(arrays, 'positives.counted', 'b', (num_positives, num_columns))
    thresholds = _checked_thresholds(header)
    evaluations = []
    for number, description in enumerate(header['evaluations']):
        num_buckets = len(description['buckets'])
        packed = checked_array(arrays, f'members.{number}', 'u', (-(-num_images // 8), num_buckets))
        members = np.unpackbits(packed, axis=0, count=num_images).astype(bool)
        columns = checked_array(arrays, f'columns.{number}', 'i', (num_buckets, ), num_columns)
        evaluations.append(SavedGroups(description, torch.from_numpy(members), torch.from_numpy(columns)))
    return SavedRun(source=source,
                    records={iou_type: _checked_records(arrays, iou_type, thresholds, num_positives, *sizes)
                             for iou_type in header['iou_types']},
                    positives=Positives(*(torch.from_numpy(arrays[f'positives.{name}']) for name in Positives._fields)),
                    image_ids=image_ids,
                    category_names=tuple(header['category_names']),
                    evaluations=tuple(evaluations),
                    proposal_nums=tuple(header['proposal_nums']),
                    fingerprint=header['fingerprint'],
                    mask_fingerprint=header['mask_fingerprint'],
                    name=header.get('name', ''),
                    run=header.get('run', ''),
                    version=header['version'])


def _checked_thresholds(header: Mapping) -> list[float]:
    """Return the IoU thresholds of the file's match bits, which start with COCO's and hold all that `STATISTICS` need."""
    thresholds = header.get('thresholds', IOU_THRESHOLDS.tolist())
    if not (isinstance(thresholds, list) and all(map(_is_finite, thresholds)) and len(IOU_THRESHOLDS) <= len(thresholds) <= 15):
        raise ValueError(f"thresholds: COCO's ten and at most five others are needed, got {thresholds}")
    for statistic in STATISTICS.values():
        if statistic.iou is not None and not np.isclose(thresholds, statistic.iou).any():
            raise ValueError(f'it holds no matches at IoU {statistic.iou:g}, which {statistic.name} needs; evaluate again')
    return thresholds


def _at_current_thresholds(bits: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Move match bits of a file's thresholds to where `evaluated_thresholds` has them."""
    current = evaluated_thresholds()
    if len(current) == len(thresholds) and np.allclose(current, thresholds):
        return bits
    moved = np.zeros_like(bits)
    for place, threshold in enumerate(current):
        moved |= ((bits >> int(np.isclose(thresholds, threshold).argmax())) & 1) << place
    return moved


def _checked_records(arrays: Mapping[str, np.ndarray], iou_type: str, thresholds: Sequence[float], num_positives: int,
                     num_images: int, num_categories: int, num_columns: int) -> Records:
    """Return records of known images and categories, in the order of `accumulate.join_records`."""
    names = {name: f'{iou_type}.{name}' for name in Records._fields}
    number = len(checked_array(arrays, names['image'], 'i', (None, ), num_images))
    checked_array(arrays, names['category'], 'i', (number, ), num_categories)
    checked_array(arrays, names['rank'], 'i', (number, ), max(number, 1))
    for name in ('matched', 'ignored'):
        checked_array(arrays, names[name], 'i', (number, num_columns), 1 << len(thresholds))
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
    arrays = dict(arrays)
    for name in ('matched', 'ignored'):
        arrays[names[name]] = _at_current_thresholds(arrays[names[name]], thresholds)
    if names['target'] not in arrays:  # written before they were kept
        arrays[names['target']], arrays[names['iou']] = np.full(number, UNKNOWN), np.zeros(number)
    else:
        shifted = {**arrays, names['target']: arrays[names['target']] - UNKNOWN}
        checked_array(shifted, names['target'], 'i', (number, ), num_positives - UNKNOWN)
        if not (np.abs(checked_array(arrays, names['iou'], 'f', (number, )) - .5) <= .5).all():
            raise ValueError(f'{names["iou"]}: numbers from 0 to 1 are needed')
    return Records(*(torch.from_numpy(arrays[names[name]].astype(kind)) for name, kind in _RECORD_TYPES.items())).wide()


def _check_header(header: Mapping) -> None:
    """Raise a ValueError unless the header has plain values of the right kinds."""
    names, iou_types, evaluations = header['category_names'], header['iou_types'], header['evaluations']
    texts = [header['version'], header['fingerprint'], header['mask_fingerprint'], header.get('name', ''), header.get('run', '')]
    if not isinstance(names, list) or not all(isinstance(text, str) for text in [*names, *texts]):
        raise ValueError('its name, categories, version and fingerprints must be text')
    if not isinstance(iou_types, list) or not iou_types or len(set(iou_types)) < len(iou_types) or set(iou_types) - {*IOU_TYPES}:
        raise ValueError(f'IoU types among {", ".join(IOU_TYPES)} are needed, each once, got {iou_types}')
    check_proposal_nums(header['proposal_nums'])
    if not isinstance(evaluations, list) or not evaluations:
        raise ValueError('no evaluation in it')
    for number, description in enumerate(evaluations):
        if not _is_description(description):
            raise ValueError(f"evaluation {number}: 'definition', 'unit', 'cumulative' and 'buckets' are needed, with the name "
                             'and the edges of each')


def _is_description(description: object) -> bool:
    """Return whether this can be the description of `SavedGroups`."""
    return (isinstance(description, dict) and set(description) == {'definition', 'unit', 'cumulative', 'buckets'}
            and isinstance(description['definition'], str) and description['unit'] in UNITS
            and isinstance(description['cumulative'], bool) and isinstance(description['buckets'], list)
            and all(map(_is_bucket, description['buckets'])))


def _is_bucket(bucket: object) -> bool:
    """Return whether this has a name and edges; the upper one is None for a cumulative bucket."""
    return (isinstance(bucket, dict) and set(bucket) == {'name', 'lower', 'upper'} and isinstance(bucket['name'], str)
            and _is_finite(bucket['lower']) and (bucket['upper'] is None or _is_finite(bucket['upper'])))


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _array(column: Tensor) -> np.ndarray:
    return column.cpu().numpy()


def _compact(column: np.ndarray) -> np.ndarray:
    """Return scores in single precision where that loses nothing, as with most detectors."""
    with np.errstate(over='ignore'):
        single = column.astype(np.float32) if column.dtype == np.float64 else column
    return single if np.array_equal(single, column) else column
