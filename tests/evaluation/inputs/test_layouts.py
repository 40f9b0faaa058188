"""A small file in every layout of docs/formats.md gives the same arrays as the data in COCO's layout."""

import json
import warnings

import numpy as np
import pytest
import torch

from mmtied.evaluation import evaluate
from mmtied.evaluation.inputs import load_detections, read_ground_truth
from tests.helpers.layouts import (
    BOXES,
    COCO,
    HEIGHT,
    NAMES,
    ODGT,
    RESULTS,
    STEMS,
    WIDTH,
    corners,
    hugging_face,
    pictures,
    pipeline_of_hugging_face,
    text_labels,
    write_bare,
    write_coco,
    write_cvat,
    write_datumaro,
    write_detectron2,
    write_dump,
    write_flat,
    write_gzip,
    write_inferencer,
    write_json,
    write_label_studio,
    write_lines,
    write_middle,
    write_packed_dump,
    write_packed_torch,
    write_torch,
    write_ultralytics,
    write_utf16,
    write_voc,
    write_voc_results,
    write_voc_split,
    write_yolo,
    write_yolo_results,
)

WRITERS = [write_coco, write_gzip, write_bare, write_middle, write_voc, write_voc_split, write_yolo, write_cvat, write_datumaro,
           write_label_studio]


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('write', WRITERS)
def test_annotations(tmp_path, write):
    found, plain = read_ground_truth(write(tmp_path)), read_ground_truth(COCO)
    np.testing.assert_allclose(found.boxes_xywh, plain.boxes_xywh)
    assert found.image.tolist() == plain.image.tolist()
    assert found.image_sizes.tolist() == [[HEIGHT, WIDTH]] * 2
    names = [found.category_names[found.category_ids[number]] for number in found.category]
    assert names == [name for _, name, _ in BOXES]
    assert not found.crowd.any()
    np.testing.assert_allclose(found.area, plain.area)


@pytest.mark.parametrize('data', [{'data_list': None}, {'items': [{}], 'categories': [{'name': 'cat'}]}])
def test_keys_of_a_layout_with_other_values_are_not_that_layout(data):
    with pytest.raises(ValueError, match=f"not a COCO instances file.*; it has {', '.join(map(repr, data))}"):
        read_ground_truth(data)


def test_areas_of_masks_and_boxes():
    data = json.loads(json.dumps(COCO))
    for entry in data['annotations']:
        del entry['area']
    data['annotations'][0]['segmentation'] = [[10, 20, 50, 20, 10, 50]]  # half of the box
    with pytest.warns(UserWarning, match="3 of 3 annotations have no 'area', so it is that of their masks, or boxes "
                                         "without") as said:
        found = read_ground_truth(data)
    assert len(said) == 1
    assert found.area[0] == pytest.approx(600, rel=.1) and found.area[1:].tolist() == [1200, 2400]


@pytest.mark.parametrize('lines', [1, 2])
def test_crowdhuman(tmp_path, lines):
    (tmp_path / 'annotation_val.odgt').write_text('\n'.join(json.dumps(dict(image, ID=image['ID'] + 'x' * number))
                                                            for number in range(lines) for image in ODGT))
    found = read_ground_truth(tmp_path / 'annotation_val.odgt')
    assert found.image_ids.tolist() == ['273271,c9db000d5146c15' + 'x' * number for number in range(lines)]
    assert found.crowd.tolist() == [False, True, True] * lines
    assert found.boxes_xywh[0].tolist() == [10, 10, 40, 80]
    assert found.fields['vbox'][0] == [10, 10, 40, 40] and found.fields['ignore'] == [0, 1, 1] * lines
    assert any('2 boxes are ignored' in note or '4 boxes are ignored' in note for note in found.notes)
    pictures(tmp_path / 'img')
    (tmp_path / 'img/img_a.jpg').rename(tmp_path / 'img/273271,c9db000d5146c15.jpg')
    (tmp_path / 'img/img_b.jpg').rename(tmp_path / 'img/273271,c9db000d5146c15x.jpg')
    with pytest.warns(UserWarning, match='read from the image files'):
        sized = read_ground_truth(tmp_path / 'annotation_val.odgt', image_folder=tmp_path / 'img')
    assert sized.image_sizes.tolist() == [[HEIGHT, WIDTH]] * lines


