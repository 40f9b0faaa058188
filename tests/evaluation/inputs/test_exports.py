"""Quirks of other tools' files: objects in several parts, file names, keypoints, labels stored as category ids."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from mmtied.evaluation import evaluate
from mmtied.evaluation.inputs import load_detections, read_ground_truth
from mmtied.evaluation.inputs.images import image_paths
from tests.helpers.layouts import (
    BOXES,
    COCO,
    HEIGHT,
    ODGT,
    RESULTS,
    STEMS,
    WIDTH,
    append,
    by_image,
    corners,
    pictures,
    write_cvat,
    write_datumaro,
    write_json,
    write_label_studio,
    write_yolo,
    write_yolo_results,
)


def test_groups_and_masks_of_datumaro(tmp_path):
    """Polygons of one group form one object, as in datumaro's conversion of COCO, and a mask's box is its bounding box."""
    path = write_datumaro(tmp_path)
    data = json.loads(path.read_text())
    code = mask_api.encode(np.asfortranarray(np.pad(np.ones((20, 30), np.uint8), ((10, 70), (20, 150)))))
    parts = [[10, 20, 20, 20, 20, 50, 10, 50], [40, 20, 50, 20, 50, 50, 40, 50]]
    data['items'][0]['annotations'] = [dict(type='polygon', label_id=0, points=points, group=group)
                                       for points, group in ((parts[0], 3), (parts[1], 3), (parts[0], 0))]
    data['items'][1]['annotations'] = [dict(type='label', label_id=0, group=3), dict(
        type='mask', label_id=1, group=3, attributes=dict(is_crowd=True), rle=dict(size=[HEIGHT, WIDTH],
                                                                                   counts=code['counts'].decode()))]
    with pytest.warns(UserWarning, match="3 of 3 annotations have no 'area', so it is that of their masks") as said:
        found = read_ground_truth(write_json(tmp_path, data))
    assert len(said) == 1
    assert found.boxes_xywh.tolist() == [[10, 20, 40, 30], [10, 20, 10, 30], [20, 10, 30, 20]]
    assert found.area.tolist() == [600, 300, 600] and found.crowd.tolist() == [False, False, True]
    data['items'][1]['annotations'][1]['rle']['counts'] = 'abc'
    with pytest.raises(ValueError, match=r'items.1.: mask: its run-length code is broken or truncated'):
        read_ground_truth(write_json(tmp_path, data))


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_names_of_files(tmp_path):
    """Label Studio's backslashes on Windows, LVIS's URLs, and Label Studio's tasks with other texts."""
    named = json.loads(json.dumps(COCO))
    for image in named['images']:
        image['file_name'] = f'images\\{image["file_name"]}'
    addresses = dict(COCO, images=[dict(id=image['id'], width=WIDTH, height=HEIGHT, coco_url=(
        f'http://images.cocodataset.org/val2017/{image["file_name"]}')) for image in COCO['images']])
    path = write_label_studio(tmp_path)
    tasks = json.loads(path.read_text())
    for task in tasks:
        task['data'] = dict(caption='a cat', image=task['data']['image'].replace('/data/', '/data/local-files/?d='))
    for annotations in (named, addresses, write_json(tmp_path, tasks)):
        assert read_ground_truth(annotations).images.find_all([f'{stem}.jpg' for stem in STEMS])[0].tolist() == [0, 1]
    pictures(tmp_path / 'val2017')
    assert image_paths(read_ground_truth(addresses), tmp_path / 'val2017')[0] == tmp_path / 'val2017/img_a.jpg'
    with pytest.raises(ValueError, match='nowhere: no such folder of images'):
        read_ground_truth(COCO, image_folder=tmp_path / 'nowhere')


@pytest.mark.parametrize('visible', [2, 3])
def test_keypoints_of_yolo(tmp_path, visible):
    """ultralytics writes keypoints after the box and before the score."""
    write_yolo(tmp_path)
    append(tmp_path / 'data.yaml', f'kpt_shape: [17, {visible}]\n')
    (tmp_path / 'found').mkdir()
    for path in (tmp_path / 'labels').iterdir():
        lines = [line + ' 0.1' * 17 * visible for line in path.read_text().splitlines()]
        path.write_text('\n'.join(lines))
        (tmp_path / 'found' / path.name).write_text('\n'.join(f'{line} 0.9' for line in lines))
    truth = read_ground_truth(tmp_path)
    np.testing.assert_allclose(truth.boxes_xywh, [box for *_, box in BOXES])
    np.testing.assert_allclose(load_detections(tmp_path / 'found', truth)['bbox'].boxes_xywh, truth.boxes_xywh)


