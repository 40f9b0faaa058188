"""The hook on mmdet's datasets: AP equals pycocotools' on the same boxes."""

import contextlib
import csv
import io
import json
import pickle

import numpy as np
import pytest

pytest.importorskip('mmdet')
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from PIL import Image

from mmtied.evaluation.hook import OcclusionEvalHook
from mmtied.evaluation.inputs.openmmlab import dataset_annotations
from tests.helpers.coco_oracle import coco_statistics
from tests.helpers.data import data_path

pytestmark = pytest.mark.usefixtures('blank_figures')
SIZE = (120, 160)  # height, width


class _Runner:
    """The parts of a Runner that the hook reads to add its metric."""

    model = torch.nn.Module()


def evaluated(dataset, found, **options):
    """Return the metric that the hook adds for a dataset after processing predictions, a dict by image id."""
    evaluator = Evaluator([])
    evaluator.dataset_meta = dataset.metainfo
    OcclusionEvalHook(metric='bbox', **options)._attach(_Runner, dataset, evaluator)
    metric, = evaluator.metrics
    metric.process({}, [dict(img_id=image_id, pred_instances=dict(bboxes=boxes, scores=scores, labels=labels))
                        for image_id, (boxes, scores, labels) in found.items()])
    with contextlib.redirect_stdout(io.StringIO()):
        metric.evaluate(len(found))
    return metric


def jittered(dataset, seed=0):
    """Return predictions near the dataset's annotations, some with wrong classes, by image id."""
    rng, found = np.random.default_rng(seed), {}
    num_classes = len(dataset.metainfo['classes'])
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        boxes = [np.array(instance['bbox']) + rng.normal(0, 3, 4) for instance in info['instances']] * 2
        labels = [max(instance['bbox_label'], 0) for instance in info['instances']] * 2
        labels = [label if rng.random() < .9 else int(rng.integers(num_classes)) for label in labels]
        boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        found[info['img_id']] = torch.from_numpy(boxes), torch.from_numpy(rng.random(len(boxes))), torch.tensor(labels).long()
    return found


def numbered(data, found, category_ids):
    """Return annotations and results with images numbered in the order of sorted ids, as pycocotools needs integers."""
    numbers = {image['id']: number for number, image in enumerate(sorted(data['images'], key=lambda image: image['id']), 1)}
    regions = [entry for entry in data['annotations'] if entry['category_id'] is None]
    entries = [entry for entry in data['annotations'] if entry['category_id'] is not None]
    entries += [dict(entry, category_id=category['id']) for entry in regions for category in data['categories']]
    data = dict(data, images=[dict(image, id=numbers[image['id']]) for image in data['images']], annotations=[
        dict(entry, id=number, image_id=numbers[entry['image_id']]) for number, entry in enumerate(entries, 1)])
    for entry in data['annotations']:
        entry.pop('segmentation', None)
    results = [dict(image_id=numbers[image_id], category_id=category_ids[int(label)], score=float(score),
                    bbox=[*box[:2].tolist(), *(box[2:] - box[:2]).tolist()])
               for image_id, (boxes, scores, labels) in found.items() for box, score, label in zip(boxes, scores, labels,
                                                                                                   strict=True)]
    return data, results


def assert_equals_pycocotools(metric, data, found, category_ids):
    ours, theirs = metric.report['bbox']['all'], coco_statistics(*numbered(data, found, category_ids), 'bbox')
    assert 0 < theirs['AP'] < 1
    for name, value in theirs.items():
        assert (ours[name] is None) == (value is None) and (value is None or abs(ours[name] - value) <= 1e-12), name


