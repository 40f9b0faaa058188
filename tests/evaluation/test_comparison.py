import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from mmtied.evaluation import Evaluation, compare, evaluate
from mmtied.evaluation.comparison import Estimate, compare_runs
from mmtied.evaluation.intervals import Bootstrap, bootstrap_statistics, random_parts
from mmtied.evaluation.protocol import STATISTICS
from tests.helpers.on_device import Departures
from tests.helpers.parts import error_of_parts
from tests.helpers.runs import small_run
from tests.helpers.simulated import many


def rows_of(comparison):
    part = comparison['evaluations'][0]['bbox']
    return [part['all'], *part['buckets']]


def test_run_against_itself_has_zero_differences():
    run, report, _ = small_run(num_images=64)
    for row, reported in zip(rows_of(compare_runs([run, run], ['a', 'b'], Bootstrap(50))),
                             [report['bbox']['all'], *report['bbox']['buckets']], strict=True):
        assert row['images'] == reported['images']
        for name in ('AP', 'AP50', 'AP75'):
            difference, = row[name]['differences']
            if reported['images'] < 20:
                assert difference == dict(difference=None if reported[name] is None else 0, low=None, high=None,
                                          share_above_zero=None, share_below_zero=None)
            else:
                assert row[name]['values'] == [pytest.approx(reported[name], abs=1e-12)] * 2
                assert difference == dict(difference=0, low=0, high=0, share_above_zero=.5, share_below_zero=.5)


def test_image_counts_of_instance_buckets_match_report():
    run, report, _ = small_run(unit='instance', edges=(0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1))
    counts = [row['images'] for row in rows_of(compare_runs([run, run], ['a', 'b'], Bootstrap(2)))]
    assert counts == [row['images'] for row in (report['bbox']['all'], *report['bbox']['buckets'])]
    assert min(counts) < max(counts)


def test_differences_are_paired():
    (good, _, groups), (bad, _, _) = small_run(num_images=64), small_run(noise=1.5, num_images=64)
    comparison = compare_runs([bad, good], ['bad', 'good'], Bootstrap(60, seed=3, level=.9))
    checked = 0
    for number, row in enumerate(comparison['evaluations'][0]['bbox']['buckets']):
        images = groups.members[:, number].nonzero()[:, 0]
        if len(images) < 20:
            continue
        parts = random_parts(len(images), 60, seed=3)
        one, two = (np.array([bootstrap_statistics(run.records['bbox'], run.positives, images, draw[None], 3)[0, 1].item()
                              for draw in parts]) for run in (bad, good))
        found = row['AP50']['differences'][0]
        error = error_of_parts(two - one, len(images))
        reach = stats.t.ppf(.95, 1 / (1 / (len(images) - 1) + 1 / 18)) * error  # six splits
        gain = row['AP50']['values'][1] - row['AP50']['values'][0]
        np.testing.assert_allclose([found['low'], found['high']], [gain - reach, gain + reach], rtol=0, atol=2e-3)
        halves = (two - one).reshape(-1, 10)[:, 4:].ravel()
        moved = gain + error / halves.std() * (halves - halves.mean())
        assert found['share_above_zero'] == pytest.approx(np.mean(moved > 0), abs=.02)
        assert found['share_above_zero'] + found['share_below_zero'] == 1
        assert found['difference'] == gain
        checked += 1
    assert checked


def test_seed_variance_widens_the_interval():
    """Textbook case: variance over images plus variance of the mean over seeds, with Welch-Satterthwaite degrees of freedom."""
    runs = [small_run(noise=noise, num_images=64)[0] for noise in (0, 1, .8, 1.4)]
    bootstrap = Bootstrap(60)
    comparison = compare_runs([runs[:1], runs[1:]], ['a', 'b'], bootstrap)
    assert comparison['seeds'] == [1, 3]
    row = rows_of(comparison)[0]
    single = [rows_of(compare_runs([runs[0], run], ['a', 'b'], bootstrap))[0] for run in runs[1:]]
    gains = [one['AP']['differences'][0]['difference'] for one in single]
    found = row['AP']['differences'][0]
    assert found['difference'] == pytest.approx(np.mean(gains), abs=1e-12)
    weights = random_parts(64, 60, seed=0)
    parts = [bootstrap_statistics(run.records['bbox'], run.positives, torch.arange(64), weights, 3)[:, 0].numpy()
              for run in runs]
    variances = [error_of_parts(np.mean(parts[1:], axis=0) - parts[0], 64)**2, np.var(gains, ddof=1) / 3]
    freedom = sum(variances)**2 / (variances[0]**2 * (1 / 63 + 1 / 18) + variances[1]**2 / 2)
    reach = stats.t.ppf(.975, freedom) * np.sqrt(sum(variances))
    assert (found['low'], found['high']) == pytest.approx((np.mean(gains) - reach, np.mean(gains) + reach), abs=2e-3)


