"""Annotations and results in every layout of docs/formats.md: a small file of each gives the arrays of the same data in "
"COCO's."""

import gzip
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from mmtied.evaluation import evaluate
from mmtied.evaluation.inputs import load_detections, read_ground_truth

#: Two images of 200 x 100 pixels, and boxes xywh of two classes.
NAMES, STEMS, WIDTH, HEIGHT = ['cat', 'dog'], ['img_a', 'img_b'], 200, 100
BOXES = [('img_a', 'cat', [10, 20, 40, 30]), ('img_a', 'dog', [30, 20, 40, 30]), ('img_b', 'dog', [100, 50, 60, 40])]
COCO = dict(images=[dict(id=number, file_name=f'{stem}.jpg', width=WIDTH, height=HEIGHT) for number, stem in enumerate(STEMS, 1)],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
            annotations=[dict(id=number, image_id=STEMS.index(stem) + 1, category_id=NAMES.index(name) + 1, bbox=box,
                              area=box[2] * box[3], iscrowd=0) for number, (stem, name, box) in enumerate(BOXES, 1)])
RESULTS = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.9 - .1 * number)
           for number, entry in enumerate(COCO['annotations'])]


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def shares(box):
    return [(box[0] + box[2] / 2) / WIDTH, (box[1] + box[3] / 2) / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT]


def of_image(stem):
    return [(name, box) for own, name, box in BOXES if own == stem]


def pictures(folder):
    folder.mkdir(parents=True)
    for stem in STEMS:
        Image.new('RGB', (WIDTH, HEIGHT)).save(folder / f'{stem}.jpg')


def write_coco(folder):
    (folder / 'a.json').write_text(json.dumps(COCO))
    return folder / 'a.json'


def write_gzip(folder):
    (folder / 'a.json.gz').write_bytes(gzip.compress(json.dumps(COCO).encode()))
    return folder / 'a.json.gz'


def write_bare(folder):
    """Label Studio's and other exports: no area, iscrowd null, empty segmentation of any kind, floats for integers."""
    data = json.loads(json.dumps(COCO))
    for entry, nothing in zip(data['annotations'], ([], {}, None), strict=True):
        del entry['area']
        entry |= dict(iscrowd=None, segmentation=nothing, image_id=float(entry['image_id']),
                      category_id=float(entry['category_id']))
    data['images'][0]['height'] = 100.0
    return write_json(folder, data)


def write_json(folder, data):
    (folder / 'a.json').write_text(json.dumps(data))
    return folder / 'a.json'


def write_middle(folder):
    images = [dict(img_path=f'{stem}.jpg', img_id=stem, height=HEIGHT, width=WIDTH, instances=[
        dict(bbox=corners(box), bbox_label=NAMES.index(name), ignore_flag=0) for name, box in of_image(stem)]) for stem in STEMS]
    return write_json(folder, dict(metainfo=dict(classes=NAMES), data_list=images))


def write_voc(folder):
    (folder / 'Annotations').mkdir()
    for stem in STEMS:
        objects = ''.join(f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
                          f'<xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox></object>' for name, (x, y, w,
                                                                                                           h) in of_image(stem))
        (folder / f'Annotations/{stem}.xml').write_text(
            f'<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}'
            '</annotation>')
    return folder


def write_voc_split(folder):
    write_voc(folder)
    (folder / 'ImageSets/Main').mkdir(parents=True)
    (folder / 'ImageSets/Main/test.txt').write_text('\n'.join(STEMS))
    return folder / 'ImageSets/Main/test.txt'


def write_yolo(folder):
    pictures(folder / 'images')
    (folder / 'labels').mkdir()
    for stem in STEMS:
        lines = [f'{NAMES.index(name)} ' + ' '.join(map(repr, shares(box))) for name, box in of_image(stem)]
        (folder / f'labels/{stem}.txt').write_text('\n'.join(lines) + '\n')
    (folder / 'data.yaml').write_text('names: [cat, dog]\nnc: 2\n')
    return folder


def write_cvat(folder):
    images = ''.join(f'<image id="{number}" name="{stem}.jpg" width="{WIDTH}" height="{HEIGHT}">' + ''.join(
        f'<box label="{name}" occluded="0" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" z_order="0"></box>'
        for name, (x, y, w, h) in of_image(stem)) + '</image>' for number, stem in enumerate(STEMS))
    (folder / 'annotations.xml').write_text(f'<?xml version="1.0"?><annotations><version>1.1</version>{images}</annotations>')
    return folder / 'annotations.xml'