def test_difficult_objects_are_ignored(tmp_path):
    write_voc(tmp_path)
    path = tmp_path / 'Annotations/img_b.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1'))
    found = read_ground_truth(tmp_path)
    assert found.crowd.tolist() == [False, False, True]
    assert any('1 difficult objects are ignored' in note for note in found.notes)


@pytest.mark.parametrize(('text', 'ignored'), [('False', 0), ('Unspecified', 0), ('', 0), ('True', 3), ('1', 3)])
def test_difficult_in_words(tmp_path, text, ignored):
    write_voc(tmp_path)
    for path in (tmp_path / 'Annotations').iterdir():
        path.write_text(path.read_text().replace('<difficult>0', f'<difficult>{text}'))
    assert read_ground_truth(tmp_path).crowd.sum() == ignored


@pytest.mark.parametrize(('old', 'new', 'message'), [
    ('<difficult>0', '<difficult>perhaps', "<difficult> must be 0 or 1, got 'perhaps'"),
    ('<xmin>', '<xmin>9', 'a box must have xmin <= xmax and ymin <= ymax, got .9'),
    ('<annotation>', '<?xml version="1.0" encoding="gb2312"?><annotation>', 'cannot be read as XML .multi-byte.* UTF-8'),
])
def test_faults_of_voc_are_one_line(tmp_path, old, new, message):
    write_voc(tmp_path)
    path = tmp_path / 'Annotations/img_a.xml'
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        read_ground_truth(tmp_path)
    assert '\n' not in str(error.value) and 'img_a.xml' in str(error.value)


def test_names_with_spaces_in_lists_of_voc(tmp_path):
    path = write_voc_split(tmp_path)
    (tmp_path / 'Annotations/img_a.xml').rename(tmp_path / 'Annotations/img a.xml')
    path.write_text('img a\nimg_b  1\n', encoding='utf-8-sig')
    assert read_ground_truth(path).image_ids.tolist() == ['img a', 'img_b']


def test_shapes_that_are_left_out_give_a_warning(tmp_path):
    path = write_cvat(tmp_path)
    path.write_text(path.read_text().replace('z_order="0"', 'z_order="0" rotation="30"', 1))
    with pytest.warns(UserWarning, match='1 shapes are skipped: rotated, or neither box nor polygon'):
        assert len(read_ground_truth(path).boxes_xywh) == len(BOXES) - 1


def test_a_folder_in_another_layout_is_named(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(dict(shapes=[], imagePath='a.jpg')))
    with pytest.raises(ValueError, match='this one has a.json; a.json is one image of LabelMe; convert the folder'):
        read_ground_truth(tmp_path)


