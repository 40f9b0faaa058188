import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation.buckets import make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.occlusion import image_ratios
from mmtied.evaluation.parallel import available_threads
from tests.helpers.buckets import assign_buckets
from tests.helpers.coco_oracle import assert_same, cases, coco_evaluation, coco_statistics, report_of, restrict, statistics
from tests.helpers.data import COCO128, VAL2017, data_path
from tests.helpers.simulated import simulated

slow_cases = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def evaluate(data, results, iou_type, **options):
    ground_truth = read_ground_truth(data)
    return report_of(ground_truth, {iou_type: make_detections(results, ground_truth, iou_type)}, **options)


def check_against_pycocotools(data, results, iou_type, edges, proposal_nums=(1, 10, 100)):
    report = evaluate(data, results, iou_type, edges=edges, proposal_nums=proposal_nums)[iou_type]
    assert_same(report['all'], coco_statistics(data, results, iou_type, proposal_nums=proposal_nums))
    ground_truth = read_ground_truth(data)
    of_image = assign_buckets(image_ratios(ground_truth), make_buckets(edges))
    assert report['all']['images'] == len(data['images'])
    for number, bucket in enumerate(report['buckets']):
        ids = ground_truth.image_ids[of_image == number].tolist()
        inside = [entry for entry in data['annotations'] if entry['image_id'] in ids and not entry['iscrowd']]
        assert bucket['images'] == len(ids)
        assert bucket['instances'] == len(inside)
        assert bucket['categories'] == len({entry['category_id'] for entry in inside})
        if ids:
            expected = coco_statistics(data, results, iou_type, image_ids=ids, proposal_nums=proposal_nums)
            assert_same(bucket, expected, bucket['name'])
        else:
            assert all(bucket[name] is None for name in ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L'))


@slow_cases
@given(cases('bbox'), st.sampled_from([(1, 10, 100), (100, 300, 1000), (1, 2, 100)]))
def test_bbox_equals_pycocotools_for_every_bucket(case, proposal_nums):
    check_against_pycocotools(*case, 'bbox', (0, .3, .6, 1), proposal_nums)


@slow_cases
@given(cases('segm'))
def test_segm_equals_pycocotools_for_every_bucket(case):
    check_against_pycocotools(*case, 'segm', (0, .5, 1))


@settings(slow_cases, max_examples=15)
@given(cases('bbox'))
def test_selected_categories_match_pycocotools(case):
    data, results = case
    chosen = sorted(category['id'] for category in data['categories'])[::2]
    report = evaluate(data, results, 'bbox', category_ids=chosen, edges=(0, 1))
    assert_same(report['bbox']['all'], coco_statistics(data, results, 'bbox', category_ids=chosen))
    everything = evaluate(data, results, 'bbox', edges=(0, 1))
    assert [b['images'] for b in report['bbox']['buckets']] == [b['images'] for b in everything['bbox']['buckets']]


def one_image(targets, detections, **more):
    """Return one image with one category, from (id, box) and (score, box) pairs."""
    data = dict(images=[dict(id=7, height=100, width=100)], categories=[dict(id=3, name='c')], annotations=[
        dict(id=number, image_id=7, category_id=3, bbox=box, area=box[2] * box[3], iscrowd=0, **more)
        for number, box in targets])
    return data, [dict(image_id=7, category_id=3, bbox=box, score=score) for score, box in detections]


def test_ground_truth_with_id_0_can_be_matched():
    box = [10., 10., 20., 20.]
    data, results = one_image([(0, box)], [(.9, box)])
    assert coco_statistics(data, results, 'bbox')['AP'] == 0  # COCOeval takes the stored id 0 for "no match"
    assert evaluate(data, results, 'bbox')['bbox']['all']['AP'] == pytest.approx(1)
    data['annotations'][0]['id'] = 1
    assert coco_statistics(data, results, 'bbox')['AP'] == pytest.approx(1)


def test_limit_matters_beyond_100_detections():
    box, far = [10., 10., 20., 20.], [70., 70., 20., 20.]
    data, results = one_image([(1, box)], [(.9, far)] * 150 + [(.5, box)])
    assert evaluate(data, results, 'bbox')['bbox']['all']['AP50'] == 0
    wide = evaluate(data, results, 'bbox', proposal_nums=(100, 300, 1000))['bbox']['all']
    assert wide['AP'] == 0
    assert wide['AP50'] == pytest.approx(1 / 151)


def test_no_detections_give_zero():
    data, _ = one_image([(1, [10., 10., 20., 20.])], [])
    report = evaluate(data, [], 'bbox')
    assert report['bbox']['all'] == dict(
        images=1, instances=1, categories=1, instances_small=1, instances_medium=0, instances_large=0,
        instances_per_image=1, AP=0, AP50=0, AP75=0, AP_S=0, AP_M=None, AP_L=None, AP_shared=0, AP50_shared=0, AP75_shared=0,
        AR1=0, AR10=0, AR100=0, AR_S=0, AR_M=None, AR_L=None, loc_error=None, duplicates=None) | {'MR-2': 1, 'recall@P80': None}
    assert [bucket['AP'] for bucket in report['bbox']['buckets']] == [0] + [None] * 10


def test_report_has_the_documented_schema():
    data, results = one_image([(1, [10., 10., 20., 20.])], [(.5, [10., 10., 20., 20.])])
    report = evaluate(data, results, 'bbox', same_category=True)
    keys = ['images', 'instances', 'categories', 'instances_small', 'instances_medium', 'instances_large',
            'instances_per_image', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L', 'AR1', 'AR10', 'AR100', 'AR_S', 'AR_M', 'AR_L',
            'MR-2', 'recall@P80', 'loc_error', 'duplicates', 'AP_shared', 'AP50_shared', 'AP75_shared']
    assert list(report) == ['definition', 'unit', 'cumulative', 'intervals', 'shared_categories', 'bbox', 'further']
    assert report['unit'] == 'image'
    assert report['shared_categories'] == 1
    assert report['definition'] == 'covered, same category'
    assert list(report['bbox']) == ['all', 'buckets']
    assert list(report['bbox']['all']) == keys
    assert [list(bucket) for bucket in report['bbox']['buckets']] == [['name', 'lower', 'upper', *keys]] * 11
    assert report['bbox']['buckets'][0]['lower'] == report['bbox']['buckets'][0]['upper'] == 0
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(('options', 'message'), [
    (dict(definition='overlap'), 'unknown occlusion definition'),
    (dict(edges=(0, .5, .5)), 'strictly increasing'),
    (dict(proposal_nums=(0, 10)), 'positive integers'),
    (dict(category_ids=[3, 4]), 'category id 4 is not in'),
    (dict(unit='object'), "unknown bucket unit 'object'; known: image, instance"),
    (dict(extra_evaluations=[dict(edge=(0, 1))]), 'extra_evaluations: expected dicts with options among definition, edges'),
    (dict(extra_evaluations=[dict(unit='box')]), "unknown bucket unit 'box'"),
    (dict(extra_evaluations=dict(unit='instance')), 'extra_evaluations: expected a list of dicts'),
    (dict(extra_evaluations=None), 'extra_evaluations: expected a list of dicts'),
    (dict(edges=(0, 2)), "r by definition 'covered' is at most 1, got an edge of 2.0; let the edges end at 1"),
    (dict(edges=(0, 1, 2), definition='union', cumulative=True), "r by definition 'union' is at most 1"),
    (dict(proposal_nums=100), 'expected positive integers such as .*, got 100'),
    (dict(proposal_nums='100'), "expected positive integers such as .*, got '100'"),
    (dict(cumulative='no'), "cumulative: expected True or False, got 'no'"),
])
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*one_image([(1, [0., 0., 9., 9.])], []), 'bbox', **options)


