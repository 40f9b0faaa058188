"""Matching rules one by one; test_pipeline.py tests equality with COCOeval as a whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation.matching import Pairs, box_iou, cell_pairs, match, rank_detections
from mmtied.evaluation.targets import find_patterns

HALF = torch.tensor([.5], dtype=torch.float64)


def one_cell(ignored, crowd):
    return find_patterns(torch.zeros(len(crowd), dtype=torch.int64), ignored, crowd)


def matched_by(iou, crowd=None, ignored=None, thresholds=HALF):
    """Match detections (rows, best score first) with ground truths (columns) of one cell and one area range."""
    iou = torch.tensor(iou, dtype=torch.float64)
    detection, target = (iou >= .5).nonzero(as_tuple=True)
    crowd = torch.tensor(crowd or [False] * iou.shape[1])
    ignored = torch.tensor(ignored or [False] * iou.shape[1]) | crowd
    found = match(Pairs(detection, target, iou[detection, target]), torch.zeros(len(iou), dtype=torch.int64),
                  torch.zeros(len(iou), 1, dtype=torch.bool), one_cell(ignored[:, None], crowd), thresholds, crowd)
    return found.matched[:, 0].tolist(), found.ignored[:, 0].tolist()


def test_highest_score_matches_first():
    assert matched_by([[.6], [.9]]) == ([1, 0], [0, 0])


def test_second_detection_matches_remaining_ground_truth():
    assert matched_by([[.6, .9], [.5, .8]]) == ([1, 1], [0, 0])
    assert matched_by([[.9, .6], [.8, 0]]) == ([1, 0], [0, 0])


def test_later_ground_truth_wins_ties():
    assert matched_by([[.7, .7], [0, .9], [.9, 0]]) == ([1, 0, 1], [0, 0, 0])


def test_counting_ground_truth_beats_ignored_with_higher_iou():
    assert matched_by([[.9, .6], [.9, .6]], ignored=[True, False]) == ([1, 1], [0, 1])


def test_crowd_matches_repeatedly_ignored_once():
    assert matched_by([[.9], [.9]], crowd=[True]) == ([1, 1], [1, 1])
    assert matched_by([[.9], [.9]], ignored=[True]) == ([1, 0], [1, 0])


def test_one_bit_per_threshold():
    thresholds = torch.tensor([.5, .75, 1.], dtype=torch.float64)
    assert matched_by([[.75]], thresholds=thresholds) == ([0b011], [0])
    assert matched_by([[1.]], thresholds=thresholds) == ([0b111], [0])


def test_unmatched_detection_outside_area_range_is_ignored():
    index = torch.empty(0, dtype=torch.int64)
    found = match(Pairs(index, index, index.double()), torch.zeros(1, dtype=torch.int64), torch.tensor([[True, False]]),
                  one_cell(torch.zeros(0, 2, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)), HALF,
                  torch.zeros(0, dtype=torch.bool))
    assert found.ignored.tolist() == [[1, 0]]


def test_too_many_thresholds():
    with pytest.raises(ValueError, match='16 IoU thresholds'):
        matched_by([[.9]], thresholds=torch.full((16,), .5, dtype=torch.float64))


def test_rank_detections_is_stable():
    order, rank = rank_detections(torch.tensor([5, 5, 5, 2]), torch.tensor([.5, .5, .9, .1]), limit=2)
    assert order.tolist() == [3, 2, 0]
    assert rank.tolist() == [0, 0, 1]


box = st.tuples(*[st.floats(0, 100, width=32)] * 4)


@settings(deadline=None)
@given(box, box, st.booleans())
def test_box_iou_is_bit_equal_to_pycocotools(first, second, crowd):
    expected = mask_api.iou([list(first)], [list(second)], [int(crowd)]).item()
    boxes = torch.tensor([first, second], dtype=torch.float64)
    assert box_iou(boxes[:1], boxes[1:], torch.tensor([crowd])).item() == expected


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12), st.integers(1, 40))
def test_cell_pairs_in_chunks(detections, targets, chunk):
    detections, targets = sorted(detections), sorted(targets)
    parts = list(cell_pairs(torch.tensor(detections, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64), chunk))
    found = [pair for detection, target in parts for pair in zip(detection.tolist(), target.tolist(), strict=True)]
    assert found == [(d, t) for d, a in enumerate(detections) for t, b in enumerate(targets) if a == b]
