"""One image at a time equals all at once, and dense masks equal run-length codes."""

import numpy as np
import pytest
import torch
from coco_oracle import cases
from hypothesis import HealthCheck, given, settings
from pycocotools import mask as mask_api

from mmtied.evaluation.accumulate import join_records
from mmtied.evaluation.evaluate import match_detections
from mmtied.evaluation.ground_truth import read_ground_truth
from mmtied.evaluation.image_matcher import ImageMatcher
from mmtied.evaluation.results import make_detections

few_cases = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
LIMIT = 100


def predictions_of(results, image_id, ids):
    """Results of an image as a detector's tensors: labels, scores, float64 boxes (xyxy)."""
    here = [entry for entry in results if entry['image_id'] == image_id]
    labels = torch.tensor([ids.index(entry['category_id']) for entry in here], dtype=torch.int64)
    return here, labels, torch.tensor([entry['score'] for entry in here], dtype=torch.float64)


def check_equal(one_by_one, together):
    for name, left, right in zip(together._fields, join_records(one_by_one), together, strict=True):
        assert torch.equal(left, right), name


def matchers(data, results, iou_type):
    ground_truth = read_ground_truth(data)
    ids = [category['id'] for category in data['categories']]  # labels in the file's order, which is not sorted
    matcher = ImageMatcher(ground_truth, ids, LIMIT)
    detections = make_detections(results, ground_truth, iou_type)
    together = match_detections(detections, ground_truth, matcher.targets, matcher.categories, LIMIT)
    return ids, matcher, join_records([together])


@few_cases
@given(cases('bbox'))
def test_boxes_one_image_at_a_time_equal_one_batch(case):
    data, results = case
    for entry in results:  # whole pixels: x + w - x is w again
        entry['bbox'] = [float(round(value)) for value in entry['bbox']]
    ids, matcher, together = matchers(data, results, 'bbox')
    one_by_one = []
    for image in data['images']:
        here, labels, scores = predictions_of(results, image['id'], ids)
        boxes = torch.tensor([entry['bbox'] for entry in here], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        one_by_one.append(matcher.match_boxes(image['id'], labels, scores, boxes))
    check_equal(one_by_one, together)


@few_cases
@given(cases('segm'))
def test_dense_masks_and_codes_of_one_image_equal_one_batch(case):
    data, results = case
    ids, matcher, together = matchers(data, results, 'segm')
    dense, coded = [], []
    for image in data['images']:
        here, labels, scores = predictions_of(results, image['id'], ids)
        rles = [entry['segmentation'] for entry in here]
        masks = np.array([mask_api.decode(rle) for rle in rles]).reshape(-1, image['height'], image['width'])
        dense.append(matcher.match_masks(image['id'], labels, scores, torch.from_numpy(masks).bool()))
        coded.append(matcher.match_masks(image['id'], labels, scores, rles))
    check_equal(dense, together)
    check_equal(coded, together)


@pytest.fixture
def matcher():
    data = dict(images=[dict(id=5, height=20, width=30)], categories=[dict(id=1, name='a')], annotations=[
        dict(id=1, image_id=5, category_id=1, bbox=[0, 0, 10, 10], area=100, segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]])])
    return ImageMatcher(read_ground_truth(data), [1], LIMIT)


def test_unusable_predictions_are_named(matcher):
    label, score, box = torch.tensor([0]), torch.tensor([.5]), torch.tensor([[0., 0., 10., 10.]])
    with pytest.raises(ValueError, match='image id 6, which is not in'):
        matcher.match_boxes(6, label, score, box)
    with pytest.raises(ValueError, match='labels must be from 0 to 0'):
        matcher.match_boxes(5, label + 1, score, box)
    with pytest.raises(ValueError, match='scores must be finite'):
        matcher.match_boxes(5, label, score * torch.nan, box)
    with pytest.raises(ValueError, match='boxes must be finite'):
        matcher.match_boxes(5, label, score, box * torch.inf)
    with pytest.raises(ValueError, match=r'size \[30, 20\], the image \[20, 30\]'):
        matcher.match_masks(5, label, score, torch.zeros(1, 30, 20, dtype=torch.bool))
    with pytest.raises(ValueError, match='its mask has size'):
        matcher.match_masks(5, label, score, [{'size': [30, 20], 'counts': [600]}])