def test_pairwise_edges_may_exceed_1():
    data, results = one_image([(number, [10., 10., 20., 20.]) for number in (1, 2, 3)], [])
    buckets = evaluate(data, results, 'bbox', definition='pairwise', edges=(0, .5, 1, 1.5))['bbox']['buckets']
    assert {row['name']: row['images'] for row in buckets} == {'r=0': 0, '(0,0.5)': 0, '[0.5,1)': 0, '[1,1.5]': 1}


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_real_crowds_and_polygons_of_coco128_equal_pycocotools(iou_type):
    data = json.loads(data_path(COCO128).read_text())
    assert any(entry['iscrowd'] for entry in data['annotations'])
    check_against_pycocotools(data, simulated(data, iou_type), iou_type, (0, .2, .4, .6, .8, 1), (100, 300, 1000))


@pytest.mark.slow
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_simulated_detections_on_val2017_equal_pycocotools(iou_type):
    data = json.loads(data_path(VAL2017).read_text())
    data['images'] = data['images'][::5 if iou_type == 'bbox' else 10]  # pycocotools is slow, most of all with masks
    kept = {image['id'] for image in data['images']}
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in kept]
    results = simulated(data, iou_type)
    report = evaluate(data, results, iou_type)[iou_type]
    evaluation = coco_evaluation(data, results, iou_type)
    assert_same(report['all'], statistics(evaluation))
    ground_truth = read_ground_truth(data)
    of_image = assign_buckets(image_ratios(ground_truth), make_buckets())
    for number, bucket in enumerate(report['buckets']):
        assert bucket['AP'] > .1
        assert_same(bucket, statistics(restrict(evaluation, ground_truth.image_ids[of_image == number])), bucket['name'])


def test_evaluation_restores_the_number_of_threads(monkeypatch):
    truth = read_ground_truth({'images': [{'id': 1, 'height': 9, 'width': 9}], 'annotations': [],
                               'categories': [{'id': 1, 'name': 'a'}]})
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr('mmtied.evaluation.pipeline.join_records',
                        lambda parts: seen.append((torch.get_num_threads(), available_threads())) or 1 / 0)
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            report_of(truth, {'bbox': make_detections([], truth, 'bbox')})
        assert (seen, torch.get_num_threads(), available_threads()) == ([(1, 3)], 3, 3)  # masks are compared in all of them
    finally:
        torch.set_num_threads(before)
