"""records.npz: the match records of one run, from which runs are compared later, without the detections."""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path
from ..version import __version__
from .accumulate import Positives, Records
from .evaluated import Evaluated
from .evaluations import Grouping
from .fingerprint import fingerprint, mask_fingerprint
from .occlusion import needs_masks
from .records_check import check_header, check_image_ids, check_positives, check_records, checked_array

#: The file's name beside report.json.
FILE_NAME = 'records.npz'
_FORMAT = 1
_RECORD_TYPES = dict(image=np.int32, category=np.int32, rank=np.int32, score=np.float64, matched=np.int16, ignored=np.int16)
_EVALUATION_KEYS = ('definition', 'unit', 'cumulative')


@dataclass(frozen=True)
class SavedGroups:
    """The buckets of one evaluation.

    Args:
        description: Definition, unit, cumulative, and ``buckets``: name, lower and upper edge of each.
        members: Images of each bucket, shape (I, B) bool.
        columns: Column of `Records` that each bucket reads, shape (B,) int64.
    """

    description: dict
    members: Tensor
    columns: Tensor

    @property
    def grouping(self) -> Grouping:
        """The groups without their description."""
        return Grouping(self.members, self.columns)


@dataclass(frozen=True)
class SavedRun:
    """What is kept of one evaluated run.

    Args:
        source: Where it was read from, for messages.
        records: Match records by IoU type, sorted as `join_records` sorts.
        positives: The ground truths that count.
        image_ids: Sorted, shape (I,) int64.
        category_names: Names of the K evaluated categories.
        evaluations: The buckets, those of the main evaluation first.
        proposal_nums: See `protocol.limits`.
        fingerprint: Of the annotations, see `fingerprint.fingerprint`.
        mask_fingerprint: Of their masks, where the run used them; otherwise empty.
        version: The mmtied that wrote it.
    """

    source: str
    records: dict[str, Records]
    positives: Positives
    image_ids: np.ndarray
    category_names: tuple[str, ...]
    evaluations: tuple[SavedGroups, ...]
    proposal_nums: tuple[int, ...]
    fingerprint: str
    mask_fingerprint: str = ''
    version: str = __version__


def make_run(evaluated: Evaluated) -> SavedRun:
    """What to keep of an evaluation."""
    report, ground_truth = evaluated.report, evaluated.ground_truth
    evaluations = []
    for part, groups in zip([report, *report['further']], evaluated.plan.groupings, strict=True):
        buckets = [{key: row[key] for key in ('name', 'lower', 'upper')}
                   for row in part[next(iter(evaluated.records))]['buckets']]
        description = {key: part[key] for key in _EVALUATION_KEYS}
        evaluations.append(SavedGroups({**description, 'buckets': buckets}, groups.members.cpu(), groups.columns.cpu()))
    category_ids = ground_truth.category_ids[evaluated.categories].tolist()
    has_masks = 'segm' in evaluated.records or any(needs_masks(one.definition) for one in evaluated.plan.evaluations)
    return SavedRun(ground_truth.source, dict(evaluated.records), evaluated.targets.positives(), ground_truth.image_ids,
               tuple(str(ground_truth.category_names[number]) for number in category_ids), tuple(evaluations),
               evaluated.proposal_nums, fingerprint(ground_truth), mask_fingerprint(ground_truth) if has_masks else '')


def write_records(run: SavedRun, folder: str | os.PathLike) -> Path:
    """Write ``records.npz`` into a folder, whole or not at all, and return its path.

    Only the columns of match bits that some evaluation reads for all areas are kept.
    """
    used = torch.unique(torch.cat([torch.zeros(1, dtype=torch.int64), *(part.columns for part in run.evaluations)]))
    header = dict(format=_FORMAT, version=run.version, fingerprint=run.fingerprint,
                  mask_fingerprint=run.mask_fingerprint, proposal_nums=run.proposal_nums,
                  category_names=run.category_names, iou_types=list(run.records),
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
        ValueError: The file is missing, truncated, not of this kind, or its arrays do not fit together.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f'{path}: no such file; an evaluation by mmtied writes {FILE_NAME} beside report.json')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _make_run(str(path), json.loads(str(arrays['header'])), arrays)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OSError, zipfile.BadZipFile,
            zlib.error, RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(f'{path}: not the match records of a run, or damaged ({" ".join(str(error).split())})') from None


def _make_run(source: str, header: dict, arrays: Mapping[str, np.ndarray]) -> SavedRun:
    if header['format'] != _FORMAT:
        raise ValueError(f'format {header["format"]}, this version reads {_FORMAT}')
    check_header(header)
    check_image_ids(checked_array(arrays, 'image_ids', 'i', (None, )))
    num_images, num_columns = len(arrays['image_ids']), arrays['positives.counted'].shape[1]
    sizes = num_images, len(header['category_names']), num_columns
    check_positives(arrays, *sizes)
    evaluations = []
    for number, description in enumerate(header['evaluations']):
        num_buckets = len(description['buckets'])
        packed = checked_array(arrays, f'members.{number}', 'u', (-(-num_images // 8), num_buckets))
        members = np.unpackbits(packed, axis=0, count=num_images).astype(bool)
        columns = checked_array(arrays, f'columns.{number}', 'i', (num_buckets, ), num_columns)
        evaluations.append(SavedGroups(description, torch.from_numpy(members), torch.from_numpy(columns)))
    positives = Positives(*(torch.from_numpy(arrays[f'positives.{name}']) for name in Positives._fields))
    records = {}
    for iou_type in header['iou_types']:
        check_records(arrays, iou_type, *sizes)
        records[iou_type] = Records(*(torch.from_numpy(arrays[f'{iou_type}.{name}'].astype(_wide(name)))
                                      for name in Records._fields))
    return SavedRun(source, records, positives, arrays['image_ids'], tuple(header['category_names']), tuple(evaluations),
                    tuple(header['proposal_nums']), header['fingerprint'], header['mask_fingerprint'], header['version'])


def _array(column: Tensor) -> np.ndarray:
    return column.cpu().numpy()


def _compact(column: np.ndarray) -> np.ndarray:
    """Scores in single precision where that loses nothing, as with most detectors."""
    single = column.astype(np.float32) if column.dtype == np.float64 else column
    return single if np.array_equal(single, column) else column


def _wide(name: str) -> type:
    """The type that `Records` has in memory."""
    return np.int64 if _RECORD_TYPES[name] is np.int32 else _RECORD_TYPES[name]
