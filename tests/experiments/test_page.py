"""docs/evidence.md matches the stored results."""

import json

import pytest

from experiments import page, runs, tie_only, warm_start
from experiments.analysis import CHANGE
from experiments.detectors_section import signed
from experiments.runs import RESULTS

COMPARISON = json.loads((RESULTS / 'cpu/occlusion/comparison.json').read_text())
SIDES = page.finished(page.occlusion, 'cpu')
IOU_TYPES = page.occlusion.QUESTION.iou_types


def test_the_page_is_made_of_the_kept_results():
    assert COMPARISON['runs'] == [run.name for side in SIDES.values() for run in side], 'run python experiments/page.py'
    assert page.PAGE.read_text() == page.make_page('cpu'), 'run python experiments/page.py'


@pytest.mark.parametrize('iou_type', IOU_TYPES)
def test_values_are_those_of_the_reports(iou_type):
    for model, side in SIDES.items():
        reports = [json.loads((run.results / 'report.json').read_text())[iou_type] for run in side]
        for statistic in page.MEASURES:
            kept = COMPARISON[iou_type]['all'][statistic][model]['seeds']
            assert kept == pytest.approx([report['all'][statistic] for report in reports], abs=1e-9)


@pytest.mark.parametrize('iou_type', IOU_TYPES)
def test_differences_are_those_of_the_means(iou_type):
    for band in [*page.occlusion.QUESTION.bands, CHANGE]:
        for of_model in COMPARISON[iou_type][band].values():
            baseline, *others = of_model.values()
            for row in others:
                assert row['difference'] == pytest.approx(row['value'] - baseline['value'], abs=1e-12)
                assert row['low'] < row['difference'] < row['high']


def test_readme_has_the_numbers_of_the_page():
    readme = (page.ROOT / 'README.md').read_text()
    for model in ('tied', 'tied_s'):
        assert signed(COMPARISON['bbox']['r >= 0.8']['AP'][model]) in readme
    assert signed(COMPARISON['controls']['tied_s']['bbox']['r >= 0.8']['AP']['tied_s']) in readme


def test_the_page_on_tying_has_the_numbers_of_the_page():
    text = ' '.join((page.ROOT / 'docs/tie.md').read_text().split())
    before = warm_start.last_ap(warm_start.teacher('cpu'))
    by_budget = {row['budget']: row for row in tie_only.read_results('cpu')}
    weights = by_budget[None]['weights']
    some, most = by_budget[.4], by_budget[.6]
    assert f'tying the {some["layers"]} largest layers (two thirds of the weights)' in text
    assert some['weights'] / weights == pytest.approx(2 / 3, abs=.01)
    assert f'({100 * some["AP"]:.1f} after {100 * before:.1f} %)' in text
    assert most['weights'] / weights == pytest.approx(.9, abs=.02)
    assert f'tying {most["layers"]} of them (nine tenths) left {100 * most["AP"]:.1f} %' in text


@pytest.mark.parametrize(('model', 'said'), [(None, 'no results of the preset gpu; train them with'),
                                             ('tied', 'occlusion, preset gpu: no finished run of r50')])
def test_a_page_without_results_is_one_line(tmp_path, monkeypatch, capsys, model, said):
    for module in (runs, page):
        monkeypatch.setattr(module, 'RESULTS', tmp_path)
    if model:
        runs.Run('occlusion', 'gpu', model, 0).keep({}, {})
    monkeypatch.setattr('sys.argv', ['page.py', '--preset', 'gpu'])
    before = page.PAGE.read_bytes()
    with pytest.raises(SystemExit) as stop:
        page.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1
    assert page.PAGE.read_bytes() == before


@pytest.mark.parametrize(('tied', 'said'), [(.2, 'less alike than'), (.8, 'more alike than'),
                                            (.5, 'as far as these seeds can tell')])
def test_the_section_on_filters_says_what_its_numbers_say(tmp_path, monkeypatch, tied, said):
    monkeypatch.setattr(runs, 'RESULTS', tmp_path)
    for model, mean in (('plain', .5), ('tied', tied)):
        for seed in range(2):
            runs.Run('classification', 'cpu', model, seed).keep({}, {
                'model': model, 'backbone_parameters': 269_072, 'multiply_adds': 40.5e6, 'accuracy': 60 + seed, 'resumed': False,
                'processor_seconds': 600, 'weights': {'mean': .1, 'by_chance': .07},
                'patterns': {'mean': mean + .01 * seed, 'above_half': .25}})
    text = page.classification_section('cpu', page.finished(page.classification, 'cpu'))
    assert said in text
    assert f'| 269k | 40.5M | 60.5 ± 0.7 | 0.100 ± 0.000 | 0.070 | {tied + .005:.2f} ± 0.01 | 25.0 ± 0.0 |' in text
