"""`load_detections`: the same detections in every format give the same arrays."""

import json
import pickle
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from mmtied.evaluation.inputs import load_detections, read_ground_truth

DATA = dict(images=[dict(id=4, height=20, width=30), dict(id=9, height=20, width=30)], annotations=[],
            categories=[dict(id=18, name='dog'), dict(id=1, name='person'), dict(id=17, name='cat')])
TRUTH = read_ground_truth(DATA)


def by_image(seed=0):
    """Return predictions with masks for two images, as float32 tensors."""
    rng = np.random.default_rng(seed)
    entries = []
    for image_id, num in ((9, 3), (4, 2)):
        low = torch.tensor(rng.integers(0, 8, (num, 2)))
        masks = torch.zeros(num, 20, 30, dtype=torch.bool)
        for mask, (x, y) in zip(masks, low.tolist(), strict=True):
            mask[y:y + 5, x:x + 7] = True
        entries.append(dict(image_id=image_id, boxes=torch.cat([low, low + 6], 1).float(), scores=torch.tensor(rng.random(num)),
                            labels=torch.tensor(rng.integers(0, 3, num)), masks=masks))
    return entries


def encode(mask):
    code = mask_api.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {**code, 'counts': code['counts'].decode()}


def coco_results(entries, keys):
    """Return the predictions in COCO's results format."""
    ids = [category['id'] for category in DATA['categories']]
    rows = []
    for entry in entries:
        for box, score, label, mask in zip(entry['boxes'].tolist(), entry['scores'].tolist(), entry['labels'].tolist(),
                                           entry['masks'], strict=True):
            row = dict(image_id=entry['image_id'], category_id=ids[label], score=score,
                       bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]], segmentation=encode(mask))
            rows.append({key: value for key, value in row.items() if key in ('image_id', 'category_id', 'score', *keys)})
    return rows


def dump(entries):
    """Return the predictions in the format that mmdet dumps."""
    return [dict(img_id=entry['image_id'], pred_instances=dict(bboxes=entry['boxes'], scores=entry['scores'],
                                                               labels=entry['labels'], masks=list(map(encode, entry['masks']))))
            for entry in entries]


def assert_equal(found, expected):
    assert found.keys() == expected.keys() == {'bbox', 'segm'}
    for iou_type in found:
        for field in fields(expected[iou_type]):
            ours, theirs = (getattr(one[iou_type], field.name) for one in (found, expected))
            if field.name == 'rles' and theirs is not None:
                ours, theirs = ([mask_api.decode(rle).tolist() for rle in rles] for rles in (ours, theirs))
            np.testing.assert_array_equal(ours, theirs, field.name)


@pytest.mark.parametrize('kind', ['file', 'two files', 'dump file', 'dump', 'tensors', 'arrays', 'lists', 'category ids'])
def test_formats_agree(tmp_path, kind):
    entries = by_image()
    ids = np.array([category['id'] for category in DATA['categories']])
    paths = [tmp_path / 'bbox.json', tmp_path / 'segm.json', tmp_path / 'both.json', tmp_path / 'predictions.pkl']
    paths[0].write_text(json.dumps(coco_results(entries, ['bbox'])))
    paths[1].write_text(json.dumps(coco_results(entries, ['bbox', 'segmentation'])))
    paths[2].write_text(json.dumps(coco_results(entries, ['bbox', 'segmentation'])))
    paths[3].write_bytes(pickle.dumps(dump(entries)))
    arrays = [{key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in entry.items()}
              for entry in entries]
    given = {
        'file': str(paths[2]), 'two files': paths[:2], 'dump file': paths[3], 'dump': dump(entries), 'tensors': entries,
        'arrays': arrays, 'lists': [{key: value.tolist() if key != 'masks' and key != 'image_id' else value
                                     for key, value in entry.items()} for entry in arrays],
        'category ids': [{**{key: value for key, value in entry.items() if key != 'labels'}, 'category_ids': ids[entry['labels']]}
                         for entry in arrays],
    }[kind]
    assert_equal(load_detections(given, TRUTH), load_detections(coco_results(entries, ['bbox', 'segmentation']), TRUTH))


