"""Bootstrap draws, intervals and what they add to a report."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmtied.evaluation.intervals import (
    Bootstrap,
    add_intervals,
    bootstrap_statistics,
    image_weights,
    percentile_interval,
    replicates,
)
from tests.helpers.runs import small_run


def with_intervals(run, report, groups, **options):
    return add_intervals(report, run.records, run.positives, [groups], len(run.category_names), Bootstrap(**options))


def test_add_intervals_changes_nothing_else():
    run, report, groups = small_run()
    before = json.loads(json.dumps(report))
    done = with_intervals(run, report, groups, num_replicates=300)
    assert report == before
    assert done['intervals'] == dict(level=.95, replicates=300, seed=0, method='percentile bootstrap over images')
    for old, new in zip([report['bbox']['all'], *report['bbox']['buckets']], [done['bbox']['all'], *done['bbox']['buckets']],
                        strict=True):
        assert {key: new[key] for key in old} == old
        assert list(new)[len(old):] == ['AP_ci', 'AP50_ci', 'AP75_ci']
        for name in ('AP', 'AP50', 'AP75'):
            if old[name] is None:
                assert new[f'{name}_ci'] is None
            else:
                low, high = new[f'{name}_ci']
                assert low <= high
                assert low - .05 < old[name] < high + .05
    assert json.loads(json.dumps(done, allow_nan=False)) == done


def test_intervals_match_a_plain_loop():
    run, report, groups = small_run()
    done = with_intervals(run, report, groups, num_replicates=40, seed=7, level=.8)
    for number, row in enumerate(done['bbox']['buckets']):
        images = groups.members[:, number].nonzero()[:, 0]
        if not len(images):
            continue
        weights = image_weights(len(images), 40, seed=7)
        values = [bootstrap_statistics(run.records['bbox'], run.positives, images, one[None], 3)[0] for one in weights]
        expected = np.quantile(torch.stack(values).numpy(), [.1, .9], axis=0).T
        np.testing.assert_allclose([row['AP_ci'], row['AP50_ci'], row['AP75_ci']], expected, rtol=0, atol=1e-12)


def test_same_seed_same_intervals():
    run, report, groups = small_run()
    one, two, three = (with_intervals(run, report, groups, num_replicates=30, seed=seed) for seed in (4, 4, 5))
    assert one == two
    assert one['bbox']['all']['AP_ci'] != three['bbox']['all']['AP_ci']


def test_first_replicate_is_the_point_estimate():
    run, report, groups = small_run()
    values = replicates(run.records['bbox'], run.positives, groups, 3, Bootstrap(5))[0]
    for row, bucket in zip(values.tolist(), report['bbox']['buckets'], strict=True):
        expected = [float('nan') if bucket[name] is None else bucket[name] for name in ('AP', 'AP50', 'AP75')]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


def test_overlapping_groups_and_instance_groups():
    """As cumulative and instance buckets need them: every image in each group, another column."""
    run, _, groups = small_run()
    table = run.records['bbox']
    members = torch.ones_like(groups.members[:, :2])
    apart = SimpleNamespace(members=members, columns=torch.tensor([1, 2]))
    values = replicates(table, run.positives, apart, 3, Bootstrap(6))
    for number, column in enumerate((1, 2)):
        weights = torch.cat([torch.ones(1, 16, dtype=torch.int16), image_weights(16, 6, seed=0)])
        expected = bootstrap_statistics(table, run.positives, torch.arange(16), weights, 3, column)
        assert torch.equal(values[:, number].nan_to_num(-1), expected.nan_to_num(-1))


def test_extra_evaluations_get_intervals():
    run, report, groups = small_run()
    del report['further']
    both = add_intervals({**report, 'further': [report]}, run.records, run.positives, [groups, groups], 3, Bootstrap(10))
    assert both['further'][0] == {key: value for key, value in both.items() if key != 'further'}
    with pytest.raises(ValueError, match='holds 2 evaluations, 1 groupings'):
        add_intervals({**report, 'further': [report]}, run.records, run.positives, [groups], 3)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(num_replicates=0), 'num_replicates: a whole number from 1 is needed, got 0'),
    (dict(num_replicates=1.5), 'whole number from 1 is needed, got 1.5'),
    (dict(seed=-1), 'seed: a whole number from 0 is needed, got -1'),
    (dict(level=95), 'such as 0.95; got 95'),
])
def test_invalid_bootstrap(options, message):
    with pytest.raises(ValueError, match=message):
        Bootstrap(**options)


def test_replicate_draws_num_images():
    weights = image_weights(37, 200, seed=3)
    assert weights.shape == (200, 37)
    assert bool((weights.sum(1) == 37).all())
    assert abs(weights.float().var().item() - (1 - 1 / 37)) < .1  # each count is binomial(37, 1/37)


def test_draws_depend_on_the_seed():
    assert torch.equal(image_weights(20, 9, seed=1), image_weights(20, 9, seed=1))
    assert not torch.equal(image_weights(20, 9, seed=1), image_weights(20, 9, seed=2))
    assert torch.equal(image_weights(20, 9, seed=1)[:5], image_weights(20, 5, seed=1))


def test_percentile_interval_covers_its_level():
    values = torch.randn(1001, dtype=torch.float64)
    low, high = percentile_interval(values, .9)
    assert ((values >= low) & (values <= high)).double().mean().item() == pytest.approx(.9, abs=.002)
    wider = percentile_interval(values, .99)
    assert wider[0] < low < high < wider[1]
    assert percentile_interval(values + 3, .9) == pytest.approx((low + 3, high + 3))


def test_percentile_interval_skips_nan():
    values = torch.tensor([float('nan'), 2., float('nan'), 2.], dtype=torch.float64)
    assert percentile_interval(values) == (2, 2)
    assert percentile_interval(values[:1]) is None


@pytest.mark.parametrize('level', [0, 1, 95])
def test_percentile_interval_rejects_level(level):
    with pytest.raises(ValueError, match=f'such as 0.95; got {level}'):
        percentile_interval(torch.zeros(3), level)