def test_classes_beyond_the_names_are_refused(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text('names: [cat]')
    with pytest.raises(ValueError, match='class 1 is not among the 1 named beside the labels .cat'):
        read_ground_truth(tmp_path)


def test_ignored_persons_of_crowdhuman_give_no_warning(tmp_path):
    path = tmp_path / 'a.odgt'
    path.write_text('\n\n'.join(json.dumps(dict(ODGT[0], ID=number, height=HEIGHT, width=WIDTH)) for number in 'ab'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_ground_truth(path).crowd.sum() == 4


def test_results_with_lists_of_their_own_are_matched_by_names(tmp_path):
    """Image ids and the order of categories differ from the annotations'."""
    turned = dict(zip((1, 2), (2, 1), strict=True))
    whole = dict(images=[dict(id=number + 50, file_name=f'/data/{stem}.jpg') for number, stem in enumerate(STEMS, 1)],
                 categories=[dict(id=turned[number], name=name) for number, name in enumerate(NAMES, 1)],
                 annotations=[dict(entry, image_id=entry['image_id'] + 50, category_id=turned[entry['category_id']])
                              for entry in RESULTS])
    truth = read_ground_truth(COCO)
    plain = load_detections(RESULTS, truth)['bbox']
    for given in (whole, write_json(tmp_path, whole)):
        found = load_detections(given, truth)['bbox']
        for name in ('image', 'category', 'score', 'boxes_xywh'):
            np.testing.assert_allclose(getattr(found, name), getattr(plain, name))


def test_label_names_without_effect_give_a_warning():
    with pytest.warns(UserWarning, match='--label-names .* has no effect, as .category_id. refers to'):
        load_detections(RESULTS, read_ground_truth(COCO), label_names=['dog', 'cat'])


def test_results_named_by_a_path_of_another_machine():
    renamed = [dict(entry, image_id=f'C:\\data\\{STEMS[entry["image_id"] - 1]}.jpg') for entry in RESULTS]
    truth = read_ground_truth(COCO)
    assert load_detections(renamed, truth)['bbox'].image.tolist() == load_detections(RESULTS, truth)['bbox'].image.tolist()


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('write', [
    write_lines, write_ultralytics, write_detectron2, write_torch, write_packed_torch, write_flat, write_dump, write_packed_dump,
    write_voc_results, write_yolo_results, hugging_face, text_labels, pipeline_of_hugging_face, write_inferencer, write_utf16,
    lambda folder: sorted((write_inferencer(folder) / 'preds').iterdir()),
    lambda folder: {'annotations': RESULTS},
    lambda folder: write_json(folder, RESULTS)])
def test_results(tmp_path, write):
    truth = read_ground_truth(COCO)
    found, plain = (load_detections(given, truth)['bbox'] for given in (write(tmp_path), RESULTS))
    for one in (found, plain):
        order = np.argsort(-one.score)
        for name in ('image', 'category', 'score', 'boxes_xywh'):
            one.__dict__[name] = getattr(one, name)[order]
    for name in ('image', 'category', 'score', 'boxes_xywh'):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), atol=1e-6, err_msg=name)


@pytest.mark.parametrize(('content', 'message'), [
    (json.dumps(RESULTS), 'it is a list of results; annotations come first'),
    (json.dumps(COCO['annotations']), "it is the list of 'annotations' alone"),
    (json.dumps(dict(shapes=[], imagePath='a.jpg')), 'one image of LabelMe'),
    (json.dumps(dict(classes=['a'], labels={})), "FiftyOne's own layout; export with"),
    (json.dumps([dict(image='a.jpg', annotations=[])]), "it is CreateML's layout; export as COCO"),
    (json.dumps([dict(name='a.jpg', labels=[])]), r"it is BDD100K's \(Scalabel's\) layout; convert it with"),
    (json.dumps(dict(description='', size=dict(height=9, width=9), objects=[])), 'it is one image of Supervisely'),
    (2 * (json.dumps(dict(data_row={}, projects={})) + '\n'), "it is Labelbox's export; convert it"),
    (2 * (json.dumps(dict(file_name='a.jpg', objects={})) + '\n'), 'it is metadata of a Hugging Face image folder; convert it'),
    (json.dumps({'a.jpg1234': dict(filename='a.jpg', size=1234, regions=[])}), 'it is a project of VIA'),
    (json.dumps({'1': dict(name='a.jpg', labels=[])}), "'categories'; it has '1'$"),
    (json.dumps({'a': dict(image='a.jpg', annotations=[])}), "'categories'; it has 'a'$"),
    (json.dumps([dict(filename='a.jpg', regions=[])]), "it is a list of objects with 'filename', 'regions'"),
    (json.dumps(dict(definition='covered', unit='image', per_category={}, bbox={})), 'it is a report of mmtied'),
    ('Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n', 'but a text file of KITTI'),
    ('2753 2408 2861 2385 2888 2468 2805 2502 plane 0\n', 'but a text file of DOTA, whose boxes are rotated'),
    ('0--Parade/0_Parade_1_849.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n', 'not JSON, but text that begins with 0--Parade/0_Parade'),
    (bytes(range(64)), 'not JSON, but binary data'),
    (json.dumps(dict(COCO, info='\xe9'), ensure_ascii=False).encode('latin-1'), 'not in UTF-8 .*; save it in that encoding'),
    ('filename;width;height;class\na.jpg;9;9;cat\n', 'a CSV table that begins with filename;width;height;class'),
    ('filename\twidth\theight\tclass\na.jpg\t9\t9\tcat\n', 'a CSV table that begins with filename'),
    (json.dumps([dict(id=1, image='a.jpg', label=[], annotator=1, annotation_id=1)]), "it is Label Studio's JSON-MIN; export"),
    (json.dumps(dict(COCO, annotations=[dict(segments_info=[], file_name='a.png', image_id=1)])), "it is COCO's panoptic layout"),
    (json.dumps(dict(videos=[], categories=[], annotations=[])), 'it is of a video .YouTube-VIS'),
    ('./images/val/a.jpg\n./images/val/b.jpg\n', 'not JSON, but a list of images; give the folder that has labels and images'),
    (json.dumps(dict(images=[], categories=[])), "it has 'images', 'categories' and lacks annotations"),
    ('{"a": 1}\n{"a": 2}\n', "JSON lines, but not of CrowdHuman's"),
    ('<annotations_of_something>', 'the file is not JSON, but XML'),
    (b'PK\x03\x04abc', 'the file is not JSON, but a torch checkpoint or another zip file'),
    (b'\x89PNG\r\n', 'the file is not JSON, but a PNG image'),
    ('ImageID,Source,LabelName,Confidence\n', 'the file is not JSON, but a CSV table of Open Images'),
    ('path: ../data\ntrain: images/train\nnames:\n  0: cat\n', 'not JSON, but a data.yaml of ultralytics.*give the folder'),
    ('<?xml version="1.0"?><annotations><track id="0" label="car"></track></annotations>', "CVAT's XML of a video, with tracks; "
                                                                                        "export it as"),
    ('<annotation><object><bndbox></bndbox></object></annotation>', 'the XML file of one image of Pascal VOC; give the folder'),
    ('684,8,273,116,0,0,0,0\n', 'the text file of one image of VisDrone; give the folder of all'),
    ('0 0.5 0.5 0.1 0.2\n', 'the text file of one image of YOLO; give the folder of all'),
    ('filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,9,9,cat,1,1,2,2\n',
     "a CSV table that begins with filename,width.*; only Open Images' tables are supported.*convert it to COCO's layout"),
])
def test_other_annotations_are_named(tmp_path, content, message):
    path = tmp_path / 'a.json'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_ground_truth(path)
    assert '\n' not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(('content', 'message'), [
    (b'PK\x03\x04abc', 'not a complete zip file'),
    ('<?xml version="1.0"?>', 'it is XML; expected results as JSON'),
    ('0 0.5 0.5 0.1 0.2 0.9\n', 'it is the text file of one image of YOLO; give the folder of all; expected results as JSON'),
    ('image,label,score,x1,y1,x2,y2\na.jpg,cat,0.5,1,1,2,2\n', 'it is a CSV table that begins with image,label'),
    (json.dumps(COCO), 'annotations without scores; results of a detector are expected'),
    (json.dumps(dict(state_dict={})), 'it is a checkpoint'),
    (json.dumps(dict(shapes=[], imagePath='a.jpg')), 'expected results of a detector, but it is one image of LabelMe'),
    (json.dumps([{'name': 'cat', 'class': 0, 'confidence': .9, 'box': {}}]), "but it is ultralytics' Results.to_json, .*save"),
    (json.dumps([dict(frame_id=1, filename='a.jpg', objects=[])]), "but it is darknet's list of images"),
    (json.dumps([[dict(score=.5, label='cat', box={})]]), 'without the ids of their images; give a dict .image_id: list'),
    (json.dumps([dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], confidence=.5)]),
     "has no 'score'; it has image_id, category_id, bbox, confidence"),
])
def test_other_results_are_named(tmp_path, content, message):
    path = tmp_path / 'r.json'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        load_detections(path, read_ground_truth(COCO))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('rows', [np.zeros((3, 6)), torch.zeros(3, 6)])
