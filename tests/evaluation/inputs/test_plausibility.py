"""Likely mistakes are reported in one line each, with the option that fixes them."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from mmtied.evaluation import evaluate, image_ratios, read_ground_truth
from mmtied.evaluation.inputs.plausibility import describe_results, describe_unusual, repeated_detections
from mmtied.evaluation.inputs.results import join_detections, make_detections

RNG = np.random.default_rng(0)
COCO = dict(images=[dict(id=number, width=640, height=480) for number in range(10)], annotations=[],
            categories=[dict(id=number, name=f'c{number}') for number in (1, 2, 3)])
for number in range(60):
    start, sides = RNG.uniform(0, [400, 300]), RNG.uniform(20, [230, 170])
    box = [float(value) for value in (*start, *sides)]
    COCO['annotations'].append(dict(id=number + 1, image_id=number % 10, category_id=1 + number % 3, bbox=box, area=1000))
RESULTS = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.5 + entry['id'] / 200)
           for entry in COCO['annotations']]
SMALL = dict(images=[dict(id=number, height=20, width=20) for number in (3, 8)], annotations=[],
            categories=[dict(id=1, name='a'), dict(id=2, name='b')])
SMALL_TRUTH = read_ground_truth(SMALL)
CODES = [{'size': [20, 20], 'counts': [first, 4, 396 - first]} for first in (0, 7)]


def changed(change):
    data = json.loads(json.dumps(COCO))
    for entry in data['annotations']:
        entry['bbox'] = change(*entry['bbox'])
    return data


@pytest.mark.parametrize(('box_format', 'change'), [
    ('xyxy', lambda x, y, w, h: [x, y, x + w, y + h]), ('cxcywh', lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
    ('xywhn', lambda x, y, w, h: [x / 640, y / 480, w / 640, h / 480]),
    ('xyxyn', lambda x, y, w, h: [x / 640, y / 480, (x + w) / 640, (y + h) / 480])])
def test_formats_of_annotations(box_format, change):
    with pytest.warns(UserWarning, match=f'use --annotation-format {box_format} ') as said:
        read_ground_truth(changed(change))
    assert len(said) == 1
    fixed = read_ground_truth(changed(change), box_format=box_format)
    np.testing.assert_allclose(fixed.boxes_xywh, read_ground_truth(COCO).boxes_xywh)


def test_results_on_enlarged_images():
    enlarged = [dict(entry, bbox=[2 * side for side in entry['bbox']]) for entry in RESULTS]
    with pytest.warns(UserWarning, match=r'bbox: \d+ of 60 boxes reach beyond their image by more than a tenth of its side'):
        evaluate(COCO, enlarged)


@pytest.mark.filterwarnings('error::UserWarning')
def test_clean_data_gives_no_warning():
    assert 'notes' not in evaluate(COCO, RESULTS).report or not evaluate(COCO, RESULTS).report['notes']


def test_swapped_sizes():
    data = dict(COCO, images=[dict(image, width=480, height=640) for image in COCO['images']])
    with pytest.warns(UserWarning, match='width and height of the images look swapped.*--swap-sizes'):
        read_ground_truth(data)
    assert read_ground_truth(data, swap_sizes=True).image_sizes[0].tolist() == [480, 640]


def test_regions_and_duplicates_do_not_occlude():
    plain = image_ratios(read_ground_truth(COCO))
    region = dict(id=99, image_id=0, category_id=1, bbox=[0, 0, 640, 480], area=1, iscrowd=0, ignore=1)
    data = dict(COCO, annotations=[*COCO['annotations'], region])
    with pytest.warns(UserWarning, match="1 annotations have 'ignore': 1.*--ignore-key ignore"):
        assert image_ratios(read_ground_truth(data))[0] != plain[0]
    np.testing.assert_array_equal(image_ratios(read_ground_truth(data, ignore_key='ignore')), plain)
    data = dict(COCO, annotations=[*COCO['annotations'], dict(COCO['annotations'][0], id=99)])
    with pytest.warns(UserWarning, match='1 of 61 annotations repeat another one.*--drop-duplicates'):
        read_ground_truth(data)
    with pytest.warns(UserWarning, match='left out'):
        np.testing.assert_array_equal(image_ratios(read_ground_truth(data, drop_duplicates=True)), plain)


def test_shifted_categories_parts_and_limits():
    shifted = [dict(entry, category_id=entry['category_id'] % 3 + 1) for entry in RESULTS]
    with pytest.warns(UserWarning, match='AP50 is 0.0 %, but boxes are good.*shifted by -1: --category-offset -1'):
        evaluate(COCO, shifted)
    part = [entry for entry in RESULTS if entry['image_id'] < 5]
    with pytest.warns(UserWarning, match='5 of 10 images with objects have none.*--only-images-with-results'):
        assert evaluate(COCO, part).report['bbox']['all']['AP'] < .6
    with pytest.warns(UserWarning, match='only the 5 of 10 images'):
        assert evaluate(COCO, part, only_images_with_results=True).report['bbox']['all']['AP'] == pytest.approx(1)
    with pytest.warns(UserWarning, match='more than 1 detections of a category.*--proposal-nums 1 10 2'):
        evaluate(COCO, RESULTS, proposal_nums=(1, ))


@pytest.mark.parametrize('name', ['ignored regions', 'ignored-regions', 'Ignore', 'DontCare'])
def test_categories_of_regions(name):
    region = dict(id=99, image_id=0, category_id=0, bbox=[0, 0, 640, 480], area=1, iscrowd=0)
    data = dict(COCO, categories=[*COCO['categories'], dict(id=0, name=name)], annotations=[*COCO['annotations'], region])
    with pytest.warns(UserWarning, match=f"1 of 61 annotations are of category '{name}'.*--ignore-categories '{name}'"):
        read_ground_truth(data)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_ground_truth(data, ignore_categories=[name])
        read_ground_truth(dict(data, annotations=[*COCO['annotations'], dict(region, iscrowd=1)]))


def draw_results(iou_type, num=200, seed=0):
    """Draw detections that often agree in all but one of image, category, score and shape."""
    rng = np.random.default_rng(seed)
    shape = (lambda: dict(bbox=[*rng.integers(0, 2, 2).tolist(), 4, 4])) if iou_type == 'bbox' else (
        lambda: dict(segmentation=CODES[rng.integers(2)]))
    return [dict(image_id=int(rng.choice([3, 8])), category_id=int(rng.integers(1, 3)), score=float(rng.integers(1, 6) / 5),
                 **shape()) for _ in range(num)]


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_duplicates_match_plain_search(iou_type):
    entries = draw_results(iou_type)
    expected = [number for number, entry in enumerate(entries) if entry in entries[:number]]
    assert 0 < len(expected) < len(entries)
    assert repeated_detections(make_detections(entries, SMALL_TRUTH, iou_type)).tolist() == expected


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_warns_of_duplicates(iou_type):
    found = draw_results(iou_type)
    entries = [entry for number, entry in enumerate(found) if entry not in found[:number]]
    once = make_detections(entries, SMALL_TRUTH, iou_type)
    assert describe_unusual(once, SMALL_TRUTH) == []
    line, = describe_unusual(join_detections([once, once]), SMALL_TRUTH)
    assert line.startswith(f'{len(entries)} of {2 * len(entries)} detections repeat another one')
    assert f'for example in image id {entries[0]["image_id"]}' in line
    nothing = make_detections([], SMALL_TRUTH, iou_type)
    assert describe_unusual(nothing, SMALL_TRUTH) == []


def test_warns_of_inverted_boxes():
    entries = [dict(image_id=image_id, category_id=1, score=.5 + .1 * image_id / 8, bbox=[4., 4., 2., 2.]) for image_id in (8, 3)]
    detections = make_detections(entries, SMALL_TRUTH, 'bbox')
    sides = detections.boxes_xywh.copy()
    sides[0, 3] = -2
    line, = describe_unusual(replace(detections, boxes_xywh=sides), SMALL_TRUTH)
    assert line.startswith('predicted boxes of image id 8 have x2 < x1 or y2 < y1; as in pycocotools they match nothing')


def boxes_in(size, num=200, seed=0):
    """Draw boxes inside images of a size, as xywh and as xyxy."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, size, (num, 2, 2)), axis=1)
    xyxy = corners.reshape(num, 4)
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1), xyxy


