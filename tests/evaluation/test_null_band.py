"""Null bands: random sets, their odds, and what they say of detectors that occlusion does or does not hurt."""

import numpy as np
import pytest
import torch

from mmtied.evaluation import Bootstrap, Evaluation
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.null_band import draw_sets, fit_propensity, instance_nulls
from mmtied.evaluation.pipeline import evaluate_detections
from tests.helpers.simulated import many, simulated


def test_sets_have_the_size_and_the_odds_asked_for():
    odds = torch.tensor([-2., -1., 0., 1., 2.] * 20, dtype=torch.float64)
    drawn = draw_sets(odds, 50, 4000, torch.Generator().manual_seed(0))
    assert bool((drawn.sum(1) == 50).all())
    found = drawn.double().mean(0).view(20, 5).mean(0)
    np.testing.assert_allclose(found, torch.sigmoid(odds[:5]), atol=.02)
    equal = draw_sets(torch.zeros(9, dtype=torch.float64), 3, 6000, torch.Generator().manual_seed(0)).double().mean(0)
    np.testing.assert_allclose(equal, 1 / 3, atol=.03)


def test_propensity_is_logistic_regression():
    """With one yes-or-no feature, the chances are the shares in the two groups."""
    feature = torch.arange(4000) < 1000
    inside = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < torch.where(feature, .7, .2)
    chance = fit_propensity(feature.double()[:, None], inside)
    assert chance.sum().item() == pytest.approx(inside.sum().item(), abs=1e-3)
    for group in (feature, ~feature):
        assert chance[group].mean().item() == pytest.approx(inside[group].double().mean().item(), abs=.005)


def evaluated(unit, worse=False, edges=(0, .15, 1)):
    data, _ = many(num_images=100, per_image=6)
    ground_truth = read_ground_truth(data)
    results = simulated(data, 'bbox', jitters=(.05, .1))
    result = evaluate_detections(ground_truth, {'bbox': make_detections(results, ground_truth, 'bbox')},
                                 [Evaluation(unit=unit, edges=edges)])
    if worse:  # move the boxes of the most occluded images away
        occluded = set(ground_truth.image_ids[np.nan_to_num(result.plan.ratios[0]) >= edges[1]].tolist())
        results = [dict(entry, bbox=[entry['bbox'][0] + 3, *entry['bbox'][1:]]) if entry['image_id'] in occluded else entry
                   for entry in results]
        result = evaluate_detections(ground_truth, {'bbox': make_detections(results, ground_truth, 'bbox')},
                                     [Evaluation(unit=unit, edges=edges)])
    return result.with_intervals(Bootstrap(40, null_sets=250))


def test_a_detector_that_occlusion_hurts():
    for worse in (True, False):
        row = evaluated('image', worse).report['bbox']['buckets'][-1]
        for kind in ('', 'matched_'):
            assert row[f'AP_{kind}excess'] == pytest.approx(row['AP'] - row[f'AP_{kind}null'], abs=1e-12)
            assert row[f'AP_{kind}null_ci'][0] < row[f'AP_{kind}null'] < row[f'AP_{kind}null_ci'][1]
            if worse:
                assert row[f'AP_{kind}excess'] < -.05
                assert row[f'AP_{kind}excess_p'] < .01
            else:
                assert row[f'AP_{kind}excess_p'] > .01


def test_instance_sets_and_balanced_ap():
    """A set of all instances has the AP of all; balanced AP of a bucket of all instances too."""
    result = evaluated('instance', edges=(0, 1))
    overall, (first, second) = result.report['bbox']['all'], result.report['bbox']['buckets']
    assert first['instances'] + second['instances'] == overall['instances']
    everything, = instance_nulls(result.records['bbox'], result.targets.positives(),
                                 result.plan.groupings[0]._replace(columns=torch.tensor([0])), 3, Bootstrap(null_sets=3))
    np.testing.assert_allclose(everything[:, 0], overall['AP'], atol=2e-4)
    for row in (first, second):
        assert row['AP'] < row['AP_balanced'] == pytest.approx(overall['AP'], abs=.15)
        assert row['AP_balanced_ci'][0] < row['AP_balanced'] < row['AP_balanced_ci'][1]
        assert row['AP_excess_p'] > .004
        assert 'AP_matched_null' not in row


def test_few_images_have_no_band():
    rows = evaluated('image', edges=(0, .005, 1)).report['bbox']['buckets']
    few = [row for row in rows if row['images'] < 20]
    assert few
    for row in few:
        assert row['AP_null'] is row['AP_excess'] is row['AP_excess_p'] is row['AP_matched_null'] is None