def images_in(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        Image.new('RGB', SIZE[::-1]).save(folder / f'{name}.jpg')


def random_box(rng):
    left, top = rng.uniform(0, 90), rng.uniform(0, 60)
    return [left, top, rng.uniform(20, 60), rng.uniform(20, 55)]


def test_crowdhuman(tmp_path):
    from mmdet.datasets import CrowdHumanDataset
    rng, ids = np.random.default_rng(0), ['273271,c9db000d5146c15', '273278,fb14e000b9b6ea3a', '1000,a']
    images_in(tmp_path / 'Images', ids)

    def extra(number):
        return dict(ignore=1) if number > 3 else {}

    lines = [dict(ID=image_id, gtboxes=[dict(tag='mask' if number == 5 else 'person', fbox=(box := random_box(rng)), vbox=box,
                                             hbox=box, extra=extra(number)) for number in range(6)]) for image_id in ids]
    (tmp_path / 'annotation_val.odgt').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    dataset = CrowdHumanDataset(data_root=str(tmp_path), ann_file='annotation_val.odgt', data_prefix=dict(img='Images/'),
                                test_mode=True, pipeline=[])
    found = jittered(dataset)
    metric = evaluated(dataset, found)
    assert metric.ground_truth.image_ids.tolist() == sorted(ids)
    assert metric.ground_truth.crowd.sum() == 6 and len(metric.ground_truth.fields['vbox']) == 18
    assert_equals_pycocotools(metric, dataset_annotations(dataset), found, [1])
    np.testing.assert_array_equal(np.isnan(metric.ratios), False)


def test_blood_cells_of_pascal_voc():
    from mmdet.datasets import XMLDataset
    dataset = XMLDataset(data_root=str(data_path('bccd')), ann_file='ImageSets/Main/val.txt', data_prefix=dict(sub_data_root=''),
                         metainfo=dict(classes=('RBC', 'WBC', 'Platelets')), test_mode=True, pipeline=[])
    found = jittered(dataset)
    metric = evaluated(dataset, found)
    assert metric.ground_truth.image_ids[0].startswith('BloodImage_') and len(metric.ground_truth.image_ids) == 87
    assert_equals_pycocotools(metric, dataset_annotations(dataset), found, [1, 2, 3])


def test_open_images(tmp_path):
    from mmdet.datasets import OpenImagesDataset
    rng, ids, labels = np.random.default_rng(0), ['0001eeaf4aed83f9', '000595fe6fee6369'], ['/m/01', '/m/02']
    images_in(tmp_path / 'img', ids)
    with (tmp_path / 'box.csv').open('w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['ImageID', 'Source', 'LabelName', 'Confidence', 'XMin', 'XMax', 'YMin', 'YMax', 'IsOccluded',
                       'IsTruncated',
                       'IsGroupOf', 'IsDepiction', 'IsInside'])
        for image_id in ids:
            for number in range(6):
                x, y, w, h = random_box(rng)
                rows.writerow([image_id, 'x', labels[number % 2], 1, x / SIZE[1], (x + w) / SIZE[1], y / SIZE[0],
                               (y + h) / SIZE[0],
                               0, 0, int(number == 3), 0, 0])
    (tmp_path / 'classes.csv').write_text('/m/01,Tortoise\n/m/02,Container\n')
    (tmp_path / 'hierarchy.json').write_text(json.dumps(dict(LabelName='/m/0', Subcategory=[])))
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps([dict(filename=f'{image_id}.jpg', ori_shape=(*SIZE, 3))
                                                      for image_id in ids]))
    dataset = OpenImagesDataset(
        label_file=str(tmp_path / 'classes.csv'), hierarchy_file=str(tmp_path / 'hierarchy.json'),
        meta_file=str(tmp_path / 'meta.pkl'), image_level_ann_file=None, ann_file=str(tmp_path / 'box.csv'),
        data_prefix=dict(img=str(tmp_path / 'img')), test_mode=True, pipeline=[])
    found = jittered(dataset)
    metric = evaluated(dataset, found)
    assert metric.ground_truth.crowd.sum() == 2
    assert_equals_pycocotools(metric, dataset_annotations(dataset), found, [1, 2])


def coco_file(tmp_path, names, file_name='{}.jpg', ignored=None):
    rng = np.random.default_rng(0)
    data = dict(images=[dict(id=number, file_name=file_name.format(number), height=SIZE[0], width=SIZE[1]) for number in (3, 8,
                                                                                                                          9)],
                categories=[dict(id=number, name=name) for number, name in names.items()], annotations=[])
    for image in data['images']:
        for number in [*list(names)[:4]] * 2:
            box = random_box(rng)
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=image['id'], category_id=number, bbox=box,
                                            area=box[2] * box[3], iscrowd=int(number == ignored)))
    (tmp_path / 'a.json').write_text(json.dumps(data))
    return data, str(tmp_path / 'a.json')