def write_datumaro(folder):
    items = [dict(id=stem, image=dict(path=f'{stem}.jpg', size=[HEIGHT, WIDTH]), annotations=[
        dict(id=0, type='bbox', label_id=NAMES.index(name), bbox=box, attributes={}) for name, box in of_image(stem)])
             for stem in STEMS]
    labels = [dict(name=name, parent='', attributes=[]) for name in NAMES]
    return write_json(folder, dict(info={}, categories=dict(label=dict(labels=labels)), items=items))


def write_label_studio(folder):
    tasks = [dict(id=number, data=dict(image=f'/data/{stem}.jpg'), annotations=[dict(was_cancelled=False, result=[
        dict(type='rectanglelabels', original_width=WIDTH, original_height=HEIGHT, value=dict(
            x=100 * box[0] / WIDTH, y=100 * box[1] / HEIGHT, width=100 * box[2] / WIDTH, height=100 * box[3] / HEIGHT, rotation=0,
            rectanglelabels=[name])) for name, box in of_image(stem)])]) for number, stem in enumerate(STEMS, 7)]
    return write_json(folder, tasks)


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


def test_areas_of_masks_and_boxes():
    data = json.loads(json.dumps(COCO))
    for entry in data['annotations']:
        del entry['area']
    data['annotations'][0]['segmentation'] = [[10, 20, 50, 20, 10, 50]]  # half of the box
    with pytest.warns(UserWarning, match="3 of 3 annotations state no 'area', so it is that of their masks, or boxes "
                                         "without") as said:
        found = read_ground_truth(data)
    assert len(said) == 1
    assert found.area[0] == pytest.approx(600, rel=.1) and found.area[1:].tolist() == [1200, 2400]


ODGT = [{'ID': '273271,c9db000d5146c15', 'gtboxes': [
    {'tag': 'person', 'fbox': [10, 10, 40, 80], 'vbox': [10, 10, 40, 40], 'hbox': [20, 10, 10, 10], 'extra': {'box_id': 0,
                                                                                                              'occ': 1}},
    {'tag': 'person', 'fbox': [-20, 10, 60, 80], 'vbox': [0, 10, 40, 80], 'hbox': [0, 10, 9, 9], 'extra': {'ignore': 1}},
    {'tag': 'mask', 'fbox': [100, 0, 50, 50], 'vbox': [100, 0, 50, 50], 'hbox': [100, 0, 50, 50], 'extra': {'ignore': 1}}]}]


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
    with pytest.warns(UserWarning, match='those of the image files'):
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
    with pytest.warns(UserWarning, match='1 shapes are neither boxes nor polygons, or rotated, and left out'):
        assert len(read_ground_truth(path).boxes_xywh) == len(BOXES) - 1


