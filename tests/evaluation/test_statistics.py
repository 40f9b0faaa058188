"""The table of statistics: added entries equal pycocotools and reach the report and all other consumers."""

import copy
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation import Bootstrap, Evaluation, Statistic, compare, evaluate, register_statistic
from mmtied.evaluation.intervals import bootstrap_statistics
from mmtied.evaluation.protocol import STATISTICS, bootstrapped_statistics
from tests.helpers.coco_oracle import assert_same, cases, coco_evaluation, copied, match_all, restrict
from tests.helpers.simulated import many
from tests.helpers.weights import image_weights

RECALLS = ('AR1', 'AR10', 'AR100', 'AR_S', 'AR_M', 'AR_L')
EDGES = (0, .3, 1)


@pytest.fixture(autouse=True)
def more_statistics(monkeypatch):
    """AP90 and COCO's six recalls, in a table that is restored afterwards."""
    original = dict(STATISTICS)
    register_statistic(Statistic('AP90', iou=.9, bootstrapped=True, shared=True, logged_by_bucket=True))
    STATISTICS['AR100'] = replace(STATISTICS['AR100'], bootstrapped=True)
    yield
    STATISTICS.clear()
    STATISTICS.update(original)


def expected(evaluation):
    """Return AP90 and the recalls of a COCOeval, None for -1."""
    evaluation = copy.copy(evaluation)
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval['precision'][8, :, :, 0, -1]
    values = [precision[precision > -1].mean() if (precision > -1).any() else -1, *evaluation.stats[6:12]]
    return {name: None if value == -1 else float(value) for name, value in zip(('AP90', *RECALLS), values, strict=True)}


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(cases())
def test_ap90_and_recalls_equal_pycocotools_for_every_bucket(case):
    data, results = case
    result = evaluate(data, results, Evaluation(edges=EDGES), iou_types='bbox')
    oracle = coco_evaluation(data, results, 'bbox')
    rows = [result.report['bbox']['all'], *result.report['bbox']['buckets']]
    members = [np.ones(len(data['images']), dtype=bool), *result.plan.groupings[0].members.T.numpy()]
    for row, inside in zip(rows, members, strict=True):
        if inside.any():
            assert_same(row, expected(restrict(oracle, result.ground_truth.image_ids[inside])))


@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(cases('segm'))
def test_recalls_of_masks_equal_pycocotools(case):
    data, results = case
    row = evaluate(data, results, iou_types='segm').report['segm']['all']
    assert_same(row, expected(coco_evaluation(data, results, 'segm')))


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(cases(), st.integers(0, 100))
def test_bootstrapped_recall_equals_pycocotools_on_copies(case, seed):
    data, results = case
    records, positives, num_categories = match_all(data, results, 'bbox')
    ids = sorted(image['id'] for image in data['images'])
    weights = image_weights(len(ids), 3, seed)
    ours = bootstrap_statistics(records, positives, torch.arange(len(ids)), weights, num_categories)
    names = [statistic.name for statistic in bootstrapped_statistics()]
    assert names == ['AP', 'AP50', 'AP75', 'AR100', 'AP90']
    for replicate, row in zip(ours.tolist(), weights.tolist(), strict=True):
        theirs = expected(coco_evaluation(*copied(data, results, ids, row), 'bbox'))
        for name in ('AP90', 'AR100'):
            value = replicate[names.index(name)]
            assert np.isnan(value) if theirs[name] is None else abs(value - theirs[name]) <= 1e-12, (name, row)


def test_registered_statistic_is_written_everywhere(tmp_path):
    data, results = many(num_images=24, per_image=10)
    result = evaluate(data, results, Evaluation(edges=EDGES), bootstrap=Bootstrap(20))
    result.save(tmp_path)
    row = json.loads((tmp_path / 'report.json').read_text())['bbox']['buckets'][1]
    assert {'AP90', 'AP90_ci', 'AP90_shared', 'AR100', 'AR100_ci'} <= set(row)
    assert 'AR1_ci' not in row and 'AR1_shared' not in row
    with (tmp_path / 'buckets.csv').open() as file:
        first = next(csv.DictReader(file))
    assert float(first['AP90']) == result.report['bbox']['all']['AP90']
    assert float(first['AR100_ci_low']) == result.report['bbox']['all']['AR100_ci'][0]
    page = (tmp_path / 'report.html').read_text()
    assert 'AP90' in page and 'AR100' in page
    assert 'AP90' in repr(result)
    compared = compare(result, tmp_path, names=['one', 'two'], bootstrap=Bootstrap(5))
    assert compared.report['evaluations'][0]['bbox']['all']['AR100']['differences'][0]['difference'] == 0


@pytest.mark.parametrize(('name', 'scalar', 'title'), [
    ('AP', 'mAP', 'AP at IoU 0.50:0.95'),
    ('AP50', 'mAP_50', 'AP at IoU 0.50'),
    ('AP_S', 'mAP_s', 'AP at IoU 0.50:0.95, small instances'),
    ('AP90', 'mAP_90', 'AP at IoU 0.90'),
    ('AR10', 'AR@10', 'AR at IoU 0.50:0.95, at most 10 detections'),
    ('AR_L', 'AR_l', 'AR at IoU 0.50:0.95, large instances'),
])
def test_names_and_titles(name, scalar, title):
    assert (STATISTICS[name].scalar, STATISTICS[name].title) == (scalar, title)


def test_limits():
    assert STATISTICS['AP'].limit((100, 300, 1000)) == 100
    assert STATISTICS['AP75'].limit((100, 300, 1000)) == 1000
    assert STATISTICS['AP'].limit((10, 300)) == 300
    assert STATISTICS['AR10'].limit((100, 300)) == 10
    assert STATISTICS['AR100'].limit((1, 10)) == 10


@pytest.mark.parametrize(('options', 'message'), [
    (dict(iou=1.5), r'statistic X: iou=1.5 is outside \(0, 1\]; use a number such as 0.5'),
    (dict(precision=80), r'statistic X: precision=80 is outside'),
    (dict(area='tiny'), "statistic X: area='tiny' is unknown; use one of all, small, medium, large"),
    (dict(area='small', bootstrapped=True), "statistic X: bootstrapped=True needs area='all'"),
])
def test_invalid_statistics(options, message):
    with pytest.raises(ValueError, match=message):
        Statistic('X', **options)


def test_names_are_registered_once():
    register_statistic(STATISTICS['AP90'])
    with pytest.raises(ValueError, match='statistic AP90 is already defined as'):
        register_statistic(Statistic('AP90', iou=.85))
