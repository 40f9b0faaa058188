"""Likely mistakes are reported in one line each, with the option that fixes them."""

import json
import warnings

import numpy as np
import pytest

from mmtied.evaluation import evaluate, image_ratios, read_ground_truth

RNG = np.random.default_rng(0)
COCO = dict(images=[dict(id=number, width=640, height=480) for number in range(10)], annotations=[],
            categories=[dict(id=number, name=f'c{number}') for number in (1, 2, 3)])
for number in range(60):
    start, sides = RNG.uniform(0, [400, 300]), RNG.uniform(20, [230, 170])
    box = [float(value) for value in (*start, *sides)]
    COCO['annotations'].append(dict(id=number + 1, image_id=number % 10, category_id=1 + number % 3, bbox=box, area=1000))
RESULTS = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.5 + entry['id'] / 200)
           for entry in COCO['annotations']]


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
    mended = read_ground_truth(changed(change), box_format=box_format)
    np.testing.assert_allclose(mended.boxes_xywh, read_ground_truth(COCO).boxes_xywh)


def test_results_on_enlarged_images():
    enlarged = [dict(entry, bbox=[2 * side for side in entry['bbox']]) for entry in RESULTS]
    with pytest.warns(UserWarning, match=r'bbox: \d+ of 60 boxes reach beyond their image by more than a tenth of its side'):
        evaluate(COCO, enlarged)


@pytest.mark.filterwarnings('error::UserWarning')
def test_clean_data_gives_none():
    assert 'notes' not in evaluate(COCO, RESULTS).report or not evaluate(COCO, RESULTS).report['notes']


def test_exchanged_sizes():
    data = dict(COCO, images=[dict(image, width=480, height=640) for image in COCO['images']])
    with pytest.warns(UserWarning, match='width and height of the images look swapped.*--swap-sizes'):
        read_ground_truth(data)
    assert read_ground_truth(data, swap_sizes=True).image_sizes[0].tolist() == [480, 640]


def test_regions_and_repeats_do_not_occlude():
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
def test_categories_that_are_no_objects(name):
    region = dict(id=99, image_id=0, category_id=0, bbox=[0, 0, 640, 480], area=1, iscrowd=0)
    data = dict(COCO, categories=[*COCO['categories'], dict(id=0, name=name)], annotations=[*COCO['annotations'], region])
    with pytest.warns(UserWarning, match=f"1 of 61 annotations are of category '{name}'.*--ignore-categories '{name}'"):
        read_ground_truth(data)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_ground_truth(data, ignore_categories=[name])
        read_ground_truth(dict(data, annotations=[*COCO['annotations'], dict(region, iscrowd=1)]))