def test_parts_of_yolo(tmp_path):
    write_yolo(tmp_path)
    for stem, part in zip(STEMS, ('train', 'val'), strict=True):
        (tmp_path / 'labels' / part).mkdir()
        (tmp_path / f'labels/{stem}.txt').rename(tmp_path / f'labels/{part}/{stem}.txt')
    with pytest.warns(UserWarning, match='the labels of train, val are all evaluated; give the folder of one'):
        assert len(read_ground_truth(tmp_path).image) == len(BOXES)
    (tmp_path / 'labels/val/img_a.txt').write_text('0 0.5 0.5 0.1 0.1\n')
    with pytest.raises(ValueError, match='labels/train/img_a.txt and labels/val/img_a.txt have the same stem'):
        read_ground_truth(tmp_path)


def test_classes_of_yolo_that_the_annotations_lack(tmp_path):
    truth, folder = read_ground_truth(COCO), write_yolo_results(tmp_path)
    append(folder / 'img_a.txt', '9 0.5 0.5 0.1 0.1 0.9\n')
    with pytest.raises(ValueError, match="category id 'class 9' is not in the annotation file; --classes"):
        load_detections(folder, truth)
    with pytest.warns(UserWarning, match='1 of 4 detections are of categories that the annotations do not have, and count too'):
        assert len(load_detections(folder, truth, any_category=True)['bbox'].score) == 4


def test_labels_that_count_from_1():
    labels = [{**entry, 'labels': entry['labels'] + 1} for entry in by_image()]
    with pytest.raises(ValueError, match='label 2 is outside 0 to 1, .*; --category-offset -1 .* that start at 1'):
        evaluate(COCO, labels)
    assert evaluate(COCO, labels, category_offset=-1).report['bbox']['all']['AP'] == 1


def test_categories_of_detectron2_are_labels(tmp_path):
    """detectron2's .pth stores indices of the sorted ids as category_id; COCO's ids have gaps."""
    ids = {1: 18, 2: 3}
    gaps = dict(COCO, categories=[dict(entry, id=ids[entry['id']]) for entry in COCO['categories']],
                annotations=[dict(entry, category_id=ids[entry['category_id']]) for entry in COCO['annotations']])
    entries = [dict(image_id=number, instances=[dict(entry, category_id={1: 1, 2: 0}[entry['category_id']])
                                                for entry in RESULTS if entry['image_id'] == number]) for number in (1, 2)]
    torch.save(entries, tmp_path / 'instances_predictions.pth')
    assert evaluate(gaps, tmp_path / 'instances_predictions.pth').report['bbox']['all']['AP'] == 1


def test_numbers_of_file_names_are_not_taken_as_ids(tmp_path):
    """ultralytics takes 000002.jpg for image 2, which may be the id of another image; its entries also have the file name."""
    turned = dict(COCO, images=[dict(image, file_name=f'{3 - image["id"]:06d}.jpg') for image in COCO['images']])
    found = [dict(entry, image_id=3 - entry['image_id'], file_name=f'{3 - entry["image_id"]:06d}.jpg') for entry in RESULTS]
    with pytest.warns(UserWarning, match='were looked up among the file names'):
        assert evaluate(turned, write_json(tmp_path, found)).report['bbox']['all']['AP'] == 1
    other = [dict(entry, file_name='thumbnail.png') for entry in RESULTS]  # matches no image, so ids are used
    assert evaluate(COCO, other).report['bbox']['all']['AP'] == 1


@pytest.mark.parametrize('as_text', [json.dumps, lambda lines: '\n'.join(map(json.dumps, lines))])
def test_crowdhuman_as_an_array_and_its_results(tmp_path, as_text):
    lines = [dict(image, ID=image['ID'] + end, height=HEIGHT, width=WIDTH) for end in 'xy' for image in ODGT]
    found = [dict(ID=line['ID'], dtboxes=[dict(box=line['gtboxes'][0]['fbox'], score=.5, tag=1)]) for line in lines]
    for name, values in (('a.odgt', lines), ('r.odgt', found)):
        (tmp_path / name).write_text(as_text(values))
    truth = read_ground_truth(tmp_path / 'a.odgt')
    assert truth.image_ids.tolist() == [line['ID'] for line in lines] and truth.crowd.tolist() == [False, True, True] * 2
    found = load_detections(tmp_path / 'r.odgt', truth)['bbox']
    assert found.image.tolist() == [0, 1] and found.boxes_xywh.tolist() == [[10, 10, 40, 80]] * 2
    broken = [dict(ID=lines[0]['ID'], dtboxes=[dict(box=[1, 2, 3, 4], score=.5), dict(score=.5), 7]), dict(ID='b')]
    (tmp_path / 'r.odgt').write_text(as_text(broken))
    with pytest.raises(ValueError, match="has no 'bbox', which bbox needs; 3 of 4 entries cannot be used"):
        load_detections(tmp_path / 'r.odgt', truth)
    with pytest.warns(UserWarning, match='3 of 4 entries of .* cannot be used and are left out'):
        assert load_detections(tmp_path / 'r.odgt', truth, skip_invalid=True)['bbox'].boxes_xywh.tolist() == [[1, 2, 3, 4]]


