"""Batched matching equals one pass, dense masks equal run-length codes, and the GPU equals the CPU."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pycocotools import mask as mask_api

from mmtied.evaluation.accumulate import join_records
from mmtied.evaluation.buckets import Evaluation, make_plan
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.pipeline import match_detections
from mmtied.evaluation.stream import ImageMatcher
from tests.helpers.coco_oracle import cases

few_cases = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
LIMIT = 100


def predictions_of(results, image_id, ids):
    """Return an image's results as tensors: labels, scores, float64 boxes (xyxy)."""
    here = [entry for entry in results if entry['image_id'] == image_id]
    labels = torch.tensor([ids.index(entry['category_id']) for entry in here], dtype=torch.int64)
    return here, labels, torch.tensor([entry['score'] for entry in here], dtype=torch.float64)


def check_equal(matcher, candidates, together):
    """Matching one image at a time, in pairs, or all together gives the same table."""
    for batch in (1, 2, len(candidates)):
        parts = [matcher.match(candidates[start:start + batch]) for start in range(0, len(candidates), batch)]
        for name, left, right in zip(together._fields, join_records(parts), together, strict=True):
            assert torch.equal(left, right), name


def matchers(data, results, iou_type):
    ground_truth = read_ground_truth(data)
    ids = [category['id'] for category in data['categories']]  # labels in the file's order, which is not sorted
    plan = make_plan(ground_truth, [Evaluation(unit='instance', edges=(0, .5, 1))])
    matcher = ImageMatcher(ground_truth, ids, LIMIT, plan.outside)
    detections = make_detections(results, ground_truth, iou_type)
    together = match_detections(detections, ground_truth, matcher.targets, matcher.categories, LIMIT)
    return ids, matcher, join_records([together])


@few_cases
@given(cases('bbox'))
def test_batched_boxes_match_one_pass(case):
    data, results = case
    for entry in results:  # whole pixels: x + w - x is w again
        entry['bbox'] = [float(round(value)) for value in entry['bbox']]
    ids, matcher, together = matchers(data, results, 'bbox')
    candidates = []
    for image in data['images']:
        here, labels, scores = predictions_of(results, image['id'], ids)
        boxes = torch.tensor([entry['bbox'] for entry in here], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        candidates.append(matcher.take_boxes(image['id'], labels, scores, boxes))
    check_equal(matcher, candidates, together)


@few_cases
@given(cases('segm'))
def test_batched_masks_match_one_pass(case):
    data, results = case
    ids, matcher, together = matchers(data, results, 'segm')
    dense, coded = [], []
    for image in data['images']:
        here, labels, scores = predictions_of(results, image['id'], ids)
        rles = [entry['segmentation'] for entry in here]
        masks = np.array([mask_api.decode(rle) for rle in rles]).reshape(-1, image['height'], image['width'])
        dense.append(matcher.take_masks(image['id'], labels, scores, torch.from_numpy(masks).bool()))
        coded.append(matcher.take_masks(image['id'], labels, scores, rles))
    check_equal(matcher, dense, together)
    check_equal(matcher, coded, together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='compares a GPU with the CPU')
@few_cases
@given(cases('segm'))
def test_gpu_records_match_cpu(case):
    data, results = case
    ids, matcher, together = matchers(data, results, 'segm')
    candidates = []
    for image in data['images']:
        here, labels, scores = predictions_of(results, image['id'], ids)
        masks = np.array([mask_api.decode(entry['segmentation']) for entry in here])
        masks = torch.from_numpy(masks.reshape(-1, image['height'], image['width'])).bool()
        candidates.append(matcher.take_masks(image['id'], labels.cuda(), scores.cuda(), masks.cuda()))
    records = join_records([matcher.match(candidates)])
    assert all(column.is_cuda for column in records)
    assert all(torch.equal(mine.cpu(), other) for mine, other in zip(records, together, strict=True))


@pytest.fixture
def matcher():
    images = [dict(id=5, height=20, width=30), dict(id=8, height=20, width=30)]
    data = dict(images=images, categories=[dict(id=1, name='a')], annotations=[
        dict(id=1, image_id=5, category_id=1, bbox=[0, 0, 10, 10], area=100, segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]])])
    return ImageMatcher(read_ground_truth(data), [1], LIMIT)


def test_invalid_predictions(matcher):
    label, score, box = torch.tensor([0]), torch.tensor([.5]), torch.tensor([[0., 0., 10., 10.]])

    def match_boxes(*predictions):
        return matcher.match([matcher.take_boxes(5, label, score, box), matcher.take_boxes(*predictions)])

    with pytest.raises(ValueError, match='image id 6, which is not in'):
        match_boxes(6, label, score, box)
    with pytest.raises(ValueError, match='image id 8: predicted labels must be from 0 to 0'):
        match_boxes(8, label + 1, score, box)
    with pytest.raises(ValueError, match='image id 8: predicted scores must be finite'):
        match_boxes(8, label, score * torch.nan, box)
    with pytest.raises(ValueError, match='image id 8: predicted boxes must be finite'):
        match_boxes(8, label, score, box * torch.inf)
    with pytest.raises(ValueError, match=r'labels have shape \[2\]'):
        match_boxes(8, label.repeat(2), score, box)
    with pytest.raises(ValueError, match=r'boxes have shape \[4\]'):
        match_boxes(8, label, score, box[0])
    with pytest.raises(ValueError, match=r'size \[30, 20\], the image \[20, 30\]'):
        matcher.take_masks(5, label, score, torch.zeros(1, 30, 20, dtype=torch.bool))
    with pytest.raises(ValueError, match=r'masks have shape \[2'):
        matcher.take_masks(5, label, score, torch.zeros(2, 20, 30, dtype=torch.bool))
    with pytest.raises(ValueError, match='its mask has size'):
        matcher.take_masks(5, label, score, [{'size': [30, 20], 'counts': [600]}])


def test_boxes_are_copied(matcher):
    label, score, box = torch.tensor([0]), torch.tensor([.5]), torch.tensor([[0., 0., 10., 10.]])
    candidates = matcher.take_boxes(5, label, score, box)
    for tensor in (label, score, box):
        tensor += 5
    records = matcher.match([candidates])
    assert records.matched[0, 0] == 2**10 - 1
    assert records.score == .5


@pytest.mark.parametrize('coded', [False, True])
def test_masks_are_copied(matcher, coded):
    label, score = torch.tensor([0]), torch.tensor([.5])
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[:, :10, :10] = True
    rles = [mask_api.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8)))]
    candidates = matcher.take_masks(5, label, score, rles if coded else mask)
    mask.logical_not_()
    rles[0]['counts'] = b''
    for tensor in (label, score):
        tensor += 5
    records = matcher.match([candidates])
    assert records.matched[0, 0] == 2**10 - 1
    assert records.score == .5
