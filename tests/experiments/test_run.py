"""experiments/run.py trains what is missing, keeps small files, and gives the same numbers again."""

import csv
import json
import sys

import pytest

from experiments import occlusion, run, runs
from mmtied.evaluation import read_records

TINY = occlusion.Preset(seeds=1, base_channels=32, size=64, train_images=4, val_images=2, epochs=1, batch_size=2)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that runs the command with a tiny preset and folders of the test."""
    monkeypatch.setitem(occlusion.PRESETS, 'cpu', TINY)
    monkeypatch.setattr(runs, 'RESULTS', tmp_path / 'results')

    def start(*words: str):
        monkeypatch.setattr(sys, 'argv', ['run.py', 'occlusion', '--data', str(tmp_path / 'data'), '--work-dir',
                                          str(tmp_path / 'work'), *words])
        run.main()

    return start


def test_a_run_keeps_small_files_and_is_not_repeated(start, tmp_path, capsys):
    start('--here', '--only', 'tied_s/seed0')
    folder = tmp_path / 'results/cpu/occlusion/tied_s/seed0'
    summary = json.loads((folder / 'run.json').read_text())
    assert summary['steps'] == 2 and summary['threads'] == 1 and not summary['resumed']
    assert read_records(folder).records.keys() == {'bbox', 'segm'}
    with (folder / 'losses.csv').open() as file:
        assert 'loss_mask' in next(csv.reader(file))
    written = (folder / 'run.json').stat().st_mtime_ns
    start('--here', '--only', 'tied_s/*')
    assert (folder / 'run.json').stat().st_mtime_ns == written
    capsys.readouterr()
    start('--list')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if 'done' in line] == ['tied_s/seed0'] and len(lines) == len(occlusion.MODELS)


def test_an_unknown_run_is_named(start, capsys):
    with pytest.raises(SystemExit) as stop:
        start('--only', 'tide/*')
    assert stop.value.code == 2
    assert 'no such run; there are r50, tied' in capsys.readouterr().err