def rectangle(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_cityscapes(tmp_path):
    """Layout of mmdet's converter: Cityscapes label ids, a folder per city, groups as crowds, classes from METAINFO."""
    from mmdet.datasets import CityscapesDataset
    rng, ids = np.random.default_rng(0), dict(zip(CityscapesDataset.METAINFO['classes'], (24, 25, 26, 27, 28, 31, 32, 33),
                                                  strict=True))
    data = dict(images=[], annotations=[], categories=[dict(id=ids[name], name=name) for name in reversed(ids)])
    for number, name in enumerate(('frankfurt/frankfurt_000000_000294', 'lindau/lindau_000001_000019', 'munster/munster_000173')):
        data['images'].append(dict(id=number, file_name=f'{name}_leftImg8bit.png', height=SIZE[0], width=SIZE[1],
                                   segm_file=f'{name}_gtFine_labelIds.png'))
        for place, category in enumerate([*ids.values()] * 2):
            box = random_box(rng)
            data['annotations'].append(dict(iscrowd=int(category == 26 and place > 8), category_id=category, bbox=box,
                                            area=box[2] * box[3], segmentation=rectangle(box), image_id=number,
                                            id=len(data['annotations'])))
    data['annotations'][0]['id'] = len(data['annotations'])  # pycocotools cannot match id 0
    path = tmp_path / 'instancesonly_filtered_gtFine_val.json'
    path.write_text(json.dumps(data))
    dataset = CityscapesDataset(ann_file=str(path), data_prefix=dict(img='leftImg8bit/val'), test_mode=True, pipeline=[])
    found = jittered(dataset)
    metric = evaluated(dataset, found)
    assert metric.ground_truth.file_names[0] == 'frankfurt/frankfurt_000000_000294_leftImg8bit.png'
    assert metric.ground_truth.crowd.sum() == 3
    assert_equals_pycocotools(metric, data, found, dataset.cat_ids)


def objects365(tmp_path, kind, file_names, as_id=int):
    """Return annotations as published by Objects365: 365 unordered categories, attributes, patch folders."""
    rng, classes = np.random.default_rng(0), kind.METAINFO['classes']
    numbers = rng.permutation(len(classes)).tolist()
    data = dict(licenses=[], images=[], annotations=[],
                categories=[dict(id=number + 1, name=classes[number], supercategory='') for number in numbers])
    for number, name in enumerate(file_names):
        data['images'].append(dict(id=as_id(1087357 + number), file_name=name, height=SIZE[0], width=SIZE[1], license=5, url=''))
        for _ in range(12):
            box = random_box(rng)
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=as_id(1087357 + number), bbox=box,
                                            category_id=int(rng.integers(1, 9)), area=box[2] * box[3],
                                            iscrowd=int(rng.random() < .1), isfake=0, isreflected=0))
    (tmp_path / 'objects365.json').write_text(json.dumps(data))
    return data, kind(ann_file=str(tmp_path / 'objects365.json'), data_prefix=dict(img='val/'), test_mode=True, pipeline=[])


@pytest.mark.parametrize('as_id', [int, str])
def test_objects365_v1(tmp_path, as_id):
    from mmdet.datasets import Objects365V1Dataset
    data, dataset = objects365(tmp_path, Objects365V1Dataset, [f'obj365_val_{number:012}.jpg' for number in (19, 56, 62)], as_id)
    found = jittered(dataset)
    metric = evaluated(dataset, found)
    assert metric.ground_truth.category_names[int(dataset.cat_ids[0])] == dataset.metainfo['classes'][0] == 'person'
    assert_equals_pycocotools(metric, data, found, dataset.cat_ids)


def test_objects365_v2(tmp_path):
    """mmdet skips an unpublished image; its objects count as missed, as with mmdet's CocoMetric."""
    from mmdet.datasets import Objects365V2Dataset
    names = ['images/v1/patch8/objects365_v1_00420917.jpg', 'images/v2/patch22/objects365_v2_00984543.jpg',
             'images/v1/patch6/objects365_v1_00320532.jpg']
    data, dataset = objects365(tmp_path, Objects365V2Dataset, names)
    found = jittered(dataset)
    assert len(dataset) == len(found) == 2
    assert_equals_pycocotools(evaluated(dataset, found), data, found, dataset.cat_ids)


def test_visdrone_as_coco(tmp_path):
    from mmdet.datasets import CocoDataset
    names = {0: 'ignored regions', 1: 'pedestrian', 2: 'people', 3: 'bicycle'}
    data, path = coco_file(tmp_path, names)
    dataset = CocoDataset(ann_file=path, metainfo=dict(classes=('pedestrian', 'people', 'bicycle')), data_prefix=dict(img=''),
                          test_mode=True, pipeline=[])
    found = jittered(dataset)
    metric = evaluated(dataset, found, ignore_categories=['ignored regions'])
    regions = [dict(entry, category_id=None, iscrowd=1) if entry['category_id'] == 0 else entry for entry in data['annotations']]
    data = dict(data, annotations=regions, categories=data['categories'][1:])
    assert_equals_pycocotools(metric, data, found, [1, 2, 3])
    assert any('regions have an ignored category' in note for note in metric.report['notes'])


