"""A registered statistic appears in every output without further code."""

import csv

import numpy as np
import pytest

from mmtied.evaluation import STATISTICS, Bootstrap, Evaluation, Statistic, compare, evaluate, register_statistic
from mmtied.evaluation.reporting.page import render_page
from mmtied.evaluation.reporting.runs import Run
from mmtied.evaluation.reporting.tables import format_comparison, format_tables, scalars
from tests.helpers.simulated import many

EDGES = (0, .3, 1)


@pytest.fixture
def results():
    """Evaluate two runs with AP90, which is bootstrapped, and AR50."""
    data, detections = many(num_images=48, per_image=6)
    added = [Statistic('AP90', iou=.9, bootstrapped=True, logged_by_bucket=True), Statistic('AR50', max_dets=50, recall=True)]
    for statistic in added:
        register_statistic(statistic)
    try:
        yield [evaluate(data, found, Evaluation(edges=EDGES), bootstrap=Bootstrap(20, null_sets=5), name=name)
               for name, found in (('first', detections), ('second', detections[::2]))]
    finally:
        for statistic in added:
            del STATISTICS[statistic.name]


def test_new_statistic_reaches_every_output(results, tmp_path):
    first, second = results
    row = first.report['bbox']['all']
    assert 0 < row['AP90'] <= row['AP50']
    assert 0 < row['AR50'] <= 1
    assert f'{100 * row["AP90"]:.1f}' in format_tables(first.report)
    header = next(line for line in format_tables(first.report).splitlines() if line.startswith('r '))
    assert [name for name in ('AP90', 'AR50') if name in header] == ['AP90', 'AR50']
    first.save(tmp_path)
    with (tmp_path / 'buckets.csv').open() as file:
        written = next(csv.DictReader(file))
    assert float(written['AP90']) == row['AP90']
    assert float(written['AR50']) == row['AR50']
    assert float(written['AP90_ci_low']) == row['AP90_ci'][0]
    page = render_page([Run('first', first.report), Run('second', second.report)])
    assert 'bbox AP90 at IoU 0.90, over r. Dashed' in page
    assert 'AP50 at IoU 0.50; AP75 at IoU 0.75; ' in page and 'AP: AP' not in page
    assert 'AR50 at IoU 0.50:0.95, at most 50 detections' in page
    values = scalars(first.report, ['bbox'], [Evaluation(edges=EDGES)])
    assert values['bbox_mAP_90'] == row['AP90']
    assert values['bbox_AR@50'] == row['AR50']
    assert 'bbox_mAP_90_r0' in values
    comparison = compare(first, second, bootstrap=Bootstrap(20))
    assert 'bbox AP90 in % by occlusion ratio r (covered): second - first' in format_comparison(comparison.report)
    comparison.save(tmp_path)
    with (tmp_path / 'comparison.csv').open() as file:
        assert {line['statistic'] for line in csv.DictReader(file)} == {'AP', 'AP50', 'AP75', 'AP90'}


def test_reports_without_new_statistic(results, tmp_path):
    first, _ = results
    for rows in (first.report['bbox']['all'], *first.report['bbox']['buckets']):
        for key in ('AP90', 'AP90_ci', 'AR50'):
            del rows[key]
    assert 'AP90' not in format_tables(first.report)
    assert 'AP90' not in render_page([Run('first', first.report)])
    first.plot()


@pytest.mark.parametrize('statistic', ['AP', 'AP75', 'AP90'])
def test_comparison_plot(results, statistic):
    comparison = compare(*results, bootstrap=Bootstrap(20))
    axes, = comparison.plot(statistic=statistic).axes
    differences = [bucket[statistic]['differences'][0] for bucket in comparison.report['evaluations'][0]['bbox']['buckets']]
    drawn = next(line.get_ydata() for line in axes.lines if len(line.get_ydata()) == len(differences))
    expected = [np.nan if one['difference'] is None else 100 * one['difference'] for one in differences]
    np.testing.assert_array_equal(drawn, expected)
    stems, = [collection for collection in axes.collections if hasattr(collection, 'get_segments')]
    ends = [segment[:, 1] for segment in stems.get_segments() if len(segment)]
    np.testing.assert_allclose(ends, [[100 * one['low'], 100 * one['high']] for one in differences if one['low'] is not None])
    assert statistic in axes.get_ylabel() and 'first, points' in axes.get_ylabel()
    label, = [text.get_text() for text in axes.get_legend().get_texts()]
    overall = comparison.report['evaluations'][0]['bbox']['all'][statistic]['differences'][0]['difference']
    assert label == f'second (all images {100 * overall:+.1f})'


def test_comparison_of_chosen_statistics(results, tmp_path):
    comparison = compare(*results, bootstrap=Bootstrap(20))
    written = {path.name for path in comparison.save(tmp_path, statistics=['AP90'], format='svg')}
    assert written == {'comparison.json', 'comparison.csv', 'comparison.tex', 'difference_over_r_bbox_AP90.svg'}
    assert (tmp_path / 'comparison.tex').read_text() == comparison.latex(['AP90'])
    assert comparison.latex(['AP90']).count(r'\begin{tabular}{lrrrrrrr}') == 1
    assert comparison.latex().count(r'\begin{tabular}') == 4
    for wrong in (lambda: comparison.plot(statistic='AP51'), lambda: comparison.save(tmp_path, ['AP51']),
                  lambda: comparison.text(['AP51'])):
        with pytest.raises(ValueError, match="statistic 'AP51' was not compared; use one of AP, AP50, AP75, AP90"):
            wrong()


@pytest.mark.usefixtures('blank_figures')
def test_requested_statistics_are_compared_with_random_sets():
    result = evaluate(*many(num_images=60, per_image=6), Evaluation(edges=(0, .15, 1)),
                      bootstrap=Bootstrap(20, null_sets=10, statistics=['MR-2']))
    row = next(row for row in result.report['bbox']['buckets'] if row['MR-2_excess'] is not None)
    assert 'MR-2_matched_excess' in next(line for line in format_tables(result.report).splitlines() if 'MR-2 interval' in line)
    notes = format_tables(result.report).split('\n\n')[-1].splitlines()
    assert [note.partition(':')[0] for note in notes] == ['excess', 'matched']
    page = render_page([Run('run', result.report)])
    compared = page[page.index('Compared with random sets'):page.index('Results in %')]
    assert f'{100 * row["MR-2_excess"]:+.1f}' in compared and 'MR-2' in compared and 'AP75' not in compared


@pytest.mark.parametrize('requested', [['MR-2', 'AR100'], ['AR100', 'MR-2'], ['duplicates', 'AP']])
@pytest.mark.usefixtures('blank_figures')
def test_page_leads_with_the_first_statistic_that_was_requested(requested):
    result = evaluate(*many(num_images=60, per_image=6), Evaluation(edges=(0, .15, 1)),
                      bootstrap=Bootstrap(20, null_sets=0, statistics=requested))
    page = render_page([Run('run', result.report)])
    lead = requested[0]
    assert page.count(f'alt="bbox {lead} over the occlusion ratio r') == 1  # in front, and not repeated among the details
    figures = [f'alt="bbox {name} over' for name in dict.fromkeys([lead, 'AP', 'AP75'])]
    assert sorted(figures, key=page.index) == figures
    assert f'instances): {lead} is ' in page[:page.index(figures[0])]