def test_resampled_seeds_have_the_variance_of_their_mean():
    values = torch.tensor([.3, .34, .37], dtype=torch.float64)
    estimate = Estimate(values, values[:, None].expand(3, 50_000), 100)
    deviations = estimate.resampled_seeds(torch.Generator().manual_seed(0))
    assert deviations.std().item() == pytest.approx((values.var() / 3).sqrt().item(), rel=.02)


def test_better_run_wins_every_replicate():
    (good, _, _), (bad, _, _) = small_run(num_images=40), small_run(noise=3, num_images=40)
    forward, backward = (compare_runs(runs, ['a', 'b'], Bootstrap(100)) for runs in ([bad, good], [good, bad]))
    up, down = (rows_of(comparison)[0]['AP']['differences'][0] for comparison in (forward, backward))
    assert up['share_above_zero'] == 1
    assert up['low'] > 0
    assert (down['low'], down['high']) == pytest.approx((-up['high'], -up['low']), abs=1e-12)
    assert down['share_above_zero'] == 0


def test_three_runs_are_compared_with_the_first():
    runs = [small_run(noise=noise)[0] for noise in (0, 1, 2)]
    three = compare_runs(runs, ['a', 'b', 'c'], Bootstrap(20))
    two = compare_runs([runs[0], runs[2]], ['a', 'c'], Bootstrap(20))
    assert [row['AP']['differences'][1:] for row in rows_of(three)] == [row['AP']['differences'] for row in rows_of(two)]


def other_data(change):
    data = copy.deepcopy(many(num_images=16, per_image=10)[0])
    change(data)
    return data


@pytest.mark.parametrize(('change', 'message'), [
    (lambda data: data['images'].append(dict(id=99, height=10, width=10)), r'different images \(16 and 17\)'),
    (lambda data: data['categories'].append(dict(id=99, name='more')), r'different categories \(3 and 4\)'),
    (lambda data: data['annotations'].pop(), 'the image ids are equal, but not the sizes or annotations'),
    (lambda data: data['images'][0].update(width=9999), 'the image ids are equal, but not the sizes or annotations'),
])
def test_runs_on_different_data_are_rejected(change, message):
    one, _, _ = small_run()
    other, _, _ = small_run(data=other_data(change))
    with pytest.raises(ValueError, match=message):
        compare_runs([one, other], ['a', 'b'])


def test_runs_with_different_masks_are_rejected():
    run, _, _ = small_run()
    one, other = (replace(run, mask_fingerprint=text) for text in 'ab')
    with pytest.raises(ValueError, match='equal boxes but different masks'):
        compare_runs([one, other], ['a', 'b'])
    compare_runs([one, run], ['a', 'b'], Bootstrap(2))


def test_buckets_with_different_members_are_rejected():
    run, _, _ = small_run()
    groups = run.evaluations[0]
    moved = replace(groups, members=groups.members.roll(1, dims=0))
    with pytest.raises(ValueError, match='their buckets of covered have different members'):
        compare_runs([run, replace(run, evaluations=(moved, ))], ['a', 'b'])

    by_instance, _, _ = small_run(unit='instance')
    counted = by_instance.positives.counted.clone()
    counted[:, by_instance.evaluations[0].columns[1]] ^= True
    other = replace(by_instance, positives=by_instance.positives._replace(counted=counted))
    with pytest.raises(ValueError, match='their buckets of covered, by instance have different members'):
        compare_runs([by_instance, other], ['a', 'b'])


def test_runs_with_different_options_are_rejected():
    one, _, _ = small_run()
    with pytest.raises(ValueError, match='no buckets in common'):
        compare_runs([one, small_run(edges=(0, .5, 1))[0]], ['a', 'b'])
    with pytest.raises(ValueError, match=r'proposal_nums is \(1, 10, 100\) in one and \(100, 300, 1000\)'):
        compare_runs([one, small_run(proposal_nums=(100, 300, 1000))[0]], ['a', 'b'])
    with pytest.raises(ValueError, match='has no segm; it has bbox'):
        compare_runs([one, one], ['a', 'b'], iou_types=['segm'])
    with pytest.raises(ValueError, match='expected at least two runs'):
        compare_runs([one], ['a'])
    with pytest.raises(ValueError, match='distinct names, one per run, got a, a'):
        compare_runs([one, one], ['a', 'a'])


