"""AP by category and bucket, against evaluations of single categories."""

import csv

import pytest

from mmtied.evaluation import Evaluation, evaluate
from mmtied.evaluation.reporting.categories import category_rows, heat_map
from tests.helpers.simulated import many

EVALUATION = Evaluation(edges=(0, .3, .6, 1))


def test_equals_evaluations_of_one_category(tmp_path):
    data, results = many(num_images=16, per_image=10)
    result = evaluate(data, results, EVALUATION)
    rows = {row['category']: row for row in result.category_rows()}
    for name in ('0', '1', '2'):
        alone = evaluate(data, results, EVALUATION, classes=[name]).report['bbox']
        assert (rows[name]['AP'], rows[name]['instances']) == (pytest.approx(alone['all']['AP']), alone['all']['instances'])
        for bucket in alone['buckets']:
            value = rows[name][f'AP {bucket["name"]}']
            assert value == (None if bucket['AP'] is None else pytest.approx(bucket['AP'], abs=1e-12))
            assert rows[name][f'instances {bucket["name"]}'] == bucket['instances']
    result.save(tmp_path)
    with (tmp_path / 'categories.csv').open() as file:
        assert [row['category'] for row in csv.DictReader(file)] == list(rows)
    assert '<th scope="col">category</th>' in (tmp_path / 'report.html').read_text()


def test_those_that_fall_most_come_first():
    report = dict(definition='covered', bbox=dict(buckets=[dict(name='r=0'), dict(name='(0,1]')]), per_category=dict(
        names=['falls', 'rises', 'rare'], groups=['all', 'r=0', '(0,1]'], instances=[[40, 40, 5], [20, 20, 3], [20, 20, 2]],
        bbox=[[.5, .5, .5], [.9, .2, .9], [.3, .6, .1]]))
    rows = category_rows(report)
    assert [row['category'] for row in rows] == ['falls', 'rises', 'rare']
    assert [row['change'] for row in rows] == [pytest.approx(-.6), pytest.approx(.4), None]
    table = heat_map(report, 'bbox')
    assert [(name, change) for name, change, _ in table.rows] == [('falls', '-60.0'), ('rises', '+40.0'), ('rare', '')]
    assert [[text for text, *_ in cells] for *_, cells in table.rows] == [['50', '90', '30'], ['50', '20', '60'], ['', '', '']]
    colors = {text: background for *_, cells in table.rows for text, background, _ in cells}
    assert colors['90'] == '#fee838' and colors[''] == 'none'  # the highest value has the last color of cividis


    report['definition'] = 'field:vis_ratio'  # may fall with occlusion, so order by absolute change
    report['bbox']['buckets'] = [dict(name='(0,0.5)'), dict(name='[0.5,1]')]
    report['per_category']['bbox'] = [[.5, .5, .5], [.5, .2, .9], [.3, .6, .1]]
    assert [row['category'] for row in category_rows(report)] == ['rises', 'falls', 'rare']


def test_a_single_category_has_no_heat_map():
    data, results = many(num_images=4, per_image=5, num_categories=3)
    assert 'per_category' not in evaluate(data, results, EVALUATION, classes=['0']).report
