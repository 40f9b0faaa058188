"""Instance buckets, cumulative buckets, several evaluations at once, and controls, against pycocotools and plain counts."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation.buckets import Evaluation, make_plan
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.occlusion import image_ratios, instance_ratios
from tests.helpers.coco_oracle import assert_same, cases, coco_evaluation, coco_statistics, report_of, statistics
from tests.helpers.data import COCO128, data_path
from tests.helpers.simulated import simulated

some_cases = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
EDGES = (0, .3, .6, 1)
RANGES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 1e10)}
#: Buckets of ratios, written out.
DISJOINT = [lambda r: r == 0, lambda r: 0 < r < .3, lambda r: .3 <= r < .6, lambda r: .6 <= r <= 1]
CUMULATIVE = [lambda r: r >= 0, lambda r: r >= .3, lambda r: r >= .6]


def evaluate(data, results, iou_type, **options):
    ground_truth = read_ground_truth(data)
    return report_of(ground_truth, {iou_type: make_detections(results, ground_truth, iou_type)}, **options)


def ignoring(data, ratios, inside):
    """Return the annotations with areas outside every range for those outside a bucket, which COCO then ignores."""
    data = copy.deepcopy(data)
    for entry, ratio in zip(data['annotations'], ratios.tolist(), strict=True):
        if not inside(ratio):
            entry['area'] = 2e10
    return data


def check_instance_buckets(report, data, results, iou_type, ratios, conditions):
    assert len(report[iou_type]['buckets']) == len(conditions)
    for bucket, inside in zip(report[iou_type]['buckets'], conditions, strict=True):
        assert_same(bucket, coco_statistics(ignoring(data, ratios, inside), results, iou_type), bucket['name'])
        held = [entry for entry, ratio in zip(data['annotations'], ratios.tolist(), strict=True)
                if inside(ratio) and not entry['iscrowd']]
        check_counts(bucket, held, len({entry['image_id'] for entry in held}))


def check_counts(row, held, images):
    assert (row['images'], row['instances']) == (images, len(held))
    assert row['categories'] == len({entry['category_id'] for entry in held})
    assert row['instances_per_image'] == (len(held) / images if images else None)
    for size, (low, high) in RANGES.items():
        assert row[f'instances_{size}'] == sum(low <= entry['area'] <= high for entry in held)


@some_cases
@given(cases('bbox'), st.sampled_from(['covered', 'pairwise', 'union']), st.booleans(), st.booleans())
def test_instance_buckets_equal_pycocotools(case, definition, same_category, cumulative):
    data, results = case
    ratios = instance_ratios(read_ground_truth(data), definition, same_category)
    report = evaluate(data, results, 'bbox', unit='instance', definition=definition, same_category=same_category,
                      edges=EDGES, cumulative=cumulative)
    assert_same(report['bbox']['all'], coco_statistics(data, results, 'bbox'))
    check_instance_buckets(report, data, results, 'bbox', ratios, CUMULATIVE if cumulative else DISJOINT)


@settings(some_cases, max_examples=12)
@given(cases('segm'), st.sampled_from(['box_mask', 'mask']))
def test_instance_buckets_of_masks_equal_pycocotools(case, definition):
    data, results = case
    ratios = instance_ratios(read_ground_truth(data), definition)
    report = evaluate(data, results, 'segm', unit='instance', definition=definition, edges=EDGES)
    check_instance_buckets(report, data, results, 'segm', ratios, DISJOINT)


@some_cases
@given(cases('bbox'), st.sampled_from([(1, 10, 100), (100, 300, 1000)]))
def test_cumulative_buckets_equal_pycocotools(case, proposal_nums):
    data, results = case
    ground_truth = read_ground_truth(data)
    ratios = dict(zip(ground_truth.image_ids.tolist(), image_ratios(ground_truth).tolist(), strict=True))
    report = evaluate(data, results, 'bbox', edges=EDGES, cumulative=True, proposal_nums=proposal_nums)
    assert [bucket['name'] for bucket in report['bbox']['buckets']] == ['r>=0', 'r>=0.3', 'r>=0.6']
    for bucket, inside in zip(report['bbox']['buckets'], CUMULATIVE, strict=True):
        ids = [image_id for image_id, ratio in ratios.items() if inside(ratio)]
        check_counts(bucket, [entry for entry in data['annotations'] if entry['image_id'] in ids and not entry['iscrowd']],
                     len(ids))
        if ids:
            assert_same(bucket, coco_statistics(data, results, 'bbox', image_ids=ids, proposal_nums=proposal_nums))


@settings(some_cases, max_examples=12)
@given(cases('bbox'))
def test_one_pass_equals_separate_evaluations(case):
    options = [dict(edges=EDGES), dict(unit='instance', edges=(0, .5, 1)), dict(cumulative=True, definition='pairwise'),
               dict(unit='instance', cumulative=True, same_category=True, edges=EDGES)]
    together = evaluate(*case, 'bbox', **options[0], extra_evaluations=options[1:])
    alone = [evaluate(*case, 'bbox', **each) for each in options]
    notes = {key: together[key] for key in ('notes', ) if key in together}  # of the files, so once for all evaluations
    assert [{**together, 'further': []}, *({**report, 'further': [], **notes} for report in together['further'])] == alone


@settings(some_cases, max_examples=25)
@given(cases('bbox'), st.sampled_from(['image', 'instance']))
def test_shared_ap_matches_pycocotools_over_shared_categories(case, unit):
    data, results = case
    ground_truth = read_ground_truth(data)
    of_image = dict(zip(ground_truth.image_ids.tolist(), image_ratios(ground_truth).tolist(), strict=True))
    ratios = instance_ratios(ground_truth)
    if unit == 'image':
        ratios = np.array([of_image[entry['image_id']] for entry in data['annotations']])
    held = [{entry['category_id'] for entry, ratio in zip(data['annotations'], ratios.tolist(), strict=True)
             if inside(ratio) and not entry['iscrowd']} for inside in DISJOINT]
    filled = [categories for categories in held if categories]
    shared = sorted(set.intersection(*filled)) if filled else []
    report = evaluate(data, results, 'bbox', unit=unit, edges=EDGES)
    assert report['shared_categories'] == len(shared)
    for number, inside in enumerate(DISJOINT):
        bucket = report['bbox']['buckets'][number]
        ids = [image_id for image_id, ratio in of_image.items() if inside(ratio)]
        if not shared or (unit == 'image' and not ids):
            assert bucket['AP_shared'] is None
            continue
        restricted = data if unit == 'image' else ignoring(data, ratios, inside)
        expected = statistics(coco_evaluation(restricted, results, 'bbox', category_ids=shared,
                                              image_ids=ids if unit == 'image' else None))
        ours = {**expected, **{name: bucket[f'{name}_shared'] for name in ('AP', 'AP50', 'AP75')}}
        assert_same(ours, expected, bucket['name'])


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_instances_of_coco128_with_crowds_equal_pycocotools(iou_type):
    data = json.loads(data_path(COCO128).read_text())
    results = simulated(data, iou_type)
    ratios = instance_ratios(read_ground_truth(data))
    report = evaluate(data, results, iou_type, unit='instance', edges=EDGES)
    assert all(bucket['instances'] > 20 for bucket in report[iou_type]['buckets'])
    check_instance_buckets(report, data, results, iou_type, ratios, DISJOINT)


def test_plan_assigns_columns():
    data = dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1, name='a')], annotations=[])
    plan = make_plan(read_ground_truth(data), [Evaluation(edges=(0, 1)), Evaluation(unit='instance', edges=(0, 1)),
                                               Evaluation(unit='instance', edges=(.5, 1))])
    assert [grouping.columns.tolist() for grouping in plan.groupings] == [[0, 0], [4, 8], [12]]
    assert plan.outside.shape == (0, 3)


def test_slugs():
    assert Evaluation().slug == 'covered'
    assert Evaluation('mask', unit='instance', cumulative=True, same_category=True).slug == (
        'mask_instance_cumulative_same_category')
