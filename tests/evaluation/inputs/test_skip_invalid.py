"""Invalid records among valid ones, in every layout: refused with their count and location, or left out and reported."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmtied.evaluation import evaluate
from mmtied.evaluation.inputs import load_detections, read_ground_truth
from tests.helpers.layouts import (
    BOXES,
    COCO,
    HEIGHT,
    ODGT,
    RESULTS,
    WIDTH,
    append,
    by_image,
    write_cvat,
    write_datumaro,
    write_inferencer,
    write_label_studio,
    write_lines,
    write_middle,
    write_voc,
    write_voc_results,
    write_yolo,
    write_yolo_results,
)


def broken_voc(folder):
    """An object without a box, and a truncated file."""
    write_voc(folder)
    path = folder / 'Annotations/img_a.xml'
    path.write_text(path.read_text().replace('</annotation>', '<object><name>cat</name></object></annotation>'))
    (folder / 'Annotations/img_c.xml').write_text('<annotation><filename>img_c.jpg</file')
    return folder


def broken_yolo(folder):
    """Lines that are not objects, a class without a name, and a file without an image."""
    write_yolo(folder)
    append(folder / 'labels/img_a.txt', '0 0.5\n7 0.5 0.5 0.1 0.1\n')
    (folder / 'labels/img_z.txt').write_text('0 0.5 0.5 0.1 0.1\n')
    return folder


def broken_middle(folder):
    path = write_middle(folder)
    data = json.loads(path.read_text())
    data['data_list'][0]['instances'].append(dict(bbox=[1, 2], bbox_label=0))
    data['data_list'].append(dict(img_path='c.jpg'))
    path.write_text(json.dumps(data))
    return path


def broken_datumaro(folder):
    path = write_datumaro(folder)
    data = json.loads(path.read_text())
    data['items'][0]['annotations'] += [dict(type='bbox', label_id=9, bbox=[0, 0, 5, 5]), dict(type='bbox', label_id=0)]
    path.write_text(json.dumps(data))
    return path


def broken_label_studio(folder):
    path = write_label_studio(folder)
    tasks = json.loads(path.read_text())
    shape = tasks[0]['annotations'][0]['result'][0]
    tasks[0]['annotations'][0]['result'].append(dict(shape, value=dict(x=1, width='wide', rectanglelabels=['cat'])))
    path.write_text(json.dumps([*tasks, dict(id=3, annotations=tasks[0]['annotations'])]))
    return path


def broken_cvat(folder):
    path = write_cvat(folder)
    path.write_text(path.read_text().replace('</image>', '<box label="cat" xtl="left"></box></image>', 1))
    return path


@pytest.mark.filterwarnings('ignore:.*neither boxes nor polygons')
@pytest.mark.parametrize(('write', 'num'), [(broken_voc, 2), (broken_yolo, 3), (broken_middle, 2), (broken_datumaro, 2),
                                            (broken_label_studio, 2), (broken_cvat, 1)])
def test_annotations(tmp_path, write, num):
    path = write(tmp_path)
    with pytest.raises(ValueError, match='--skip-invalid' if write is not broken_yolo else '1 of 3 label files') as error:
        read_ground_truth(path)
    assert '\n' not in str(error.value) and str(tmp_path) in str(error.value)
    with pytest.warns(UserWarning, match=f'{num} records? of .* cannot be used and'):
        truth = read_ground_truth(path, skip_invalid=True)
    np.testing.assert_allclose(truth.boxes_xywh, [box for *_, box in BOXES])
    assert any(f'{num} record' in note for note in truth.notes)


def test_crowdhuman(tmp_path):
    box = dict(tag='person', fbox=[1, 2, 3, 4], extra={})
    lines = [dict(ODGT[0], ID=name, height=HEIGHT, width=WIDTH) for name in 'ab']
    lines[0] = dict(lines[0], gtboxes=[*ODGT[0]['gtboxes'], dict(box, fbox=[1, 2]), dict(box, fbox=[1, 'x', 3, 4])])
    text = '\n'.join([*map(json.dumps, lines), '{"ID": "c"}', '{"ID": "d", "gtb'])
    (tmp_path / 'a.odgt').write_text(text)
    with pytest.raises(ValueError, match=r"line 4 is not complete JSON .*; .*line 1: image a: expected 'fbox': .*; 4 records "
                                         r'cannot be used; --skip-invalid'):
        read_ground_truth(tmp_path / 'a.odgt')
    with pytest.warns(UserWarning, match='4 records of'):
        truth = read_ground_truth(tmp_path / 'a.odgt', skip_invalid=True)
    assert truth.image_ids.tolist() == ['a', 'b'] and len(truth.image) == 2 * len(ODGT[0]['gtboxes'])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for stem in 'ab':
        Image.new('RGB', (WIDTH, HEIGHT)).save(folder / f'{stem}.jpg')
    return folder


def test_visdrone(tmp_path, pictures):
    for name in ('annotations', 'found'):
        (tmp_path / name).mkdir()
    line = '10,20,30,40,{},4,0,0\n'
    for folder, score in (('annotations', 1), ('found', .5)):
        (tmp_path / folder / 'a.txt').write_text(line.format(score) + '1,2,3\n')
    (tmp_path / 'annotations/z.txt').write_text(line.format(1))
    with pytest.raises(ValueError, match='1 of 2 text files have no image'):
        read_ground_truth(tmp_path)
    with pytest.warns(UserWarning, match='2 records of'):
        truth = read_ground_truth(tmp_path, skip_invalid=True)
    assert truth.image_ids.tolist() == ['a'] and truth.boxes_xywh.tolist() == [[10, 20, 30, 40]]
    with pytest.raises(ValueError, match="a.txt: line 2: expected left,top.* got '1,2,3'; --skip-invalid .* leaves it out"):
        load_detections(tmp_path / 'found', truth)
    with pytest.warns(UserWarning, match='1 record of .* is left out'):
        assert load_detections(tmp_path / 'found', truth, skip_invalid=True)['bbox'].score.tolist() == [.5]


def test_open_images(tmp_path, pictures):
    rows = ['ImageID,LabelName,XMin,XMax,YMin,YMax', 'a,/m/1,0.1,0.3,0.2,0.6', 'a,/m/1,left,0.3,0.2,0.6', 'z,/m/1,0,1,0,1']
    (tmp_path / 'boxes.csv').write_text('\n'.join(rows))
    with pytest.raises(ValueError, match="line 3: XMin.* line 4: .* has no image 'z'; 2 records cannot be used"):
        read_ground_truth(tmp_path / 'boxes.csv', image_folder=pictures)
    with pytest.warns(UserWarning, match='2 records of'):
        truth = read_ground_truth(tmp_path / 'boxes.csv', image_folder=pictures, skip_invalid=True)
    assert truth.image_ids.tolist() == ['a'] and len(truth.image) == 1
    assert any('1 images in .* have no boxes'.replace('.*', str(pictures)) in note for note in truth.notes)
    (tmp_path / 'validation-images-with-rotation.csv').write_text('ImageID,Subset,OriginalURL\na,validation,u\nb,validation,u\n')
    (tmp_path / 'boxes.csv').write_text('\n'.join(rows[:2]))
    truth = read_ground_truth(tmp_path / 'boxes.csv', image_folder=pictures)
    assert truth.image_ids.tolist() == ['a', 'b'] and truth.image.tolist() == [0]
    assert any('1 images without boxes are evaluated' in note for note in truth.notes)


def broken_lines(folder):
    path = write_lines(folder)
    append(path, '\n{"image_id": 1, \n[1, 2]\n')
    return path


def broken_voc_results(folder):
    write_voc_results(folder)
    append(folder / 'comp4_det_test_cat.txt', 'img_a 0.5 1 2\n')
    return folder


def broken_yolo_results(folder):
    path = write_yolo_results(folder)
    append(path / 'img_a.txt', '0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.1 0.1 0.9\n')
    (path / 'img_z.txt').write_text('0 0.5 0.5 0.1 0.1 0.9\n')
    return path


def broken_inferencer(folder):
    """A truncated file, and a file for an unknown image."""
    write_inferencer(folder)
    for path in (folder / 'preds').iterdir():
        value = json.loads(path.read_text())
        del value['masks']
        path.write_text(json.dumps(value))
    (folder / 'preds/img_0.json').write_text('{"labels": [0')
    (folder / 'preds/img_z.json').write_text(json.dumps(dict(labels=[0], scores=[.9], bboxes=[[0, 0, 5, 5]])))
    return folder


def broken_dump(folder):
    """An unknown image, a score that is not a number, a label without a category and an image without predictions."""
    entries = [dict(img_id=entry.pop('image_id'), pred_instances=dict(entry, bboxes=entry.pop('boxes'))) for entry in by_image()]
    more = dict(bboxes=np.ones((2, 4)), scores=np.array([np.nan, .5]), labels=np.array([0, 7]))
    first = entries[0]['pred_instances']
    for key, value in more.items():
        first[key] = np.concatenate([first[key].numpy(), value])
    entries.append(dict(img_id=99, pred_instances=more))
    (folder / 'r.pkl').write_bytes(pickle.dumps(entries))
    return folder / 'r.pkl'


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('write', [broken_lines, broken_voc_results, broken_yolo_results, broken_inferencer, broken_dump])
def test_results(tmp_path, write):
    path = write(tmp_path)
    with pytest.raises(ValueError, match='--skip-invalid') as error:
        evaluate(COCO, path)
    assert '\n' not in str(error.value)
    result = evaluate(COCO, path, skip_invalid=True)
    assert result.report['bbox']['all']['AP'] == evaluate(COCO, RESULTS).report['bbox']['all']['AP'] == 1
    assert any('cannot be used and' in note for note in result.report['notes'])
