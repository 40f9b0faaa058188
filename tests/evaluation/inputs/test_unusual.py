from dataclasses import replace

import numpy as np
import pytest

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.plausibility import describe_results, describe_unusual, repeated_detections
from mmtied.evaluation.inputs.results import join_detections, make_detections

DATA = dict(images=[dict(id=number, height=20, width=20) for number in (3, 8)], annotations=[],
            categories=[dict(id=1, name='a'), dict(id=2, name='b')])
TRUTH = read_ground_truth(DATA)
CODES = [{'size': [20, 20], 'counts': [first, 4, 396 - first]} for first in (0, 7)]


def results(iou_type, num=200, seed=0):
    """Draw detections that often agree in all but one of image, category, score and shape."""
    rng = np.random.default_rng(seed)
    shape = (lambda: dict(bbox=[*rng.integers(0, 2, 2).tolist(), 4, 4])) if iou_type == 'bbox' else (
        lambda: dict(segmentation=CODES[rng.integers(2)]))
    return [dict(image_id=int(rng.choice([3, 8])), category_id=int(rng.integers(1, 3)), score=float(rng.integers(1, 6) / 5),
                 **shape()) for _ in range(num)]


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_duplicates_match_plain_search(iou_type):
    entries = results(iou_type)
    expected = [number for number, entry in enumerate(entries) if entry in entries[:number]]
    assert 0 < len(expected) < len(entries)
    assert repeated_detections(make_detections(entries, TRUTH, iou_type)).tolist() == expected


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_warns_of_duplicates(iou_type):
    found = results(iou_type)
    entries = [entry for number, entry in enumerate(found) if entry not in found[:number]]
    once = make_detections(entries, TRUTH, iou_type)
    assert describe_unusual(once, TRUTH) == []
    line, = describe_unusual(join_detections([once, once]), TRUTH)
    assert line.startswith(f'{len(entries)} of {2 * len(entries)} detections repeat another one')
    assert f'for example in image id {entries[0]["image_id"]}' in line
    nothing = make_detections([], TRUTH, iou_type)
    assert describe_unusual(nothing, TRUTH) == []


def test_warns_of_inverted_boxes():
    entries = [dict(image_id=image_id, category_id=1, score=.5 + .1 * image_id / 8, bbox=[4., 4., 2., 2.]) for image_id in (8, 3)]
    detections = make_detections(entries, TRUTH, 'bbox')
    sides = detections.boxes_xywh.copy()
    sides[0, 3] = -2
    line, = describe_unusual(replace(detections, boxes_xywh=sides), TRUTH)
    assert line.startswith('predicted boxes of image id 8 have x2 < x1 or y2 < y1; as in pycocotools they match nothing')


def boxes_in(size, num=200, seed=0):
    """Draw boxes inside images of a size, as xywh and as xyxy."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, size, (num, 2, 2)), axis=1)
    xyxy = corners.reshape(num, 4)
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1), xyxy


def test_recognizes_boxes_in_the_other_format():
    sizes = np.tile([480, 640], (200, 1))  # height and width
    xywh, xyxy = boxes_in((640, 480))
    assert describe_results(xywh, sizes) is None
    line = describe_results(xyxy, sizes)
    assert line.endswith("200 fit as x1, y1, x2, y2; if that is their format, use box_format='xyxy' (--box-format xyxy)")
    assert 'of 200 boxes leave their image as x, y, width, height' in line
    read_as_xyxy = np.concatenate([xywh[:, :2], xywh[:, 2:] - xywh[:, :2]], axis=1)
    assert describe_results(read_as_xyxy, sizes).endswith("fit as x, y, width, height; if that is their format, use "
                                                          "box_format='xywh' (--box-format xywh)")


def test_boxes_over_the_edge_are_no_other_format():
    """A detector that does not clip its boxes, and one whose boxes are larger than the image."""
    sizes = np.tile([480, 640], (200, 1))
    xywh, _ = boxes_in((640, 480))
    assert describe_results(xywh + [20, 20, 30, 30], sizes) is None
    line = describe_results(xywh * 4, sizes)
    assert 'reach beyond their image' in line and 'box_format' not in line
    assert describe_results(xywh[:0], sizes[:0]) is None
