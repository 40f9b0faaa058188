"""Means over seeds, with intervals and null bands but without values of single runs."""

import copy

import pytest

from mmtied.evaluation import Bootstrap, Evaluation, compare, evaluate
from mmtied.evaluation.reporting.headlines import first_sentences, headlines
from mmtied.evaluation.reporting.page import render_page
from mmtied.evaluation.reporting.runs import Run, add_seed_intervals, average_reports
from tests.helpers.report_cases import make_report
from tests.helpers.simulated import many, simulated


@pytest.fixture(scope='module')
def results():
    """Return four runs; the third has an additional evaluation between the two that all share."""
    data, _ = many(num_images=60, per_image=5)
    main, extra = Evaluation(edges=(0, .1, 1)), Evaluation(edges=(0, .1, 1), cumulative=True)
    more = Evaluation('pairwise', edges=(0, 1))
    return [evaluate(data, simulated(data, 'bbox', seed=seed), [main, more, extra] if seed == 2 else [main, extra],
                     bootstrap=Bootstrap(20, null_sets=19)) for seed in range(4)]


def means_of(sides):
    comparison = compare(*sides, names=['a', 'b'], bootstrap=Bootstrap(20)).report
    runs = [Run(name, average_reports([one.report for one in side])) for name, side in zip('ab', sides, strict=True)]
    for number, run in enumerate(runs):
        add_seed_intervals(run.report, comparison, number)
    return runs, comparison


def test_means_have_intervals_and_null_bands(results):
    runs, comparison = means_of([results[:2], results[2:]])
    page = render_page(runs, comparison=comparison)
    assert 'This report has no intervals' not in page and 'says nothing about occlusion' not in page
    assert 'random halves and quarters of the images and 2 seeds' in page and 'measured coverage' not in page
    assert 'p is the largest of the runs' in page
    last, (one, two) = runs[0].report['bbox']['buckets'][-1], (one.report['bbox']['buckets'][-1] for one in results[:2])
    for key in ('AP', 'AP_null', 'AP_excess', 'AP_matched_null', 'matched_own'):
        assert last[key] == pytest.approx((one[key] + two[key]) / 2, abs=1e-12)
    assert last['AP_ci'] == comparison['evaluations'][0]['bbox']['buckets'][-1]['AP']['value_intervals'][0]
    assert last['AP_excess_ci'] == pytest.approx([end - last['AP_null'] for end in last['AP_ci']])
    same_side = one['AP_excess'] * two['AP_excess'] > 0
    assert last['AP_excess_p'] == (max(one['AP_excess_p'], two['AP_excess_p']) if same_side else 1)


def test_evaluations_are_paired_by_what_they_are(results):
    """The third run has an additional evaluation."""
    runs, comparison = means_of([[results[2], results[3]], results[:2]])
    further, = runs[0].report['further']
    assert further['cumulative']
    expected = comparison['evaluations'][1]['bbox']['buckets'][0]['AP']['value_intervals'][0]
    assert further['bbox']['buckets'][0]['AP_ci'] == expected


def test_runs_without_null_bands_leave_them_out(results):
    bare = copy.deepcopy(results[1].report)
    del bare['null_bands']
    mean = average_reports([results[0].report, bare])
    assert 'null_bands' not in mean
    assert not [key for key in mean['bbox']['buckets'][0] if 'null' in key or 'excess' in key or 'own' in key]
    with pytest.raises(ValueError, match='no evaluation in common'):
        average_reports([results[0].report, {**bare, 'definition': 'other', 'further': []}])


def test_headlines_are_about_the_statistic_with_intervals():
    """Occluded objects are missed: the miss rate is above that of random sets, which is worse."""
    data, _ = many(num_images=60, per_image=5)
    report = evaluate(data, simulated(data, 'bbox'), Evaluation(edges=(0, .1, 1)),
                      bootstrap=Bootstrap(10, null_sets=9, statistics=['MR-2'])).report
    row = report['bbox']['buckets'][-1]
    row |= {'MR-2_matched_excess': .1, 'MR-2_matched_excess_p': .004, 'MR-2_matched_excess_ci': [.05, .15]}
    text = first_sentences(Run('x', report), 'bbox')
    assert f'MR-2 is {100 * row["MR-2"]:.1f} %' in text
    assert 'So occlusion raises its MR-2 beyond what crowding' in text
    line, = headlines([Run('x', report)])
    assert (line.statistic, line.overall[0], line.matched[0]) == ('MR-2', f'{100 * report["bbox"]["all"]["MR-2"]:.1f}', '+10.0')
    row['MR-2_matched_excess'] = -.1
    assert 'So occlusion does not raise its MR-2' in first_sentences(Run('x', report), 'bbox')


def test_buckets_of_few_images_are_said_beside_the_verdict():
    """Regression: with 100 images, the page presented the bucket (0,0.1) as high occlusion."""
    report = make_report(edges=(0, .1, .2, .3, 1), iou_types=('bbox', ))
    for row, images in zip(report['bbox']['buckets'], (30, 40, 12, 1, 0), strict=True):
        row['images'] = images
    text = first_sentences(Run('x', report), 'bbox')
    assert text.endswith(' 2 buckets with more occlusion have fewer than 20 images and cannot be judged; use wider ones '
                         '(--edges 0 0.2 0.5 1).')
    report['bbox']['buckets'][2]['images'] = 25
    assert ' 1 bucket with more occlusion has fewer' in first_sentences(Run('x', report), 'bbox')
    report['bbox']['buckets'][3]['images'] = 0
    assert 'with more occlusion' not in first_sentences(Run('x', report), 'bbox')
