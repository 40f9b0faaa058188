"""docs/evidence.md is what the kept results say."""

import json

import pytest

from experiments import page
from experiments.runs import RESULTS

SIDES = page.finished('cpu')
COMPARISON = json.loads((RESULTS / 'cpu/occlusion/comparison.json').read_text())


def test_the_page_is_made_of_the_kept_results():
    assert COMPARISON['runs'] == [run.name for side in SIDES.values() for run in side], 'run python experiments/page.py'
    assert page.PAGE.read_text() == page.make_page('cpu', SIDES, COMPARISON), 'run python experiments/page.py'


@pytest.mark.parametrize('iou_type', page.IOU_TYPES)
def test_values_are_those_of_the_reports(iou_type):
    for model, side in SIDES.items():
        reports = [json.loads((run.results / 'report.json').read_text())[iou_type] for run in side]
        for statistic in page.MEASURES:
            kept = COMPARISON[iou_type]['all'][statistic][model]['seeds']
            assert kept == pytest.approx([report['all'][statistic] for report in reports], abs=1e-9)


@pytest.mark.parametrize('iou_type', page.IOU_TYPES)
def test_differences_are_those_of_the_means(iou_type):
    for band in page.BANDS_IN_WORDS:
        for of_model in COMPARISON[iou_type][band].values():
            baseline, *others = of_model.values()
            for row in others:
                assert row['difference'] == pytest.approx(row['value'] - baseline['value'], abs=1e-12)
                assert row['low'] < row['difference'] < row['high']


def test_readme_has_the_numbers_of_the_page():
    readme = (page.ROOT / 'README.md').read_text()
    for model in ('tied', 'tied_s'):
        assert page.signed(COMPARISON['bbox']['r >= 0.8']['AP'][model]) in readme