def test_bare_rows_by_image_are_refused_in_a_line(rows):
    with pytest.raises(ValueError, match='a list was expected, or a dict with one under annotations, .*got a dict with 1'):
        load_detections({1: rows}, read_ground_truth(COCO))


def test_faults_are_counted_and_left_out():
    data = json.loads(json.dumps(COCO))
    data['annotations'] += [dict(data['annotations'][0], id=9, bbox=[1, 2, float('nan'), 3]), dict(data['annotations'][0],
                                                                                                   id=10, image_id=7),
                            dict(id=11, image_id=1, category_id=1), dict(data['annotations'][1], id=12, bbox=[0, 0, -4, 4])]
    with pytest.raises(ValueError, match=r'annotations\[3\].* 4 of 7 entries cannot be used, such as \[3\], \[4\], '
                                         r'\[5\]; --skip-invalid') as error:
        read_ground_truth(data)
    assert '\n' not in str(error.value)
    with pytest.warns(UserWarning, match='4 of 7 entries of annotations: annotations cannot be used and are left out'):
        found = read_ground_truth(data, skip_invalid=True)
    np.testing.assert_array_equal(found.boxes_xywh, read_ground_truth(COCO).boxes_xywh)
    broken = [*RESULTS, dict(RESULTS[0], score=float('nan')), dict(RESULTS[0], image_id=77), dict(RESULTS[0], category_id=99)]
    with pytest.raises(ValueError, match='3 of 6 entries cannot be used'):
        evaluate(COCO, broken)
    with pytest.warns(UserWarning, match='3 of 6 entries of detections cannot be used'):
        result = evaluate(COCO, broken, skip_invalid=True)
    assert result.report['bbox']['all']['AP'] == evaluate(COCO, RESULTS).report['bbox']['all']['AP']
    assert any('3 of 6 entries' in note for note in result.report['notes'])