def test_messages_name_runs_and_their_contents():
    one, _, _ = small_run()
    other, _, _ = small_run(edges=(0, .5, 1), unit='instance')
    with pytest.raises(ValueError, match=r'in common: a has covered \(edges 0 0.3 0.6 1\); b has covered, by instance \(edges'):
        compare_runs([one, other], ['a', 'b'])
    with pytest.raises(ValueError, match=r"^unknown IoU type 'segmm'; did you mean 'segm'\? Known: bbox, segm"):
        compare_runs([one, one], ['a', 'b'], iou_types=['segmm'])
    both = replace(one, records={**one.records, 'segm': one.records['bbox']})
    with pytest.warns(UserWarning, match='^segm is not compared: only a has it$'):
        found = compare_runs([both, one], ['a', 'b'], Bootstrap(2))
    assert 'segm' not in found['evaluations'][0]


def test_equal_results_on_both_sides_warn():
    one, _, _ = small_run()
    with pytest.warns(UserWarning, match='^a and b have the same results, so their differences are 0$'):
        compare_runs([one, one], ['a', 'b'], Bootstrap(2))
    other = one.records['bbox']._replace(score=one.records['bbox'].score / 2)
    masks, others = (replace(one, records={'bbox': one.records['bbox'], 'segm': segm}) for segm in (one.records['bbox'], other))
    with pytest.warns(UserWarning, match='^a and b have the same bbox results, so their differences are 0$'):
        compare_runs([masks, others], ['a', 'b'], Bootstrap(2))
    halved = replace(one, records={'bbox': other})
    with pytest.warns(UserWarning, match='^a run of a and a run of b have the same results, so the sides differ too little$'):
        compare_runs([[one, halved], one], ['a', 'b'], Bootstrap(2))


def test_run_saved_from_a_device_is_on_the_cpu_and_comparable(device):
    """GPU results can be compared with each other and with saved runs."""
    data, results = many(num_images=16, per_image=10)
    runs = [evaluate(data, results, Evaluation(edges=(0, .5, 1)), device=on) for on in (device, 'cpu')]
    for run in runs:
        saved = run.saved_run()
        tensors = [*saved.records['bbox'], *saved.positives, saved.evaluations[0].members, saved.evaluations[0].columns]
        assert {tensor.device.type for tensor in tensors} == {'cpu'}
    for pair in (runs, runs[::-1], [runs[0], runs[0]], [runs[0], runs[1].saved_run()]):
        assert {row['difference'] for row in compare(*pair, bootstrap=Bootstrap(5)).rows()} <= {0, None}


def test_saved_run_moves_every_tensor_to_the_cpu():
    """Count device-to-host copies, which are also called if the device is the CPU."""
    result = evaluate(*many(num_images=16, per_image=10), Evaluation(edges=(0, .5, 1)))
    with Departures() as departures:
        result.saved_run()
    assert {column.numel() for column in (*result.records['bbox'], *result.targets.positives())} <= set(departures.sizes)


def test_intervals_are_clipped_to_the_range():
    """AP, recall and miss rate cannot exceed 1; duplicates per object can."""
    data, results = many(num_images=25, per_image=4)
    perfect = [dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.9)
               for entry in data['annotations'] if entry['id'] % 60 and not entry['iscrowd']]
    bootstrap = Bootstrap(50, null_sets=0, statistics=['AP', 'AR100', 'MR-2', 'recall@P80', 'loc_error', 'duplicates'])
    runs = [evaluate(data, found, Evaluation(edges=(0, 1)), bootstrap=bootstrap) for found in (perfect, results)]
    assert runs[0].report['bbox']['all']['recall@P80_ci'][1] == 1
    compared = compare(*runs, names=['one', 'two'], bootstrap=bootstrap).report['evaluations'][0]['bbox']['all']
    assert compared['AP']['value_intervals'][0][1] == compared['recall@P80']['value_intervals'][0][1] == 1
    for name in ('AP', 'AR100', 'MR-2', 'recall@P80', 'loc_error'):
        assert all(0 <= low <= high <= 1 for low, high in compared[name]['value_intervals'])
    assert STATISTICS['duplicates'].highest > 1
    text = compare(*runs, names=['one', 'two'], bootstrap=bootstrap).text()
    assert 'bbox MR-2 in %, lower is better, by' in text and 'bbox AP in % by' in text


def test_runs_in_memory_are_named_in_messages_and_means():
    data, results = many(num_images=25, per_image=4)
    first, second, third = (evaluate(data, results[number:], Evaluation(edges=(0, 1)), name=f'run{number}')
                            for number in range(3))
    assert compare([first, second], [third], bootstrap=Bootstrap(10)).report['runs'] == ['mean of run0 and 1 more', 'run2']
    ids = {image['id'] for image in data['images'][:20]}
    few, found = ([entry for entry in entries if entry['image_id'] in ids] for entries in (data['annotations'], results))
    other = evaluate(dict(data, images=data['images'][:20], annotations=few), found, name='few')
    with pytest.raises(ValueError, match='^run0 and few cannot be compared: they cover different images'):
        compare(first, other)