def test_boxes_without_masks():
    entries = [{key: value for key, value in entry.items() if key != 'masks'} for entry in by_image()]
    assert list(load_detections(entries, TRUTH)) == ['bbox']
    assert list(load_detections([], TRUTH)) == ['bbox']


@pytest.mark.parametrize(('detections', 'message'), [
    (5, 'detections: expected a file, a list of files or a list of dicts, got int'),
    ([dict(image_id=4, scores=torch.ones(1), boxes=torch.zeros(1, 4))],
     r"detections\[0\]: expected either 'labels' or 'category_ids'"),
    ([dict(scores=torch.ones(1))], "has no 'image_id'"),
    ([dict(image_id=4, scores=torch.ones(1), labels=torch.ones(1), boxes=torch.zeros(1, 4))], "'labels' must be .* integers"),
    ([dict(image_id=4, scores=torch.ones(1), category_ids=torch.tensor([5]),
           boxes=torch.zeros(1, 4))], 'category id 5 is not in'),
])
def test_invalid_detections(detections, message):
    with pytest.raises(ValueError, match=message) as error:
        load_detections(detections, TRUTH)
    assert '\n' not in str(error.value)


def test_ground_truth_from_pycocotools(tmp_path):
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(DATA))
    truth = read_ground_truth(COCO(str(path)))
    assert truth.image_ids.tolist() == [4, 9]
    assert read_ground_truth(truth) is truth


@pytest.mark.parametrize('name', ['results.json', 'results.pkl'])
def test_folder_in_place_of_a_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f'{name}: is a folder, expected a file'):
        load_detections(tmp_path / name, TRUTH)


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(boxes=np.zeros((1, 5))), r"'boxes' must be an array or tensor of numbers of shape \(1, 4\), got shape \(1, 5\)"),
    (dict(image_id='four'), r"detections\[0\]: image id 'four' is not in the annotation file; expected an id such as 4"),
    *((dict(image_id=value), rf'detections\[0\]: the image id must be an integer id or a file name, got {re.escape(str(value))};')
      for value in (4.5, None, [1], True)),
])
def test_messages_have_the_keys_of_images(changes, message):
    with pytest.raises(ValueError, match=message):
        load_detections([dict(image_id=4, boxes=np.zeros((1, 4)), scores=[.5], labels=[0]) | changes], TRUTH)


RESULTS = coco_results(by_image(), ['bbox', 'segmentation'])


@pytest.mark.parametrize('key', ['annotations', 'results', 'predictions', 'detections'])
@pytest.mark.parametrize('in_file', [True, False])
def test_results_inside_a_dict(tmp_path, key, in_file):
    (tmp_path / 'results.json').write_text(json.dumps({'info': {}, key: RESULTS}))
    given = tmp_path / 'results.json' if in_file else {'info': {}, key: RESULTS}
    assert_equal(load_detections(given, TRUTH), load_detections(RESULTS, TRUTH))


def test_results_of_load_res():
    """loadRes derives polygons from boxes and boxes from masks; box results stay box results."""
    coco = COCO()
    coco.dataset = DATA
    coco.createIndex()
    plain = coco_results(by_image(), ['bbox'])
    found = load_detections(coco.loadRes([dict(row) for row in plain]), TRUTH)
    assert list(found) == ['bbox']
    np.testing.assert_array_equal(found['bbox'].boxes_xywh, load_detections(plain, TRUTH)['bbox'].boxes_xywh)
    masks = [dict(row) for row in RESULTS]
    assert_equal(load_detections(coco.loadRes(masks), TRUTH), load_detections(RESULTS, TRUTH))


