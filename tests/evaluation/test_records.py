import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtied.evaluation.accumulate import Records
from mmtied.evaluation.buckets import Evaluation
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.intervals import Bootstrap, replicates
from mmtied.evaluation.pipeline import evaluate_detections
from mmtied.evaluation.records import FILE_NAME, mask_fingerprint, read_records, write_records
from tests.helpers.runs import small_run


@pytest.fixture
def saved(tmp_path):
    run = replace(small_run()[0], mask_fingerprint='abc')
    return run, write_records(run, tmp_path / 'run')


def test_round_trip(saved):
    run, path = saved
    back = read_records(path.parent)
    assert [file.name for file in path.parent.iterdir()] == [FILE_NAME]
    assert (back.category_names, back.proposal_nums, back.fingerprint) == (run.category_names, run.proposal_nums, run.fingerprint)
    assert back.mask_fingerprint == run.mask_fingerprint == 'abc'
    assert back.evaluations[0].description == run.evaluations[0].description
    assert np.array_equal(back.image_ids, run.image_ids)
    for ours, theirs in zip(back.records['bbox'][:4], run.records['bbox'][:4], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    values = [replicates(one.records['bbox'], one.positives, one.evaluations[0], 3, Bootstrap(20)) for one in (run, back)]
    assert torch.equal(values[0].nan_to_num(-1), values[1].nan_to_num(-1))


def test_unused_columns_are_dropped(tmp_path):
    run, _, groups = small_run()
    groups = type(run.evaluations[0])(run.evaluations[0].description, groups.members, torch.tensor([2, 3, 2, 3]))
    back = read_records(write_records(type(run)(**{**vars(run), 'evaluations': (groups,)}), tmp_path))
    assert back.evaluations[0].columns.tolist() == [1, 2, 1, 2]
    assert torch.equal(back.records['bbox'].matched, run.records['bbox'].matched[:, [0, 2, 3]])
    assert torch.equal(back.positives.counted, run.positives.counted[:, [0, 2, 3]])


def square(left, top, side):
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotated(*segmentations):
    return read_ground_truth(dict(
        images=[dict(id=1, height=40, width=50)], categories=[dict(id=1, name='a')],
        annotations=[dict(id=number, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, segmentation=segmentation)
                     for number, segmentation in enumerate(segmentations)]))


def test_mask_fingerprint_depends_on_pixels():
    drawn = annotated(square(0, 0, 9), square(5, 5, 9))
    expected = mask_fingerprint(drawn)
    part_decoded = annotated(square(0, 0, 9), square(5, 5, 9))
    part_decoded.rle(1)
    assert mask_fingerprint(part_decoded) == expected
    codes = [drawn.rle(number) for number in range(2)]
    as_text = [dict(code, counts=code['counts'].decode()) for code in codes]
    assert mask_fingerprint(annotated(*codes)) == mask_fingerprint(annotated(*as_text)) == expected
    assert mask_fingerprint(annotated(square(0, 0, 9), square(5, 5, 8))) != expected
    assert mask_fingerprint(annotated(square(5, 5, 9), square(0, 0, 9))) != expected


@pytest.mark.parametrize(('iou_type', 'definition', 'used'), [
    ('bbox', 'covered', False), ('bbox', 'mask', True), ('bbox', 'box_mask', True), ('segm', 'covered', True)])
def test_mask_fingerprint_of_runs_that_use_masks(iou_type, definition, used):
    ground_truth = annotated(square(0, 0, 9), square(5, 5, 9))
    result = dict(image_id=1, category_id=1, score=.5, bbox=[0, 0, 9, 9], segmentation=dict(ground_truth.rle(0)))
    detections = {iou_type: make_detections([result], ground_truth, iou_type)}
    run = evaluate_detections(ground_truth, detections, [Evaluation(definition)]).saved_run()
    assert run.mask_fingerprint == (mask_fingerprint(ground_truth) if used else '')


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match='no such file; mmtied evaluations write records.npz'):
        read_records(tmp_path)


@pytest.mark.parametrize('length', [0, 10, 1000, -1])
def test_damaged_file(saved, length):
    _, path = saved
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match='not match records, or damaged') as caught:
        read_records(path)
    assert len(str(caught.value).splitlines()) == 1


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **arrays)


def changed_header(**changes):
    return lambda file: {'header': np.array(json.dumps({**json.loads(str(file['header'])), **changes}))}


