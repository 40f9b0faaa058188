"""Read valid and invalid results files."""

import json

import numpy as np
import pytest

from mmtied.evaluation.inputs import load_detections
from mmtied.evaluation.inputs.dumps import dump_detections
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import ResultReading, held_iou_types, join_detections, make_detections

TRUTH = read_ground_truth(dict(images=[dict(id=9, height=20, width=30)], categories=[dict(id=8, name='b')], annotations=[]))
BOX = dict(image_id=9, category_id=8, score=.5, bbox=[1, 2, 3, 4])
MASK = dict(image_id=9, category_id=8, score=.5, segmentation={'size': [20, 30], 'counts': [0, 7, 593]})


def test_box_and_mask_areas():
    assert make_detections([BOX], TRUTH, 'bbox').area.tolist() == [12]
    assert make_detections([MASK], TRUTH, 'segm').area.tolist() == [7]
    assert make_detections([MASK | BOX], TRUTH, 'segm').area.tolist() == [7]


def test_more_than_255_masks():
    assert make_detections([MASK] * 300, TRUTH, 'segm').area.tolist() == [7] * 300


def test_available_iou_types():
    assert held_iou_types([BOX]) == ('bbox',)
    assert held_iou_types([MASK]) == ('segm',)
    assert held_iou_types([MASK | BOX]) == ('bbox', 'segm')
    assert held_iou_types([MASK | {'bbox': []}]) == ('segm',)
    assert held_iou_types([]) == ()


def test_concatenation_keeps_order():
    one, two = make_detections([BOX], TRUTH, 'bbox'), make_detections([BOX | {'score': .1}], TRUTH, 'bbox')
    both = join_detections([one, two])
    assert both.score.tolist() == [.5, .1]
    assert both.boxes_xywh.shape == (2, 4)


@pytest.mark.parametrize(('iou_type', 'change', 'message'), [
    ('bbox', dict(image_id=7), r'results\[1\]: image id 7 is not in the annotation file'),
    ('bbox', dict(image_id=4.5), r'results\[1\]: the image id must be an integer id or a file name, got 4.5; '),
    ('bbox', dict(image_id=[9]), r'results\[1\]: the image id must be an integer id or a file name, got \[9\]; '),
    ('bbox', dict(category_id=7), r'results\[1\]: category id 7 is not in the annotation file'),
    ('bbox', dict(score=float('nan')), r"results\[1\]: 'score' must be a finite number, got nan"),
    ('bbox', dict(score=float('inf')), r"results\[1\]: 'score' must be a finite number"),
    ('bbox', dict(score='high'), r"results\[1\]: 'score' must be a finite number"),
    ('bbox', dict(bbox=[0, 0, 3, -1]), r'results\[1\].*sides of at least 0'),
    ('bbox', dict(bbox=None), r"results\[1\] has no 'bbox', which bbox needs"),
    ('segm', dict(segmentation=None), r"results\[1\] has no 'segmentation', which segm needs"),
    ('segm', dict(segmentation={'size': [30, 20], 'counts': [600]}), r'results\[1\]: its mask has size \[30, 20\]'),
    ('segm', dict(segmentation={'size': [20, 30], 'counts': 5}), r'results\[1\]: its segmentation is neither'),
])
def test_invalid_results(iou_type, change, message):
    entries = [BOX | MASK, BOX | MASK | change]
    with pytest.raises(ValueError, match=message) as error:
        make_detections(entries, TRUTH, iou_type)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'no such file'),
    ('', 'is empty'),
    (json.dumps([BOX])[:-5], 'not complete JSON'),
    (json.dumps({'info': []}), 'a list was expected, or a dict with one under annotations, .* got a dict with info'),
    ('[1]', 'an object was expected'),
    ('[{"image_id": 1, "category_id": 1}]', "has no 'score'"),
])
def test_invalid_files(tmp_path, content, message):
    path = tmp_path / 'results.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f'results.json.*{message}'):
        load_detections(path, TRUTH)


@pytest.mark.parametrize('reading', [dict(classes=['b']), dict(label_names=['b'])])
@pytest.mark.parametrize(('iou_type', 'change'), [
    ('bbox', dict(image_id=7)), ('bbox', dict(score=None)), ('bbox', dict(bbox=[0, 0, -1, 1])), ('bbox', dict(bbox=[])),
    ('segm', dict(segmentation={'size': [20, 30], 'counts': 'a'})), ('segm', dict(segmentation={'size': [9, 9], 'counts': [81]})),
])
def test_faults_of_other_classes_do_not_count(reading, iou_type, change):
    notes = []
    found = make_detections([BOX | MASK, BOX | MASK | change | {'category_id': 7}], TRUTH, iou_type,
                            reading=ResultReading(**reading), notes=notes)
    assert found.score.tolist() == [.5]
    assert notes == ['1 of 2 detections are of categories that the annotations do not have, and are left out']
    with pytest.raises(ValueError, match=r'results\[1\]'):
        make_detections([BOX | MASK, BOX | MASK | change], TRUTH, iou_type, reading=ResultReading(**reading))


def test_other_classes_alone_are_refused_where_none_has_a_box():
    with pytest.raises(ValueError, match="has no 'bbox', which bbox needs; 2 of 2 entries cannot be used"):
        make_detections([MASK | {'category_id': 7}] * 2, TRUTH, 'bbox', reading=ResultReading(['b']))


def test_dumped_faults_of_other_classes_do_not_count():
    image = dict(img_id=9, pred_instances=dict(bboxes=np.array([[0, 0, 1, 1], [0, 0, np.inf, 1]]), scores=np.array([.5, .6]),
                                               labels=np.array([1, 0])))
    found = dump_detections([image], TRUTH, 'bbox', reading=ResultReading(label_names=['a', 'b'], skip_invalid=True))
    assert found.score.tolist() == [.5]
    notes = []
    dump_detections([image], TRUTH, 'bbox', reading=ResultReading(label_names=['a', 'b'], skip_invalid=True), notes=notes)
    assert notes == ['1 of 2 detections are of categories that the annotations do not have, and are left out']


@pytest.mark.parametrize(('num', 'message'), [
    (1, "results[1]: image id 7 is not in the annotation file; expected an id such as 9; --skip-invalid (skip_invalid=True) "
        'leaves it out'),
    (5, "results[1]: image id 7 is not in the annotation file; expected an id such as 9; 5 of 6 entries cannot be used, such as "
        '[1], [2], [3]; --skip-invalid (skip_invalid=True) leaves them out'),
])
def test_faults_are_explained_once(num, message):
    with pytest.raises(ValueError) as error:
        make_detections([BOX, *[BOX | {'image_id': 7}] * num], TRUTH, 'bbox')
    assert str(error.value) == message


@pytest.mark.parametrize(('num', 'note'), [
    (1, '1 of 2 entries of results cannot be used and is left out (skip_invalid): results[1]: image id 7 is not'),
    (2, '2 of 3 entries of results cannot be used and are left out (skip_invalid), the first: results[1]: image id 7 is not'),
])
def test_note_of_what_is_left_out(num, note):
    notes = []
    make_detections([BOX, *[BOX | {'image_id': 7}] * num], TRUTH, 'bbox', reading=ResultReading(skip_invalid=True), notes=notes)
    assert notes[0].startswith(note)