def test_lvis(tmp_path, monkeypatch):
    lvis = pytest.importorskip('lvis')
    from mmdet.datasets import LVISV1Dataset
    monkeypatch.setattr(np, 'float', float, raising=False)  # which lvis 0.5.3 takes from old NumPy
    data, path = coco_file(tmp_path, {1: 'aerosol_can', 2: 'apple', 3: 'zebra', 4: 'yacht', 5: 'wok'})
    for entry in data['annotations']:
        entry['segmentation'] = [[0, 0, 9, 0, 9, 9]]
    for number, image in enumerate(data['images']):
        image |= dict(coco_url=f'http://images.cocodataset.org/val2017/{number}.jpg', neg_category_ids=[5] if number else [],
                      not_exhaustive_category_ids=[1 + number])
    for category in data['categories']:
        category['frequency'] = 'f'
    (tmp_path / 'a.json').write_text(json.dumps(data))
    classes = tuple(category['name'] for category in data['categories'])
    dataset = LVISV1Dataset(ann_file=path, metainfo=dict(classes=classes), data_prefix=dict(img=''), test_mode=True, pipeline=[])
    found = {image_id: (boxes, scores, labels % 5) for image_id, (boxes, scores, labels) in jittered(dataset).items()}
    results = [dict(image_id=image_id, category_id=dataset.cat_ids[int(label)], score=float(score),
                    bbox=[*box[:2].tolist(), *(box[2:] - box[:2]).tolist()])
               for image_id, predicted in found.items() for box, score, label in zip(*predicted, strict=True)]
    truth = lvis.LVIS(path)
    oracle = lvis.LVISEval(truth, lvis.LVISResults(truth, results), 'bbox')
    oracle.run()
    ours = evaluated(dataset, found).report['bbox']['all']
    for name in ('AP', 'AP50', 'AP75'):
        assert abs(ours[name] - oracle.get_results()[name]) <= 1e-12, name
    assert 0 < ours['AP'] < 1


def test_labels_are_matched_by_name(tmp_path):
    """A second annotation file may reorder the categories or lack a class."""
    from mmdet.datasets import CocoDataset
    data, path = coco_file(tmp_path, {1: 'a', 2: 'b', 3: 'c'})
    dataset = CocoDataset(ann_file=path, metainfo=dict(classes=('a', 'b', 'c')), data_prefix=dict(img=''), test_mode=True,
                          pipeline=[])
    found = jittered(dataset)
    expected = evaluated(dataset, found).report['bbox']['all']['AP']
    turned = dict(data, categories=data['categories'][::-1])
    assert evaluated(dataset, found, ann_file=turned).report['bbox']['all']['AP'] == expected > 0
    lacking = dict(data, categories=[dict(id=1, name='a'), dict(id=2, name='B'), dict(id=3, name='c')])
    with pytest.raises(ValueError, match="OcclusionEvalHook: classes: annotations has no category named 'b'"):
        evaluated(dataset, found, ann_file=lacking)


def test_classes_missing_from_the_datasets_file(tmp_path):
    """mmdet drops such a class and renumbers the rest, so labels of a model with all classes would be misread."""
    from mmdet.datasets import CocoDataset
    data, path = coco_file(tmp_path, {1: 'a', 2: 'Beta', 3: 'c'})
    dataset = CocoDataset(ann_file=path, metainfo=dict(classes=('a', 'beta', 'c')), data_prefix=dict(img=''), test_mode=True,
                          pipeline=[])
    found = {image_id: (boxes, scores, torch.tensor([{1: 2}.get(label, label) for label in labels.tolist()]))
             for image_id, (boxes, scores, labels) in jittered(dataset).items()}
    with pytest.raises(ValueError, match="OcclusionEvalHook: classes: .*a.json has no category named 'beta'.* mean 'Beta'"):
        evaluated(dataset, found)
    metric = evaluated(dataset, found, label_names=['a', 'beta', 'c'])
    known = dict(data, **{key: [entry for entry in data[key] if entry.get('category_id', entry['id']) != 2]
                          for key in ('categories', 'annotations')})
    assert_equals_pycocotools(metric, known, found, [1, 2, 3])


def test_repeated_category_name(tmp_path):
    """Roboflow's root category has the same name as the only class."""
    from mmdet.datasets import CocoDataset
    data, path = coco_file(tmp_path, {1: 'fish'})
    plain = CocoDataset(ann_file=path, metainfo=dict(classes=('fish', )), data_prefix=dict(img=''), test_mode=True, pipeline=[])
    found = jittered(plain)
    expected = evaluated(plain, found).report['bbox']['all']['AP']
    data['categories'] = [dict(id=0, name='fish', supercategory='none'), dict(id=1, name='fish', supercategory='fish')]
    (tmp_path / 'b.json').write_text(json.dumps(data))
    dataset = CocoDataset(ann_file=str(tmp_path / 'b.json'), metainfo=dict(classes=('fish', )), data_prefix=dict(img=''),
                          test_mode=True, pipeline=[])
    assert evaluated(dataset, found).report['bbox']['all']['AP'] == expected > 0


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
