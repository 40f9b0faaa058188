"""Random parts of the images, and the intervals in a report."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from mmtied.evaluation import Evaluation, evaluate
from mmtied.evaluation.accumulate import whole_set
from mmtied.evaluation.intervals import (
    COVERAGE,
    Bootstrap,
    add_intervals,
    bootstrap_statistics,
    draw_parts,
    interval,
    point_estimates,
    random_parts,
    replicates,
    standard_error,
    student_quantile,
)
from tests.helpers.parts import error_of_parts
from tests.helpers.runs import small_run
from tests.helpers.simulated import many


def with_intervals(run, report, groups, **options):
    return add_intervals(report, run.records, run.positives, [groups], len(run.category_names), Bootstrap(**options))


def test_add_intervals_changes_nothing_else():
    run, report, groups = small_run(num_images=64)
    before = json.loads(json.dumps(report))
    done = with_intervals(run, report, groups, num_replicates=300)
    assert report == before
    assert done['intervals']['method'] == 'random halves and quarters of the images, Student t'
    assert {name: done['intervals'][name] for name in ('level', 'replicates', 'seed', 'min_images')} == dict(
        level=.95, replicates=300, seed=0, min_images=20)
    rows = [[part['bbox']['all'], *part['bbox']['buckets']] for part in (report, done)]
    assert any(row['images'] < 20 for row in rows[0])
    assert sum(row['images'] >= 20 for row in rows[0]) > 1
    for old, new in zip(*rows, strict=True):
        assert {key: new[key] for key in old} == old
        assert list(new)[len(old):] == ['AP_ci', 'AP50_ci', 'AP75_ci']
        for name in ('AP', 'AP50', 'AP75'):
            if old[name] is None or old['images'] < 20:
                assert new[f'{name}_ci'] is None
            else:
                low, high = new[f'{name}_ci']
                assert 0 <= low < old[name] < high <= 1
    assert json.loads(json.dumps(done, allow_nan=False)) == done


def test_intervals_match_a_plain_loop():
    run, report, groups = small_run(num_images=64)
    done = with_intervals(run, report, groups, num_replicates=40, seed=7, level=.8)
    checked = 0
    for number, row in enumerate(done['bbox']['buckets']):
        images = groups.members[:, number].nonzero()[:, 0]
        if row['images'] < 20:
            continue
        values = torch.stack([bootstrap_statistics(run.records['bbox'], run.positives, images[part.bool()],
                                                   part[part.bool()][None], 3)[0] for part in random_parts(len(images), 40, 7)])
        errors = np.array([error_of_parts(column, len(images)) for column in values.T.numpy()])
        reach = errors * stats.t.ppf(.9, 1 / (1 / (len(images) - 1) + 1 / 12))  # four splits, of three degrees of freedom each
        expected = [[row[name] - width, row[name] + width] for name, width in zip(('AP', 'AP50', 'AP75'), reach, strict=True)]
        np.testing.assert_allclose([row['AP_ci'], row['AP50_ci'], row['AP75_ci']], np.clip(expected, 0, 1), rtol=0, atol=2e-3)
        checked += 1
    assert checked


CHOSEN = ('AP75', 'AR10', 'MR-2', 'recall@P80', 'loc_error', 'duplicates')


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_replicates_equal_evaluations_of_the_parts():
    """Each replicate equals an evaluation of its images, except that score thresholds are those of all images."""
    data, results = many(num_images=40, per_image=8)
    result = evaluate(data, results, Evaluation(edges=(0, 1)))
    run = result.saved_run()
    bootstrap = Bootstrap(4, seed=3, statistics=CHOSEN)
    assert [statistic.name for statistic in bootstrap.chosen()] == list(CHOSEN)
    values = replicates(run.records['bbox'], run.positives, whole_set(40), 3, bootstrap)[:, 0]
    for part, found in zip(random_parts(40, 4, seed=3), values, strict=True):
        ids = set(run.image_ids[part.bool().numpy()].tolist())
        kept = dict(data, images=[image for image in data['images'] if image['id'] in ids],
                    annotations=[entry for entry in data['annotations'] if entry['image_id'] in ids])
        alone = evaluate(kept, [entry for entry in results if entry['image_id'] in ids]).report['bbox']['all']
        for name, value in zip(CHOSEN, found.tolist(), strict=True):
            if name not in ('recall@P80', 'duplicates'):
                assert value == pytest.approx(alone[name], abs=2e-3), name  # single precision
    row = result.with_intervals(Bootstrap(50, statistics=CHOSEN, null_sets=10)).report['bbox']['all']
    assert [key for key in row if key.endswith('_ci')] == [f'{name}_ci' for name in CHOSEN]
    assert all(row[f'{name}_ci'][0] < row[name] < row[f'{name}_ci'][1] for name in CHOSEN)


@pytest.mark.parametrize(('name', 'why'), [('AP_S', "saved records have no area but 'all'"),
                                           ('AP57', 'unknown statistic')])
def test_statistics_without_intervals_are_named(name, why):
    with pytest.raises(ValueError, match=f'intervals of {name}: {why}; known: AP, AP50, AP75, AR1, '):
        Bootstrap(statistics=['AP', name])


def test_same_seed_same_intervals():
    run, report, groups = small_run(num_images=30)
    one, two, three = (with_intervals(run, report, groups, num_replicates=30, seed=seed) for seed in (4, 4, 5))
    assert one == two
    assert one['bbox']['all']['AP_ci'] != three['bbox']['all']['AP_ci']


def test_point_estimates_are_those_of_the_report():
    run, report, groups = small_run()
    values = point_estimates(run.records['bbox'], run.positives, groups, 3)
    for row, bucket in zip(values.tolist(), report['bbox']['buckets'], strict=True):
        expected = [float('nan') if bucket[name] is None else bucket[name] for name in ('AP', 'AP50', 'AP75')]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


def test_overlapping_groups_and_instance_groups():
    """Groups of cumulative and instance buckets: every image in each group, with different columns."""
    run, _, groups = small_run()
    table, positives = run.records['bbox'], run.positives
    positives = positives._replace(counted=positives.counted & (positives.image < 10)[:, None])
    members = torch.ones_like(groups.members[:, :2])
    apart = SimpleNamespace(members=members, columns=torch.tensor([1, 2]))
    values = replicates(table, positives, apart, 3, Bootstrap(6))
    for number, column in enumerate((1, 2)):
        parts = draw_parts(torch.arange(16), positives, column, 6, seed=0)
        holding = [image in positives.image[positives.counted[:, column]] for image in range(16)]
        assert sum(holding) == {1: 10, 2: 0}[column]
        for counts, among in ((parts[:4, holding], sum(holding)), (parts[:4, [not one for one in holding]], 16 - sum(holding))):
            assert counts.sum(1).tolist() == [len(range(place, among, 4)) for place in range(4)]
            assert bool((counts.sum(0) == 1).all())
        expected = bootstrap_statistics(table, positives, torch.arange(16), parts, 3, column, precise=False)
        assert torch.equal(values[:, number].nan_to_num(-1), expected.nan_to_num(-1))


def test_single_precision_is_close():
    run, _, _ = small_run(num_images=40)
    weights = random_parts(40, 50, seed=1)
    exact, fast = (bootstrap_statistics(run.records['bbox'], run.positives, torch.arange(40), weights, 3, precise=precise)
                   for precise in (True, False))
    torch.testing.assert_close(fast, exact, rtol=0, atol=2e-3)
    assert not torch.equal(fast, exact)


def test_extra_evaluations_get_intervals():
    run, report, groups = small_run()
    del report['further']
    both = add_intervals({**report, 'further': [report]}, run.records, run.positives, [groups, groups], 3, Bootstrap(10))
    assert both['further'][0] == {key: value for key, value in both.items() if key != 'further'}
    with pytest.raises(ValueError, match='got 1 groupings for the 2 evaluations'):
        add_intervals({**report, 'further': [report]}, run.records, run.positives, [groups], 3)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(num_replicates=1), r'--replicates \(num_replicates\): expected an integer from 2 to 100000, got 1'),
    (dict(num_replicates=3_000_000_000), 'expected an integer from 2 to 100000, got 3000000000'),
    (dict(num_replicates=1.5), 'integer from 2 to 100000, got 1.5'),
    (dict(seed=-1), 'expected an integer from 0 to 9223372036854775807, got -1'),
    (dict(null_sets=1), 'one set makes no band; use 0 for no bands, or more sets, such as 250'),
    (dict(level=95), 'such as 0.95, got 95'),
    (dict(level='x'), "such as 0.95, got 'x'"),
    (dict(statistics=[]), 'statistics: expected at least one name'),
])
def test_invalid_bootstrap(options, message):
    with pytest.raises(ValueError, match=message):
        Bootstrap(**options)


@pytest.mark.parametrize('num_images', [36, 37])
def test_parts_contain_each_image_equally_often(num_images):
    splits = random_parts(num_images, 39_995, seed=3).view(4000, 10, num_images)
    quarters, halves = splits[:, :4], splits[:, 4:]
    assert bool((quarters.sum(1) == 1).all())  # each image is in one quarter
    assert bool((halves.view(4000, 3, 2, num_images).sum(2) == 1).all())  # a half and the rest
    assert all(len(half.unique(dim=0)) == 6 for half in halves[:50])
    for half in halves.unbind(1):
        ends = [int((quarter & half[0]).any()) for quarter in quarters[0]]
        assert sum(ends) == 2 and bool((half == sum(quarters[:, place] * held for place, held in enumerate(ends))).all())
    np.testing.assert_array_equal(quarters[0].sum(1), [len(range(place, num_images, 4)) for place in range(4)])
    np.testing.assert_allclose(quarters[:, 0].float().mean(0), -(-num_images // 4) / num_images, atol=.04)


def test_draws_depend_on_the_seed():
    assert torch.equal(random_parts(20, 9, seed=1), random_parts(20, 9, seed=1))
    assert not torch.equal(random_parts(20, 9, seed=1), random_parts(20, 9, seed=2))
    assert torch.equal(random_parts(20, 30, seed=1)[:20], random_parts(20, 11, seed=1))


@pytest.mark.parametrize('num_images', [40, 41, 42, 43])
def test_interval_of_a_mean_matches_student(num_images):
    """For a mean, random parts give the textbook interval."""
    numbers = torch.rand(num_images, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = random_parts(num_images, 20000, seed=0).double()
    found = interval(numbers.mean().item(), weights @ numbers / weights.sum(1), num_images)
    expected = stats.t.interval(.95, num_images - 1, numbers.mean().item(), stats.sem(numbers.numpy()))
    assert found == pytest.approx(expected, abs=2e-3)


def test_no_interval_of_few_images_or_without_values():
    parts = torch.rand(50, dtype=torch.float64)
    assert interval(.5, parts, 19) is None
    assert interval(None, parts, 100) is None
    assert interval(.5, torch.full((50,), torch.nan), 100) is None
    assert interval(.99, parts, 100)[1] == 1


def test_splits_with_an_undefined_part_are_dropped():
    parts = torch.rand(50, dtype=torch.float64)
    broken = parts.clone()
    broken[[3, 17]] = torch.nan
    assert standard_error(broken, 100) == standard_error(parts[20:], 100)
    broken[25] = torch.nan  # three of five
    assert standard_error(broken, 100) is None


@pytest.mark.parametrize(('quarters', 'halves', 'growth'), [(1, 1, 1), (1, .2, .5), (.1, 3, 2), (0, 1, 2), (1.3, 1, 1 / 1.3)])
def test_implausible_growth_is_clipped(quarters, halves, growth):
    """Quarters and halves of 100 images with the variances `quarters` and `halves`."""
    ends = (3 * quarters)**.5
    split = [ends, -ends, ends, -ends, *[halves**.5, -halves**.5] * 3]
    assert standard_error(torch.tensor(split * 2, dtype=torch.float64), 100)**2 == pytest.approx(halves * growth)


@pytest.mark.parametrize('freedom', [1, 1.7, 2, 3, 30, 999, 4e5])
def test_student_quantile(freedom):
    for share in (.5, .9, .975, .999):
        assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize('level', [0, 1, 95])
def test_interval_rejects_level(level):
    with pytest.raises(ValueError, match=f'such as 0.95, got {level}'):
        interval(.5, torch.zeros(3), 100, level)


def test_the_stated_coverage_is_the_measured_one():
    table = Path(__file__).parents[2] / 'docs' / 'benchmarks' / 'coverage.csv'
    with table.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    for where, ends in COVERAGE.items():
        found = [round(100 * float(row['coverage']), 6) for row in rows if f'at {row["images"]} images' == where]
        assert (math.floor(min(found)) / 100, math.ceil(max(found)) / 100) == ends
