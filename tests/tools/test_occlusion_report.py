"""Run tools/occlusion_report.py."""

import importlib.util
import json
from pathlib import Path

import pytest

from mmtied.evaluation.records import name_runs, write_records
from mmtied.evaluation.reporting.files import write_report
from mmtied.evaluation.reporting.runs import read_runs, read_sides
from tests.helpers.report_cases import make_old_report, make_report
from tests.helpers.runs import small_run

TOOL = Path(__file__).parents[2] / 'tools/occlusion_report.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('occlusion_report', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(('r50', 'tied')):
        write_report(make_report(seed, iou_types=('bbox',)), tmp_path / name / 'occlusion')

    def run(*args):
        monkeypatch.chdir(tmp_path)
        try:
            tool.main(args)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


def test_writes_page_of_all_runs(run, tmp_path):
    assert run('new/page.html', 'r50/occlusion', 'tied/occlusion/report.json') == (0, 'wrote new/page.html\n', '')
    assert '<title>AP by occlusion: r50, tied</title>' in (tmp_path / 'new/page.html').read_text()


def test_means_of_several_seeds_with_paired_gains(run, tmp_path):
    for name, noise in dict(plain0=2., plain1=2.5, tied0=0., tied1=.5).items():
        saved, report, _ = small_run(noise=noise, num_images=40)
        write_records(saved, tmp_path / name)
        write_report(report, tmp_path / name)
    assert run('page.html', '--a', 'plain0', 'plain1', '--b', 'tied0', 'tied1', '--names', 'plain', 'tied', '--hide-empty')[::2] \
        == (0, '')
    page = (tmp_path / 'page.html').read_text()
    assert '<title>AP by occlusion: plain, tied</title>' in page
    runs, comparison = read_sides([[tmp_path / 'plain0', tmp_path / 'plain1'], [tmp_path / 'tied0', tmp_path / 'tied1']])
    singles = read_runs([tmp_path / 'tied0', tmp_path / 'tied1'])
    assert [one.name for one in runs] == ['a', 'b']
    row = runs[1].report['bbox']['all']
    assert row['AP'] == pytest.approx(sum(one.report['bbox']['all']['AP'] for one in singles) / 2)
    assert row['AP_ci'] == comparison['evaluations'][0]['bbox']['all']['AP']['value_intervals'][1]


def test_curves_as_files_and_hidden_buckets(run, tmp_path):
    report = make_report(iou_types=('bbox',), empty=(1,))
    report['name'] = 'Tied & co'
    write_report(report, tmp_path / 'one')
    code, out, err = run('page.html', 'one', '--format', 'svg', '--hide-empty')
    assert (code, err) == (0, '')
    assert out.splitlines() == [f'wrote {name}' for name in ('page.html', 'page_bbox_AP.svg', 'page_bbox_AP75.svg')]
    page, curve = ((tmp_path / name).read_text() for name in ('page.html', 'page_bbox_AP.svg'))
    assert '<title>AP by occlusion: Tied &amp; co</title>' in page and '(0,0.4)' not in page + curve
    assert 'Tied &amp; co (all images' in curve and '[0.4,0.8)' in curve


@pytest.mark.parametrize(('args', 'message'), [
    (('page.html', 'nowhere'), 'nowhere: no such file'),
    (('page.html', 'r50/occlusion', '--names', 'a', 'b'), '1 runs need 1 names, got 2: a, b'),
    (('page.html', 'r50/occlusion', 'tied/occlusion', '--names', 'a', 'a'), 'distinct names'),
    (('page.html', 'other.json'), 'other.json: not an occlusion report'),
    (('page.html', 'r50/occlusion', 'old.json'), 'need the same IoU types'),
    (('page.json', 'r50/occlusion'), 'expected a file name that ends in .html'),
])
def test_user_errors_exit_with_2(run, tmp_path, args, message):
    (tmp_path / 'other.json').write_text('{"definition": "covered", "bbox": {"all": {}, "buckets": []}}')
    (tmp_path / 'old.json').write_text(json.dumps(make_old_report()))
    code, out, err = run(*args)
    assert (code, out) == (2, '')
    assert message in err
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('page.*'))


@pytest.mark.parametrize(('folders', 'names'), [
    (['a/occlusion'], ['a']), (['a/results'], ['results']), (['x/a/occlusion', 'x/b/occlusion'], ['a', 'b']),
    (['x/a', 'y/a'], ['x', 'y']), (['x/a', 'y/a', 'y/b'], ['x/a', 'y/a', 'y/b']), (['a', 'b/occlusion'], ['a', 'b']),
    (['x/a', 'x/a', 'x/b'], ['a', 'a', 'b']),
])
def test_run_labels(folders, names):
    assert name_runs([Path('/runs', folder, 'report.json') for folder in folders]) == names


def test_reads_old_reports(tmp_path):
    write_report(make_old_report(), tmp_path)
    assert read_runs([tmp_path], ['old'])[0].report == make_old_report()
