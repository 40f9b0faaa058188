"""Other protocols: class-agnostic as in COCOeval, LVIS as in the lvis package, and image ids of any kind."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmtied.evaluation import Bootstrap, Evaluation, compare, evaluate, read_ground_truth
from mmtied.evaluation.stream import ImageMatcher
from tests.helpers.coco_oracle import STATISTICS, coco_evaluation, statistics

pytestmark = pytest.mark.usefixtures('blank_figures')


def random_case(seed, num_images=8, num_categories=4, many=0):
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=number, height=120, width=160) for number in range(1, num_images + 1)], annotations=[],
                categories=[dict(id=number, name=f'c{number}', frequency='frc'[number % 3])
                            for number in range(1, num_categories + 1)])
    results = []
    for image in data['images']:
        for _ in range(int(rng.integers(0, 6))):
            box = [float(value) for value in (*rng.integers(0, 60, 2), *rng.integers(10, 60, 2))]
            category = int(rng.integers(1, num_categories + 1))
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=image['id'], category_id=category, bbox=box,
                                            area=box[2] * box[3], iscrowd=0, segmentation=[[0, 0, 9, 0, 9, 9]]))
            for _ in range(int(rng.integers(0, 4)) + many):
                moved = [float(value) for value in np.array(box) + rng.integers(-4, 5, 4)]
                other = int(rng.integers(1, num_categories + 1))
                results.append(dict(image_id=image['id'], category_id=other if rng.random() < .4 else category,
                                    bbox=[*moved[:2], max(moved[2], 1), max(moved[3], 1)], score=float(rng.integers(9) / 9)))
    return data, results


def triangle(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w / 2, y + h]


def assert_same(report, expected, iou_type='bbox'):
    for name, value in expected.items():
        ours = report[iou_type]['all'][name]
        assert (ours is None) == (value == -1) and (ours is None or abs(ours - value) <= 1e-12), (name, ours, value)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('classes', [None, ['c1', 'c3']])
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_class_agnostic_equals_coco_eval(seed, classes, iou_type):
    data, results = random_case(seed, many=30 if seed == 3 else 0)
    if iou_type == 'segm':
        for entry in data['annotations']:
            entry |= dict(segmentation=[triangle(entry['bbox'])], area=entry['area'] / 2)
        for entry in results:
            code, = mask.frPyObjects([triangle(entry.pop('bbox'))], 120, 160)
            entry['segmentation'] = dict(code, counts=code['counts'].decode())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(data)
        truth.createIndex()
        oracle = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), iou_type)
        oracle.params.useCats = 0
        if classes:
            oracle.params.catIds = [1, 3]
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    expected = dict(zip(STATISTICS, oracle.stats.tolist(), strict=False))
    result = evaluate(data, results, Evaluation(unit='instance'), classes=classes, use_cats=False)
    assert_same(result.report, expected, iou_type)
    assert 0 < expected['AP'] < 1
    assert any('categories are ignored' in note for note in result.report['notes'])


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('form', ['ids', 'names', 'labels'])
def test_class_agnostic_counts_unknown_categories(form):
    """Proposals of a class missing from the annotations, against COCOeval with the first category instead."""
    data, results = random_case(5)
    results = [dict(entry, score=float(score)) for entry, score in zip(results, np.linspace(.1, .9, len(results)), strict=True)]
    known = [dict(entry, category_id=1) if entry['category_id'] == 2 else entry for entry in results]
    unknown = {'ids': 77, 'names': 'object', 'labels': 6}[form]
    given = [dict(entry, category_id=unknown) if entry['category_id'] == 2 else entry for entry in results]
    if form == 'labels':
        given = [dict(image_id=image['id'], **{key: np.array([value(entry) for entry in given if entry['image_id'] == image['id']]
                                                             ).reshape(shape) for key, value, shape in (
            ('boxes', lambda entry: [*entry['bbox'][:2], *np.add(entry['bbox'][:2], entry['bbox'][2:])], (-1, 4)),
            ('scores', lambda entry: entry['score'], -1),
            ('labels', lambda entry: entry['category_id'] - 1, -1))}) for image in data['images']]
    evaluation = coco_evaluation(data, known, 'bbox')
    evaluation.params.useCats = 0
    evaluation.evaluate()
    result = evaluate(data, given, use_cats=False)
    assert_same(result.report, {name: -1 if value is None else value for name, value in statistics(evaluation).items()})
    num = sum(entry['category_id'] == 2 for entry in results)
    assert any(f'{num} of {len(results)} detections are of categories that the annotations do not have, and count' in note
               for note in result.report['notes'])
    with pytest.raises(ValueError, match='not in the annotation file|is outside 0 to 3'):
        evaluate(data, given)


@pytest.mark.parametrize('seed', range(4))
def test_lvis_equals_its_package(seed, monkeypatch):
    lvis = pytest.importorskip('lvis')
    monkeypatch.setattr(np, 'float', float, raising=False)  # which lvis 0.5.3 takes from old NumPy
    rng = np.random.default_rng(seed)
    data, results = random_case(seed, num_categories=6, many=120 if seed == 3 else 3)
    for image in data['images']:
        present = {entry['category_id'] for entry in data['annotations'] if entry['image_id'] == image['id']}
        absent = [number for number in range(1, 7) if number not in present]
        image['neg_category_ids'] = [number for number in absent if rng.random() < .5]
        image['not_exhaustive_category_ids'] = [number for number in present if rng.random() < .4]
    results = [dict(entry, score=float(score)) for entry, score in zip(results, rng.permutation(len(results)) / len(results),
                                                                       strict=True)]
    truth = lvis.LVIS.__new__(lvis.LVIS)
    truth.logger, truth.dataset = __import__('logging').getLogger('lvis'), copy.deepcopy(data)
    truth._create_index()
    oracle = lvis.LVISEval(truth, lvis.LVISResults(truth, copy.deepcopy(results), max_dets=300), 'bbox')
    oracle.run()
    found = oracle.get_results()
    names = dict(zip(STATISTICS, ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'), strict=True))
    result = evaluate(data, results)
    assert_same(result.report, {ours: float(found[theirs]) for ours, theirs in names.items()}
                | {name: float(found[name]) for name in ('APr', 'APc', 'APf')})
    assert any("LVIS's protocol" in note for note in result.report['notes'])
    assert 0 < result.report['bbox']['all']['AP'] < 1


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_model_with_other_classes_is_matched_by_names():
    """Four classes in a different order from the categories, two of them missing from the annotations."""
    data, results = random_case(1)
    names = ['tree', 'c3', 'c1', 'sky']
    ids = {1: 2, 3: 1}
    kept = [entry for entry in results if entry['category_id'] in ids]
    by_image = [dict(image_id=image['id'], **{key: np.array([value(entry) for entry in results
                                                             if entry['image_id'] == image['id']]).reshape(shape)
                                              for key, value, shape in (
        ('boxes', lambda entry: [*entry['bbox'][:2], *np.add(entry['bbox'][:2], entry['bbox'][2:])], (-1, 4)),
        ('scores', lambda entry: entry['score'], -1),
        ('labels', lambda entry: ids.get(entry['category_id'], 3), -1))}) for image in data['images']]
    expected, found = evaluate(data, kept), evaluate(data, by_image, label_names=names)
    assert found.report['bbox'] == expected.report['bbox'] and 0 < expected.report['bbox']['all']['AP'] < 1
    with pytest.raises(ValueError, match=r"no category named 'tree'"):
        evaluate(data, by_image, label_names=['tree', 'sky', 'sea', 'road'])


IDS = {'text': lambda number: f'2732{number},c9db000d5146c15', 'beyond 2**63': lambda number: 2**63 + number,
       'beyond 2**64': lambda number: 2**70 + number, 'float': float, 'digits': lambda number: f'{number:012}'}


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', IDS)
def test_image_ids_of_any_kind(tmp_path, kind):
    data, results = random_case(0)
    renamed = dict(data, images=[dict(image, id=IDS[kind](image['id'])) for image in data['images']],
                   annotations=[dict(entry, image_id=IDS[kind](entry['image_id'])) for entry in data['annotations']])
    found = [dict(entry, image_id=IDS[kind](entry['image_id'])) for entry in results]
    expected, result = evaluate(data, results), evaluate(renamed, found)
    assert result.report['bbox'] == expected.report['bbox']
    result.save(tmp_path / 'a')
    compared = compare(tmp_path / 'a', result, names=['a', 'b'], bootstrap=Bootstrap(20))
    assert compared.rows()
    matcher = ImageMatcher(read_ground_truth(renamed), [1, 2, 3, 4], 100)
    assert matcher.position(IDS[kind](3)) == 2
    with pytest.raises(ValueError, match='which is not in'):
        matcher.position('nothing')


def test_stems_that_are_numbers():
    """ultralytics writes the number in a file's name, while annotations may number the images."""
    data, results = random_case(1)
    for image in data['images']:
        image['file_name'] = f'val/{900000 + image["id"]:012}.jpg'
    found = [dict(entry, image_id=900000 + entry['image_id']) for entry in results]
    with pytest.warns(UserWarning, match='were looked up among the file names'):
        result = evaluate(data, found)
    assert result.report['bbox'] == evaluate(data, results).report['bbox']
