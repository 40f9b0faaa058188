"""Null bands: random sets, their odds, and verdicts on detectors that occlusion does or does not hurt."""

import numpy as np
import pytest
import torch

from mmtied.evaluation import Bootstrap, Evaluation, evaluate
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.null_band import cross_fitted_odds, draw_sets, explain_differences, fit_logistic, instance_nulls
from mmtied.evaluation.pipeline import evaluate_detections
from tests.helpers.simulated import many, simulated


def test_sets_have_the_requested_size_and_odds():
    odds = torch.tensor([-2., -1., 0., 1., 2.] * 20, dtype=torch.float64)
    drawn = draw_sets(odds, 50, 4000, torch.Generator().manual_seed(0))
    assert bool((drawn.sum(1) == 50).all())
    found = drawn.double().mean(0).view(20, 5).mean(0)
    np.testing.assert_allclose(found, torch.sigmoid(odds[:5]), atol=.02)
    equal = draw_sets(torch.zeros(9, dtype=torch.float64), 3, 6000, torch.Generator().manual_seed(0)).double().mean(0)
    np.testing.assert_allclose(equal, 1 / 3, atol=.03)


def test_fit_is_logistic_regression():
    """With one binary feature, the probabilities are the shares in the two groups."""
    feature = torch.arange(4000) < 1000
    inside = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < torch.where(feature, .7, .2)
    inputs = torch.stack([torch.ones(4000), feature.float()], dim=1).double()
    chance = torch.sigmoid(inputs @ fit_logistic(inputs, inside, torch.ones(1, dtype=torch.float64)))
    assert chance.sum().item() == pytest.approx(inside.sum().item(), abs=1e-3)
    for group in (feature, ~feature):
        assert chance[group].mean().item() == pytest.approx(inside[group].double().mean().item(), abs=.005)


def test_cross_fitted_odds_do_not_leak_membership():
    """With uninformative features, a fit to all images overfits; cross-fitting gives the bucket's images no better odds."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 80, dtype=torch.float64, generator=generator)
    inside, ridge = torch.arange(400) < 60, torch.ones(80, dtype=torch.float64)
    fitted = features @ fit_logistic(torch.cat([torch.ones_like(features[:, :1]), features], dim=1), inside, ridge)[1:]
    assert fitted[inside].mean() - fitted[~inside].mean() > 1.5
    odds = cross_fitted_odds(features, inside, ridge, generator)
    assert abs(odds[inside].mean() - odds[~inside].mean()) < 3 * odds.std() / inside.sum().sqrt()
    told = cross_fitted_odds(torch.cat([features, inside.double()[:, None]], dim=1), inside, torch.ones(81).double(), generator)
    assert told[inside].mean() - told[~inside].mean() > 2


def test_differences_between_sets_are_removed_from_the_band():
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(300, 20, dtype=torch.float64, generator=generator) + .5
    noise, weights = torch.randn(2, 300, dtype=torch.float64, generator=generator), torch.linspace(-1, 1, 20).double()
    values = 7 + differences @ weights + .1 * noise[0]
    explained = explain_differences(values, differences)
    assert explained.mean().item() == pytest.approx(7, abs=.05)
    assert explained.std().item() == pytest.approx(.1, rel=.15) and values.std() > 2
    unrelated = explain_differences(noise[1], differences)  # residuals of a fit without leaving out would be 3 % less
    assert unrelated.std().item() == pytest.approx(noise[1].std().item(), rel=.02)


def test_explained_differences_equal_leave_one_out_refits(monkeypatch):
    monkeypatch.setattr('mmtied.evaluation.null_band._SET_RIDGES', (1e-12, ))
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    values = differences @ torch.arange(5.).double() + torch.randn(40, dtype=torch.float64, generator=generator)
    found = explain_differences(values, differences)
    inputs = torch.cat([torch.ones(40, 1), differences], dim=1).double().numpy()
    at_bucket = np.linalg.lstsq(inputs, values.numpy(), rcond=None)[0][0]
    for left_out in range(40):
        others = np.arange(40) != left_out
        weights = np.linalg.lstsq(inputs[others], values.numpy()[others], rcond=None)[0]
        assert found[left_out].item() == pytest.approx(at_bucket + values[left_out].item() - inputs[left_out] @ weights, abs=1e-8)


def test_equal_or_few_sets_are_unchanged():
    constant, values = torch.full((30, 4), .3, dtype=torch.float64), torch.arange(30.).double()
    values[3] = torch.nan
    assert len(explain_differences(values, constant)) == 29
    for differences in (constant, 0 * constant):
        assert explain_differences(values, differences).mean().item() == pytest.approx(values.nanmean().item())
    generator = torch.Generator().manual_seed(0)
    for num_sets in (1, 2, 3, 10):  # of 90 features
        noise, many_features = (torch.randn(num_sets, size, dtype=torch.float64, generator=generator) for size in (1, 90))
        assert explain_differences(noise[:, 0], many_features).abs().max() < 20


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
    """A set of all instances has the overall AP, and so does the balanced AP of a bucket of all instances."""
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


def test_a_bucket_with_one_possible_set_has_no_band():
    """One bucket has all instances of one category, the second all others."""
    data, results = many(num_images=60, per_image=6)
    for entry in data['annotations']:
        entry['first'] = float(entry['category_id'] == data['categories'][0]['id'])
    evaluation = Evaluation('field:first', edges=(0, .5, 2), unit='instance')
    result = evaluate(data, results, evaluation, bootstrap=Bootstrap(20, null_sets=20))
    rows = [row for row in result.report['bbox']['buckets'] if row['instances']]
    assert len(rows) == 2 and all(row['AP_ci'] and row['AP_null'] is row['AP_excess_p'] is None for row in rows)


def test_bands_are_clipped_to_the_range():
    """Regression over sets may exceed an AP of 1; the bands of a detector that misses two objects are clipped there."""
    data, _ = many(num_images=100, per_image=6)
    ground_truth = read_ground_truth(data)
    results = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.9)
               for entry in data['annotations'][:-2]]
    result = evaluate_detections(ground_truth, {'bbox': make_detections(results, ground_truth, 'bbox')},
                                 [Evaluation(edges=(0, .15, 1))])
    for row in result.with_intervals(Bootstrap(2, statistics=['AP', 'MR-2'])).report['bbox']['buckets']:
        assert .99 < row['AP_matched_null'] <= row['AP_matched_null_ci'][1] <= 1
        assert 0 <= row['MR-2_matched_null_ci'][0] <= row['MR-2_matched_null'] < .01


def test_few_images_have_no_band():
    rows = evaluated('image', edges=(0, .005, 1)).report['bbox']['buckets']
    few = [row for row in rows if row['images'] < 20]
    assert few
    for row in few:
        assert row['AP_null'] is row['AP_excess'] is row['AP_excess_p'] is row['AP_matched_null'] is None
