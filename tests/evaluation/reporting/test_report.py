import csv
import json

import numpy as np
import pytest

from mmtied.evaluation.reporting.files import write_report
from mmtied.evaluation.reporting.plots import plot_ap_over_r, write_plot
from mmtied.evaluation.reporting.runs import read_report
from mmtied.evaluation.reporting.tables import format_tables
from mmtied.plotting import to_rgb
from tests.helpers.report_cases import make_report


@pytest.fixture
def report():
    row = dict(images=3, instances=7, categories=2, AP=.25, AP50=.5, AP75=.125, AP_S=None, AP_M=.3, AP_L=.4)
    empty = dict(images=0, instances=0, categories=0, **dict.fromkeys(('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')))
    buckets = [dict(name='r=0', lower=0., upper=0., **row), dict(name='(0,0.5)', lower=0., upper=.5, **empty),
               dict(name='[0.5,1]', lower=.5, upper=1., **row)]
    return {'definition': 'covered', 'bbox': {'all': row, 'buckets': buckets}, 'segm': {'all': row, 'buckets': buckets}}


def test_json_round_trip(report, tmp_path):
    paths = write_report(report, tmp_path / 'new/folder')
    assert [path.name for path in paths] == ['report.json', 'buckets.csv']
    assert read_report(paths[0]) == report
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ['buckets.csv', 'report.json']


def test_csv_rows(report, tmp_path):
    with write_report(report, tmp_path)[1].open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['iou_type'], row['name']) for row in rows] == [
        (iou_type, name) for iou_type in ('bbox', 'segm') for name in ('all', 'r=0', '(0,0.5)', '[0.5,1]')]
    assert rows[3]['AP75'] == '0.125'
    assert rows[2]['AP'] == rows[0]['lower'] == ''
    assert {row['definition'] for row in rows} == {'covered'}


def test_table_cells(report):
    lines = format_tables(report).splitlines()
    cells = [line.split() for line in lines]
    assert lines[0] == 'bbox: AP in % by occlusion ratio r (covered)'
    assert cells[1] == ['r', 'images', 'instances', 'categories', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L']
    assert cells[3] == ['all', '3', '7', '2', '25.0', '50.0', '12.5', '-', '30.0', '40.0']
    assert [row[0] for row in cells[4:7]] == ['r=0', '(0,0.5)', '[0.5,1]']
    assert cells[5][4:] == ['-'] * 6
    assert format_tables(report).isascii()


@pytest.mark.parametrize('content', ['{}', '[]', '{"definition": "covered"}', '{"definition": "", "bbox": {"all": {}}}'])
def test_rejects_other_json(tmp_path, content):
    path = tmp_path / 'report.json'
    path.write_text(content)
    with pytest.raises(ValueError, match='not an occlusion report'):
        read_report(path)


def test_rejects_nan_and_keeps_previous_file(report, tmp_path):
    write_report(report, tmp_path)
    report['bbox']['all']['AP'] = float('nan')
    with pytest.raises(ValueError, match='JSON'):
        write_report(report, tmp_path)
    assert json.loads((tmp_path / 'report.json').read_text())['bbox']['all']['AP'] == .25


def test_plot_shows_buckets_and_counts(report, tmp_path):
    figure = plot_ap_over_r(report, 'bbox')
    curves, bars, instances = figure.axes
    by_name = {line.get_label().split()[0]: line for line in curves.lines}
    np.testing.assert_array_equal(by_name['AP75'].get_ydata(), [12.5, np.nan, 12.5])
    assert [bar.get_height() for bar in bars.patches] == [3, 0, 3]
    assert [bar.get_height() for bar in instances.patches] == [7, 0, 7]
    assert [label.get_text() for label in instances.get_xticklabels()] == ['r=0', '(0,0.5)', '[0.5,1]']
    picture = to_rgb(figure)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.std() > 0
    assert write_plot(figure, tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_table_and_csv_with_intervals_and_controls(tmp_path):
    further = [make_report(1, edges=(0, 1), unit='instance', iou_types=('bbox',))]
    report = make_report(empty=(1,), iou_types=('bbox',), further=further)
    paths = write_report(report, tmp_path)
    assert read_report(paths[0]) == report
    with paths[1].open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['unit'] for row in rows] == ['image'] * 5 + ['instance'] * 3
    assert list(rows[0])[:5] == ['definition', 'iou_type', 'name', 'lower', 'upper']
    buckets = report['bbox']['buckets']
    assert (float(rows[1]['AP_ci_low']), float(rows[1]['AP_ci_high'])) == tuple(buckets[0]['AP_ci'])
    assert float(rows[3]['AP75_shared']) == buckets[2]['AP75_shared']
    assert int(rows[4]['instances_large']) == buckets[3]['instances_large']
    assert rows[2]['AP_ci_low'] == rows[2]['instances_per_image'] == ''
    table = format_tables(report)
    assert '{:.1f}..{:.1f}'.format(*(100 * end for end in buckets[0]['AP_ci'])) in table
    assert f'{100 * buckets[0]["AP_shared"]:.1f}' in table
    assert 'bbox: AP in % by occlusion ratio r (covered, by instance)' in table
    assert table.isascii()
    assert max(map(len, table.splitlines())) < 140


def test_names_are_escaped(report):
    hostile = '[red]x[/red] [/]'
    report['definition'] = report['bbox']['buckets'][0]['name'] = hostile
    table = format_tables(report)
    assert f'bbox: AP in % by occlusion ratio r ({hostile})' in table
    assert f'\n{hostile}  ' in table