def test_recognizes_boxes_in_another_format():
    sizes = np.tile([480, 640], (200, 1))  # height and width
    xywh, xyxy = boxes_in((640, 480))
    assert describe_results(xywh, sizes) is None
    line = describe_results(xyxy, sizes)
    assert line.endswith("200 fit as x1, y1, x2, y2; if that is their format, use box_format='xyxy' (--box-format xyxy)")
    assert 'of 200 boxes leave their image as x, y, width, height' in line
    read_as_xyxy = np.concatenate([xywh[:, :2], xywh[:, 2:] - xywh[:, :2]], axis=1)
    assert describe_results(read_as_xyxy, sizes).endswith("fit as x, y, width, height; if that is their format, use "
                                                          "box_format='xywh' (--box-format xywh)")


def test_recognizes_unclipped_boxes_in_another_format():
    sizes = np.tile([480, 640], (200, 1))
    _, xyxy = boxes_in((640, 480))
    xyxy[:30, 2:] += 20  # YOLOv2 leaves some 13 % of its boxes like this
    xyxy[:30, :2] -= 20
    assert "box_format='xyxy'" in describe_results(xyxy, sizes)


def test_boxes_beyond_the_image_are_not_taken_for_another_format():
    """A detector that does not clip its boxes, and one whose boxes are larger than the image."""
    sizes = np.tile([480, 640], (200, 1))
    xywh, _ = boxes_in((640, 480))
    assert describe_results(xywh + [20, 20, 30, 30], sizes) is None
    line = describe_results(xywh * 4, sizes)
    assert 'reach beyond their image' in line and 'box_format' not in line
    assert describe_results(xywh[:0], sizes[:0]) is None