def test_classes_beyond_the_names_are_refused(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text('names: [cat]')
    with pytest.raises(ValueError, match='class 1 is not among the 1 that are named beside the labels .cat'):
        read_ground_truth(tmp_path)


def test_ignored_persons_of_crowdhuman_give_no_warning(tmp_path):
    path = tmp_path / 'a.odgt'
    path.write_text('\n\n'.join(json.dumps(dict(ODGT[0], ID=number, height=HEIGHT, width=WIDTH)) for number in 'ab'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_ground_truth(path).crowd.sum() == 4


def test_results_with_lists_of_their_own_are_matched_by_names(tmp_path):
    """Other image ids and another order of the categories than those of the annotations."""
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
    with pytest.warns(UserWarning, match='--label-names .* has no effect, as results with .category_id. state ids'):
        load_detections(RESULTS, read_ground_truth(COCO), label_names=['dog', 'cat'])


def test_results_named_by_a_path_of_another_machine():
    renamed = [dict(entry, image_id=f'C:\\data\\{STEMS[entry["image_id"] - 1]}.jpg') for entry in RESULTS]
    truth = read_ground_truth(COCO)
    assert load_detections(renamed, truth)['bbox'].image.tolist() == load_detections(RESULTS, truth)['bbox'].image.tolist()


def by_image(**more):
    return [dict(image_id=number, boxes=torch.tensor([corners(entry['bbox']) for entry in RESULTS
                                                      if entry['image_id'] == number]).float(),
                 scores=torch.tensor([entry['score'] for entry in RESULTS if entry['image_id'] == number], dtype=torch.float64),
                 labels=torch.tensor([entry['category_id'] - 1 for entry in RESULTS if entry['image_id'] == number]), **more)
            for number in (1, 2)]


def write_lines(folder):
    (folder / 'r.jsonl').write_text('\n'.join(map(json.dumps, RESULTS)))
    return folder / 'r.jsonl'


def write_ultralytics(folder):
    """Ids are the stems of files, numbers where those are."""
    return write_json(folder, [dict(entry, image_id=STEMS[entry['image_id'] - 1], file_name=f'{STEMS[entry["image_id"] - 1]}.jpg')
                               for entry in RESULTS])


def write_detectron2(folder):
    entries = [dict(image_id=number, instances=[entry for entry in RESULTS if entry['image_id'] == number]) for number in (1, 2)]
    torch.save(entries, folder / 'instances_predictions.pth')
    return folder / 'instances_predictions.pth'


def write_torch(folder):
    torch.save(by_image(), folder / 'r.pt')
    return folder / 'r.pt'


def write_flat(folder):
    entries = by_image()
    torch.save(dict(image_ids=torch.tensor([1, 1, 2]), **{key: torch.cat([entry[key] for entry in entries])
                                                          for key in ('boxes', 'scores', 'labels')}), folder / 'r.pt')
    return folder / 'r.pt'


def write_dump(folder):
    """mmdet's, with an image that the distributed sampler repeated."""
    entries = [dict(img_id=entry['image_id'], pred_instances=dict(bboxes=entry['boxes'], scores=entry['scores'],
                                                                  labels=entry['labels']))
               for entry in by_image()]
    (folder / 'r.pkl').write_bytes(pickle.dumps([*entries, entries[0]]))
    return folder / 'r.pkl'


def write_voc_results(folder):
    for name in NAMES:
        lines = [f'{STEMS[entry["image_id"] - 1]} {entry["score"]!r} ' + ' '.join(str(value + 1)
                                                                                  for value in corners(entry['bbox']))
                 for entry in RESULTS if NAMES[entry['category_id'] - 1] == name]
        (folder / f'comp4_det_test_{name}.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_yolo_results(folder):
    (folder / 'labels').mkdir()
    for number, stem in enumerate(STEMS, 1):
        lines = [' '.join(map(repr, (entry['category_id'] - 1, *shares(entry['bbox']), entry['score'])))
                 for entry in RESULTS if entry['image_id'] == number]
        (folder / f'labels/{stem}.txt').write_text('\n'.join(lines) + '\n')
    return folder / 'labels'


def hugging_face(folder):
    """Dicts of `post_process_object_detection`, collected by image id, as in torchvision's reference scripts."""
    return {entry.pop('image_id'): entry for entry in by_image()}


def pipeline_of_hugging_face(folder):
    return {number: [dict(score=entry['score'], label=NAMES[entry['category_id'] - 1],
                          box=dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), corners(entry['bbox']), strict=True)))
                     for entry in RESULTS if entry['image_id'] == number] for number in (1, 2)}


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('write', [
    write_lines, write_ultralytics, write_detectron2, write_torch, write_flat, write_dump, write_voc_results, write_yolo_results,
    hugging_face, pipeline_of_hugging_face, lambda folder: {'annotations': RESULTS}, lambda folder: write_json(folder, RESULTS)])
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
    (json.dumps(dict(images=[], categories=[])), "it has 'images', 'categories' and lacks annotations"),
    ('{"a": 1}\n{"a": 2}\n', "JSON lines, but not of CrowdHuman's"),
    ('<annotations_of_something>', 'the file is XML, not JSON'),
    (b'PK\x03\x04abc', 'the file is a torch checkpoint or another zip file, not JSON'),
    (b'\x89PNG\r\n', 'the file is a PNG image, not JSON'),
    ('ImageID,Source,LabelName,Confidence\n', 'the file is a CSV table of Open Images, not JSON'),
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
    (json.dumps(COCO), 'annotations without scores; results of a detector are expected'),
    (json.dumps(dict(state_dict={})), 'it is a checkpoint'),
])
def test_other_results_are_named(tmp_path, content, message):
    path = tmp_path / 'r.json'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        load_detections(path, read_ground_truth(COCO))
    assert '\n' not in str(error.value)


def test_faults_are_counted_and_left_out():
    data = json.loads(json.dumps(COCO))
    data['annotations'] += [dict(data['annotations'][0], id=9, bbox=[1, 2, float('nan'), 3]), dict(data['annotations'][0],
                                                                                                   id=10, image_id=7),
                            dict(id=11, image_id=1, category_id=1), dict(data['annotations'][1], id=12, bbox=[0, 0, -4, 4])]
    with pytest.raises(ValueError, match=r'annotations\[3\].* 4 of 7 entries cannot be used, such as \[3\], \[4\], \[5\]; '
                                         r'--skip-invalid'
                       ) as error:
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