def test_names_and_keypoints_of_yolo_are_read_once(tmp_path, monkeypatch):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]\nkpt_shape: [17, 3]\n')
    read, plain = [], Path.read_text
    monkeypatch.setattr(Path, 'read_text', lambda path, *args, **options: read.append(path.name) or plain(path, *args, **options))
    assert list(read_ground_truth(tmp_path).category_names.values()) == ['cat', 'dog']
    assert read.count('data.yaml') == 1


@pytest.mark.parametrize('has_yaml', [True, False])
@pytest.mark.parametrize(('data', 'with_list', 'names'), [
    ('path: [', True, ['cat', 'dog']),  # not YAML
    ('names: {0: cat\nnc: 2', True, ['cat', 'dog']),
    ('path: ../data\nnc: 2\n', True, ['cat', 'dog']),
    ('path: ../data  # the names are in classes.txt\nnc: 2\n', False, ['0', '1']),
])
def test_names_of_yolo_that_need_no_yaml(tmp_path, monkeypatch, data, with_list, names, has_yaml):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text(data)
    if with_list:
        (tmp_path / 'labels/classes.txt').write_text('cat\ndog\n')
    if not has_yaml:
        monkeypatch.setitem(sys.modules, 'yaml', None)
    assert list(read_ground_truth(tmp_path).category_names.values()) == names


@pytest.mark.parametrize(('data', 'with_list'), [
    ('names: [cat, dog]\n', False), ('names:\n  0: cat\n  1: dog\n', False), ('{"names": ["cat", "dog"]}', False),
    ('kpt_shape: [17, 2]\n', True),  # without it, boxes with keypoints would be read as polygons
])
def test_what_yolo_states_in_yaml_alone_needs_pyyaml(tmp_path, monkeypatch, data, with_list):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text(data)
    if with_list:
        (tmp_path / 'labels/classes.txt').write_text('cat\ndog\n')
    read_ground_truth(tmp_path)
    monkeypatch.setitem(sys.modules, 'yaml', None)
    with pytest.raises(ValueError, match='data.yaml: reading its names or kpt_shape needs PyYAML: pip install pyyaml$'):
        read_ground_truth(tmp_path)


def test_names_of_yolo_in_broken_yaml_alone(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text('names: [cat, dog\n')
    with pytest.raises(ValueError, match='data.yaml: not YAML'):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize('line', [RESULTS[0], dict(image_id=1, boxes=[corners(RESULTS[0]['bbox'])], scores=[.9], labels=[0])])
def test_a_single_json_line(tmp_path, line):
    (tmp_path / 'r.jsonl').write_text(json.dumps(line) + '\n')
    assert load_detections(tmp_path / 'r.jsonl', read_ground_truth(COCO))['bbox'].boxes_xywh.tolist() == [RESULTS[0]['bbox']]


def test_labels_that_are_ids_of_categories():
    """torchvision's COCO models predict category ids, which have gaps."""
    gaps = dict(COCO, categories=[dict(entry, id=90 if entry['id'] == 2 else 1) for entry in COCO['categories']],
                annotations=[dict(entry, category_id=90 if entry['category_id'] == 2 else 1) for entry in COCO['annotations']])
    found = [{**entry, 'labels': torch.where(entry['labels'] == 1, 90, 1)} for entry in by_image()]
    with pytest.raises(ValueError, match="label 90 is outside 0 to 1, .*; if they are category ids, .* name them "
                                         "'category_ids'"):
        evaluate(gaps, found)
    renamed = [{('category_ids' if key == 'labels' else key): value for key, value in entry.items()} for entry in found]
    assert evaluate(gaps, renamed).report['bbox']['all']['AP'] == 1


@pytest.mark.parametrize('write', [write_yolo, write_cvat, write_datumaro, write_label_studio])
def test_layouts_that_state_no_areas_give_no_warning(tmp_path, write):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_ground_truth(write(tmp_path)).area.tolist() == pytest.approx([1200, 1200, 2400])