@pytest.mark.parametrize('text', ['a cat', '2'])
def test_text_labels_that_name_no_category_are_named(text):
    """So are digits: they may number a model's classes rather than be category ids."""
    truth, found = read_ground_truth(COCO), text_labels(None)
    found[0]['text_labels'][1] = text
    with pytest.raises(ValueError, match=f".1.: image id 1: text label '{text}' is not in the annotation file; --classes"):
        load_detections(found, truth)
    with pytest.warns(UserWarning, match='1 of 3 detections are of categories that the annotations do not have'):
        assert len(load_detections(found, truth, classes=['cat', 'dog'])['bbox'].score) == 2


@pytest.mark.parametrize('by_image', [False, True])
@pytest.mark.parametrize('shift', [-1, 1])
def test_shifted_ids_give_the_option(by_image, shift):
    """Ids from 0 for annotations with ids from 1, and the reverse."""
    shifted = [dict(entry, category_id=entry['category_id'] + shift) for entry in RESULTS]
    if by_image:
        shifted = [dict(image_id=entry['image_id'], boxes=[corners(entry['bbox'])], scores=[entry['score']],
                        category_ids=[entry['category_id']]) for entry in shifted]
        joined = {key: [*shifted[0][key], *shifted[1][key]] for key in ('boxes', 'scores', 'category_ids')}
        shifted = [shifted[0] | joined, shifted[2]]
    with pytest.raises(ValueError, match=f'category id [03] is not in the annotation file, whose ids are 1 to 2, but those of '
                                         f'results .*; --category-offset {-shift} '):
        evaluate(COCO, shifted)
    assert evaluate(COCO, shifted, category_offset=-shift).report['bbox'] == evaluate(COCO, RESULTS).report['bbox']
