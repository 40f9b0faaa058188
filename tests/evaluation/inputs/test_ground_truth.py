"""Read valid and invalid annotation files."""

import atexit
import copy
import gc
import json

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.ground_truth import read_ground_truth

GOOD = dict(images=[dict(id=9, height=20, width=30), dict(id=4, height=10, width=10)],
            categories=[dict(id=8, name='b'), dict(id=3, name='a')],
            annotations=[dict(id=7, image_id=9, category_id=8, bbox=[1, 2, 3.5, 4], area=14, iscrowd=1, segmentation=[]),
                         dict(id=2, image_id=4, category_id=3, bbox=[0, 0, 4, 4], area=16, ignore=1,
                              segmentation=[[0, 0, 4, 0, 4, 4, 0, 4]])])


def test_array_order(tmp_path):
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(GOOD))
    for truth in (read_ground_truth(path), read_ground_truth(GOOD)):
        assert truth.image_ids.tolist() == [4, 9]
        assert truth.image_sizes.tolist() == [[10, 10], [20, 30]]
        assert truth.category_ids.tolist() == [3, 8]
        assert list(truth.category_names) == [8, 3]
        assert truth.image.tolist() == [1, 0]
        assert truth.category.tolist() == [1, 0]
        assert truth.crowd.tolist() == [True, False]  # a missing iscrowd is 0, and ignore has no effect
        assert truth.boxes_xywh.tolist() == [[1, 2, 3.5, 4], [0, 0, 4, 4]]
        assert truth.annotation_ids.tolist() == [7, 2]


def test_reading_leaves_garbage_collection_alone():
    """Otherwise files in reference cycles of the user's might not be flushed when the interpreter exits."""
    before = gc.isenabled(), gc.get_freeze_count(), atexit._ncallbacks()
    read_ground_truth(GOOD)
    assert (gc.isenabled(), gc.get_freeze_count(), atexit._ncallbacks()) == before


def test_no_annotations():
    truth = read_ground_truth({**GOOD, 'annotations': []})
    assert truth.boxes_xywh.shape == (0, 4)


def broken(change):
    data = copy.deepcopy(GOOD)
    change(data)
    return data


@pytest.mark.parametrize(('change', 'message'), [
    (lambda d: d.pop('images'), 'not a COCO instances file'),
    (lambda d: d.update(images=[]), 'lists no images'),
    (lambda d: d.update(annotations={}), 'a list was expected, got dict'),
    (lambda d: d['annotations'].append(5), r'annotations\[2\]: an object was expected, got int'),
    (lambda d: d['annotations'][1].update(image_id=5), r'annotations\[1\]: image id 5 is not in'),
    (lambda d: d['annotations'][1].update(category_id=5), r'annotations\[1\]: category id 5 is not in'),
    (lambda d: d['annotations'][1].update(image_id='nine'), r"annotations\[1\]: image id 'nine' is not in the list of images"),
    (lambda d: d['annotations'][1].update(image_id=None),
     r"annotations\[1\]: the image id must be an integer id or a file name, got None"),
    (lambda d: d['annotations'][1].update(id=7), 'annotations: id 7 is repeated'),
    (lambda d: d['images'][1].update(id=9), 'images: id 9 is repeated'),
    (lambda d: d['categories'][1].update(id=8), 'categories: id 8 is repeated'),
    (lambda d: d['annotations'][1].pop('bbox'), r"annotations\[1\] has no 'bbox'"),
    (lambda d: d['images'][1].pop('width'), r"images\[1\] has no 'width'"),
    (lambda d: d['annotations'][1].update(bbox=[0, 0, -1, 4]), r'annotations\[1\].*sides of at least 0'),
    (lambda d: d['annotations'][1].update(bbox=[0, 0, 1]), r'annotations\[1\].*four finite numbers'),
    (lambda d: d['annotations'][0].update(bbox=[0, 0, float('inf'), 4]), r'annotations\[0\].*four finite numbers'),
    (lambda d: d['annotations'][1].update(area=float('nan')), r"annotations\[1\]: 'area' must be a finite number, got nan"),
    (lambda d: d['annotations'][1].update(area=-1), r"annotations\[1\]: 'area' must be at least 0"),
])
def test_invalid_annotations(change, message):
    with pytest.raises(ValueError, match=message) as error:
        read_ground_truth(broken(change))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'no such file'),
    ('', 'the file is empty'),
    (json.dumps(GOOD)[:-40], 'not complete JSON'),
    ('[1, 2]', 'not a COCO instances file'),
    (b'\xff\xfe\x00', 'not JSON, but binary data'),
])
def test_invalid_files(tmp_path, content, message):
    path = tmp_path / 'instances.json'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f'instances.json.*{message}'):
        read_ground_truth(path)


def test_masks_from_polygons_and_rles():
    mask = np.zeros((10, 10), dtype=np.uint8, order='F')
    mask[:4, :4] = 1
    code = mask_api.encode(mask)
    plain = {'size': [10, 10], 'counts': [0, 4, 6, 4, 6, 4, 6, 4, 66]}
    for segmentation in (GOOD['annotations'][1]['segmentation'], plain, {**code, 'counts': code['counts'].decode()}):
        truth = read_ground_truth(broken(lambda d, s=segmentation: d['annotations'][1].update(segmentation=s)))
        assert (mask_api.decode(truth.rle(1)) == mask).all()
        assert truth.rle(1) is truth.rle(1)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda a: a.pop('segmentation'), "annotation 2 has no 'segmentation'"),
    (lambda a: a.update(segmentation=[]), "annotation 2 has no 'segmentation'"),
    (lambda a: a.update(segmentation=[['a']]), r"has the polygon \['a'\]; x and y of at least three corners"),
    (lambda a: a.update(segmentation={'size': [10, 10]}), 'neither polygons nor a run-length code'),
    (lambda a: a.update(segmentation={'size': [10, 11], 'counts': [110]}), r'size \[10, 11\], its image \[10, 10\]'),
])
def test_invalid_masks_raise_on_use(change, message):
    truth = read_ground_truth(broken(lambda d: change(d['annotations'][1])))
    with pytest.raises(ValueError, match=message):
        truth.rle(1)
