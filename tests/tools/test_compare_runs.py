"""Run tools/compare_runs.py."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from mmtied.evaluation.records import name_runs, write_records
from tests.helpers.runs import small_run

TOOL = Path(__file__).parents[2] / 'tools/compare_runs.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('compare_runs', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def work_dirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('work_dirs')
    for name, noise in dict(base=2, tied=0, third=1).items():
        write_records(small_run(noise=noise, num_images=40)[0], folder / name / 'occlusion')
    write_records(small_run(edges=(0, 1), num_images=40)[0], folder / 'edges')
    return folder


@pytest.fixture
def run(tool, work_dirs, monkeypatch, capsys):
    def run(*args):
        monkeypatch.chdir(work_dirs)
        try:
            tool.main(args)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


def test_prints_tables_and_writes_files(run, work_dirs):
    code, out, err = run('base/occlusion', 'tied/occlusion/records.npz', 'third/occlusion', '--labels', 'base', 'tied', 'third',
                         '--replicates', '50', '--level', '0.9', '--seed', '3', '--out', 'out')
    assert code == 0, err
    assert 'bbox AP75 in % by occlusion ratio r (covered): tied - base' in out
    assert '90 % interval' in out
    plots = [f'difference_over_r_bbox_{name}.png' for name in ('AP', 'AP50', 'AP75')]
    names = ['comparison.csv', 'comparison.json', 'comparison.tex', *plots]
    assert sorted(path.name for path in (work_dirs / 'out').iterdir()) == names
    comparison = json.loads((work_dirs / 'out/comparison.json').read_text())
    assert comparison['intervals'] == dict(level=.9, replicates=50, seed=3, min_images=20,
                                           method='paired random halves and quarters of the images, Student t',
                                           statistics=['AP', 'AP50', 'AP75'])
    with (work_dirs / 'out/comparison.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3 * 2  # all images and four buckets; three statistics; two runs against the first
    row = next(row for row in rows if (row['name'], row['statistic'], row['run']) == ('all', 'AP', 'third'))
    expected = comparison['evaluations'][0]['bbox']['all']['AP']['differences'][1]
    assert {key: float(row[key]) for key in expected} == expected
    assert (row['baseline'], row['definition'], row['images']) == ('base', 'covered', '40')


def test_statistics_and_format(run, work_dirs):
    code, out, err = run('base/occlusion', 'tied/occlusion', '--names', 'one', 'two', '--statistics', 'AP75', '--replicates', '5',
                         '--format', 'pdf', '--hide-empty', '--out', 'pdf')
    assert code == 0, err
    assert 'bbox AP75 in %' in out and 'bbox AP in %' not in out
    assert [path.name for path in (work_dirs / 'pdf').glob('*.pdf')] == ['difference_over_r_bbox_AP75.pdf']
    code, _, err = run('base/occlusion', 'tied/occlusion', '--statistics', 'AP_S')
    assert code == 2 and err.startswith("error: intervals of AP_S: saved records have no area but 'all'; known: AP, AP50, ")
    code, out, err = run('base/occlusion', 'tied/occlusion', '--statistics', 'MR-2', 'duplicates', '--replicates', '5')
    assert code == 0, err
    assert 'bbox MR-2 in %' in out and 'bbox duplicates in %' in out and 'bbox AP in %' not in out


def test_several_seeds_a_side(run, work_dirs):
    code, out, err = run('--a', 'base/occlusion', 'third/occlusion', '--b', 'tied/occlusion', '--labels', 'plain', 'tied',
                         '--replicates', '50', '--out', 'seeds')
    assert code == 0, err
    assert 'bbox AP in % by occlusion ratio r (covered): tied - plain' in out
    assert run('base/occlusion', 'third/occlusion', 'tied/occlusion', '--replicates', '50', '--out', 'singles')[0] == 0
    seeds, singles = (json.loads((work_dirs / name / 'comparison.json').read_text())['evaluations'][0]['bbox']['all']['AP']
                      for name in ('seeds', 'singles'))
    base, third, tied = singles['values']
    assert seeds['values'] == pytest.approx([(base + third) / 2, tied], abs=1e-12)
    assert seeds['differences'][0]['difference'] == pytest.approx(tied - (base + third) / 2, abs=1e-12)
    widths = [row['high'] - row['low'] for row in (seeds['differences'][0], singles['differences'][1])]
    assert widths[0] > 0 and widths[0] != widths[1]


def test_run_labels():
    assert name_runs(['w/base/occlusion', 'w/tied/occlusion']) == ['base', 'tied']
    assert name_runs(['a/x', 'b/y']) == ['x', 'y']
    assert name_runs(['a/run/1', 'b/run/1', 'b/run/2']) == ['a/run/1', 'b/run/1', 'b/run/2']


@pytest.mark.parametrize(('args', 'message'), [
    (['base/occlusion'], 'expected at least two runs'),
    (['base/occlusion', 'nowhere'], 'nowhere: no such file'),
    (['--a', 'base/occlusion'], 'both --a RUN ... and --b RUN ...'),
    (['base/occlusion', '--a', 'base/occlusion', '--b', 'tied/occlusion'], 'both --a RUN ... and --b RUN ...'),
    (['--a', 'base/occlusion', 'base/occlusion', '--b', 'tied/occlusion'], 'have the same results; list each run of a side once'),
    (['base/occlusion', 'edges'], 'no buckets in common'),
    (['base/occlusion', 'tied/occlusion', '--replicates', '0'], '--replicates (num_replicates): expected an integer from 2'),
    (['base/occlusion', 'tied/occlusion', '--level', '95'], 'such as 0.95, got 95'),
    (['base/occlusion', 'tied/occlusion', '--iou-type', 'segm'], 'has no segm; it has bbox'),
    (['base/occlusion', 'tied/occlusion', '--labels', 'a'], 'distinct names, one per run'),
    (['base/occlusion', 'base/occlusion'], 'distinct names, one per run'),
])
def test_user_errors_exit_with_2(run, work_dirs, args, message):
    code, _, err = run(*args, '--out', 'never')
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (work_dirs / 'never').exists()