def test_numpy_values_in_results():
    """NumPy's ids, scores and boxes, in any mixture with Python's."""
    rows = [dict(row, image_id=np.int64(row['image_id']), category_id=np.int32(row['category_id']),
                 score=np.float64(row['score']),
                 bbox=np.array(row['bbox']) if number % 2 else [np.float32(side) for side in row['bbox']])
            for number, row in enumerate(RESULTS)]
    assert_equal(load_detections(rows, TRUTH), load_detections(RESULTS, TRUTH))
    with pytest.raises(ValueError, match=r"detections\[1\] has no 'bbox'"):
        load_detections([rows[0], dict(rows[1], bbox=np.array([]))], TRUTH, ['bbox'])


def as_xyxy(rows):
    return [dict(row, bbox=[*row['bbox'][:2], row['bbox'][0] + row['bbox'][2], row['bbox'][1] + row['bbox'][3]]) for row in rows]


def test_box_formats(tmp_path):
    expected = load_detections(RESULTS, TRUTH)
    assert_equal(load_detections(as_xyxy(RESULTS), TRUTH, box_format='xyxy'), expected)
    (tmp_path / 'results.json').write_text(json.dumps(as_xyxy(RESULTS)))
    assert_equal(load_detections(tmp_path / 'results.json', TRUTH, box_format='xyxy'), expected)
    images = by_image()
    for entry in images:
        entry['boxes'][:, 2:] -= entry['boxes'][:, :2]
    assert_equal(load_detections(images, TRUTH, box_format='xywh'), expected)
    with pytest.raises(ValueError, match="box_format: expected 'xywh' or 'xyxy' or 'cxcywh' or .*, got 'yxyx'"):
        load_detections(RESULTS, TRUTH, box_format='yxyx')
    with pytest.raises(ValueError, match=r"detections\[0\]: 'bbox' must have sides of at least 0, got \[9, 0, 3, 4\]"):
        load_detections([dict(RESULTS[0], bbox=[9, 0, 3, 4])], TRUTH, ['bbox'], box_format='xyxy')


NAMES = {4: 'val/000000000139.jpg', 9: 'val/b.c.png'}
NAMED = read_ground_truth(dict(DATA, images=[dict(image, file_name=NAMES[image['id']]) for image in DATA['images']]))


@pytest.mark.parametrize('names', [{4: 'val/000000000139.jpg', 9: 'val/b.c.png'}, {4: '000000000139.jpg', 9: 'b.c.png'},
                                   {4: '000000000139', 9: 'b.c'}])
@pytest.mark.parametrize('by', ['detection', 'image'])
def test_image_ids_that_are_file_names(names, by):
    entries = RESULTS if by == 'detection' else by_image()
    given = [dict(entry, image_id=names[entry['image_id']]) for entry in entries]
    with pytest.warns(UserWarning, match=f"^detections: image ids such as '{names[9]}' were looked up among the file") as said:
        found = load_detections(given, NAMED)
    assert len(said) == 1
    assert_equal(found, load_detections(entries, NAMED))


@pytest.mark.filterwarnings('error::UserWarning')
def test_image_ids_in_digits():
    given = [dict(row, image_id=f'{row["image_id"]:06}') for row in RESULTS]
    assert_equal(load_detections(given, TRUTH), load_detections(RESULTS, TRUTH))


def test_file_names_that_several_images_have():
    truth = read_ground_truth(dict(DATA, images=[dict(image, file_name=f'{image["id"]}/a.jpg') for image in DATA['images']]))
    with pytest.raises(ValueError, match="image id 'a' is the file name of several images of the annotation file; expected an "
                                         "id; "
                                         "5 of 5 entries cannot be used, such as .0., .1., .2.; --skip-invalid"):
        load_detections([dict(row, image_id='a') for row in RESULTS], truth)
    with pytest.warns(UserWarning, match='looked up'):
        load_detections([dict(row, image_id=f'{row["image_id"]}/a.jpg') for row in RESULTS], truth)