@pytest.mark.parametrize(('changes', 'message'), [
    (lambda file: {'bbox.image': file['bbox.image'] + 1000}, 'bbox.image: expected numbers from 0 to 15'),
    (lambda file: {'bbox.score': file['bbox.score'][1:]}, 'bbox.score: type float64 and shape'),
    (lambda file: {'columns.0': file['columns.0'] + 5}, 'columns.0: expected numbers from 0 to 0'),
    (lambda file: {'members.0': file['members.0'][:, 1:]}, 'members.0: type uint8 and shape'),
    (lambda file: {'header': np.array(str(file['header']).replace('"format": 1', '"format": 9'))}, 'format 9'),
    (lambda file: {'header': np.array('{')}, 'damaged'),
    (lambda file: {'columns.0': file['columns.0'] - 1}, 'columns.0: expected numbers from 0 to 0'),
    (lambda file: {'columns.0': file['columns.0'].astype(float)}, 'columns.0: type float64'),
    (lambda file: {'members.0': file['members.0'].astype(float)}, 'members.0: type float64'),
    (lambda file: {'positives.image': file['positives.image'].astype(float)}, 'positives.image: type float64'),
    (lambda file: {'positives.category': file['positives.category'] + 9}, 'positives.category: expected numbers from 0 to 2'),
    (lambda file: {'positives.counted': file['positives.counted'].astype(np.int64)}, 'positives.counted: type int64'),
    (lambda file: {'bbox.score': np.where(np.arange(len(file['bbox.score'])) == 3, np.nan, file['bbox.score'])},
     'bbox.score: scores must be finite'),
    (lambda file: {'bbox.rank': file['bbox.rank'].astype(np.float32)}, 'bbox.rank: type float32'),
    (lambda file: {'bbox.rank': file['bbox.rank'] + 1}, 'bbox.rank: '),
    (lambda file: {'bbox.rank': 0 * file['bbox.rank']}, 'ranks must count from 0 in each image and category'),
    (lambda file: {'bbox.matched': file['bbox.matched'] + 1024}, 'bbox.matched: expected numbers from 0 to 1023'),
    (lambda file: {f'bbox.{name}': file[f'bbox.{name}'][::-1] for name in Records._fields}, 'bbox: the records are not sorted'),
    (lambda file: {'image_ids': file['image_ids'][::-1]}, 'image_ids: not strictly increasing'),
    (changed_header(category_names=['a', 'b', 3]), 'must be strings'),
    (changed_header(category_names='abc'), 'must be strings'),
    (changed_header(iou_types=['bbox', 'bbox']), 'expected distinct IoU types among bbox, segm'),
    (changed_header(iou_types=['boundary']), 'expected distinct IoU types among bbox, segm'),
    (changed_header(proposal_nums=[0]), 'proposal_nums: expected positive integers'),
    (changed_header(proposal_nums=[1, True]), 'proposal_nums: '),
    (changed_header(evaluations=[]), 'no evaluations'),
    (changed_header(evaluations=[dict(unit='image', cumulative=False, buckets=[])]),
     "evaluation 0: expected 'definition', 'unit'"),
    (changed_header(evaluations=[dict(definition='covered', unit='image', cumulative=False, buckets=[
        dict(name='r=0', lower=float('nan'), upper=0)])]), "evaluation 0: expected 'definition', 'unit'"),
    *((changed_header(evaluations=[dict(definition='covered', unit='image', cumulative=cumulative, buckets=[
        dict(name='r=0', lower=lower, upper=upper)])]), "evaluation 0: expected 'definition', 'unit'")
      for cumulative, lower, upper in ((False, True, 1), (False, 0, True), (False, None, 1), (1, 0, 1))),
    (changed_header(name=None), 'must be strings'),
    (changed_header(thresholds=[True] * 10), "thresholds: expected COCO's ten and at most five others"),
    (changed_header(thresholds=[[.5]] * 10), "thresholds: expected COCO's ten and at most five others"),
    (changed_header(thresholds=.5), "thresholds: expected COCO's ten and at most five others"),
])
def test_inconsistent_arrays(saved, changes, message):
    _, path = saved
    with np.load(path) as file:
        changed = changes(file)
    rewrite(path, **changed)
    with pytest.raises(ValueError, match=message):
        read_records(path)


@pytest.mark.parametrize('length', [1 << 60, 1 << 70])
def test_claimed_array_size_too_large(saved, length):
    _, path = saved
    with zipfile.ZipFile(path, 'a') as file, file.open('more.npy', 'w') as entry:
        np.lib.format.write_array_header_1_0(entry, dict(descr='<f8', fortran_order=False, shape=(length, )))
    with pytest.raises(ValueError, match='or damaged') as caught:
        read_records(path)
    assert len(str(caught.value).splitlines()) == 1


def test_failed_write_keeps_previous_file(tmp_path, monkeypatch):
    run, _, _ = small_run()
    write_records(run, tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()

    def fail(file, **arrays):
        raise OSError('disk full')

    monkeypatch.setattr(np, 'savez_compressed', fail)
    with pytest.raises(OSError, match='disk full'):
        write_records(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize('lacking', [['name'], ['thresholds'], ['name', 'thresholds', 'version']])
def test_file_of_an_older_version(saved, lacking):
    """Files without thresholds also lack the object and the IoU of each match."""
    _, path = saved
    with np.load(path) as file:
        arrays = dict(file)
    header = {key: value for key, value in json.loads(str(arrays['header'])).items() if key not in lacking}
    arrays = {name: column for name, column in arrays.items()
              if name not in ('bbox.target', 'bbox.iou') or 'thresholds' not in lacking}
    np.savez(path, **{**arrays, 'header': np.array(json.dumps(header))})
    with pytest.raises(ValueError, match='records.npz: written by an older version of mmtied; evaluate again$'):
        read_records(path)
