"""benchmarks/gpu_check.sh without a GPU: order, limits, summary and commands; its evaluation on a device that is pretended."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tarfile
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.helpers.pages import ROOT
from tests.helpers.pretend import PretendCuda
from tests.helpers.torch_versions import HAS_PRETEND_CUDA

SCRIPT = ROOT / 'benchmarks' / 'gpu_check.sh'
FAKE = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in *get_device_capability*) echo {capability}; exit;; esac
{behaviour}
case "$*" in *--csv*) for last; do :; done; echo row > "$last";; esac
"""


@pytest.fixture
def check(tmp_path):
    """Return a function that runs the script with a stand-in for Python, and returns its summary as {part: result}."""
    def run(*arguments, capability='9.0', behaviour='', code=0, **environment):
        fake = tmp_path / 'python'
        fake.write_text(FAKE.format(folder=tmp_path, capability=capability, behaviour=behaviour))
        fake.chmod(0o755)
        done = subprocess.run(['bash', SCRIPT, *arguments], capture_output=True, text=True,
                              env={**os.environ, 'OUT': str(tmp_path / 'out'), 'PYTHON': str(fake), **environment})
        assert done.returncode == code, done.stdout + done.stderr
        rows = re.findall(r'^\| (.+) \| (.+) \| \d+ \|$', (tmp_path / 'out' / 'summary.md').read_text(), re.MULTILINE)
        assert rows[0] and '\n'.join(f'| {name} | {result} |' for name, result in rows[:1]) in done.stdout
        return dict(rows)
    return run


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / 'wheels'
    folder.mkdir()
    (folder / 'a.whl').touch()
    (tmp_path / 'setup.py').touch()
    with tarfile.open(folder / 'onedl_mmcv-1.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'setup.py', 'onedl_mmcv-1/setup.py')
    return folder


def test_every_part_runs_and_leaves_its_rows(check, wheels, tmp_path):
    summary = check(wheels)
    assert set(summary.values()) == {'ok'} and len(summary) == 14
    assert list(summary)[:2] == ['install', 'layer tests'] and 'mmcv with its operators (background)' in summary
    with tarfile.open(tmp_path / 'out' / 'csv.tar.gz') as archive:
        assert sum(name.endswith('_cuda.csv') for name in archive.getnames()) == 7
    assert len(list((tmp_path / 'out').iterdir())) == 3


@pytest.mark.slow
def test_it_runs_whole_on_a_cpu(tmp_path):
    """With tiny sizes and without the compiler, which alone takes minutes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST_')}
    done = subprocess.run(['bash', SCRIPT, '--smoke'], capture_output=True, text=True, env={
        **environment, 'OUT': str(tmp_path), 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '', 'TORCHDYNAMO_DISABLE': '1'})
    summary = re.findall(r'^\| (.+) \| (.+) \| \d+ \|$', (tmp_path / 'summary.md').read_text(), re.MULTILINE)
    log = (tmp_path / 'log.txt').read_text()
    assert done.returncode == 0 and len(summary) == 12 and {result for _, result in summary} == {'ok'}, done.stdout + log[-3000:]
    with tarfile.open(tmp_path / 'csv.tar.gz') as archive:
        tables = [name for name in archive.getnames() if name.endswith('_cuda.csv')]
        assert len(tables) == 7 and all(archive.extractfile(name).read().count(b'\n') > 1 for name in tables)


def test_a_part_that_fails_does_not_stop_the_next(check, tmp_path):
    summary = check(behaviour='case "$*" in *layers.py*) echo broken; exit 3;; esac', code=1)
    assert summary['layers'] == 'failed with exit status 3'
    assert {result for name, result in summary.items() if name != 'layers'} == {'ok'}
    assert 'broken' in (tmp_path / 'out' / 'log.txt').read_text()


def test_parts_end_in_time(check):
    summary = check(behaviour='case "$*" in *-c*) ;; *equality*) sleep 60;; esac', code=1, TOTAL='106')
    assert re.fullmatch(r'timed out after [56] s', summary['evaluation equals pycocotools'])
    assert summary['layers'] == 'skipped: no time left'
    assert summary['Mask R-CNN steps'] == 'ok'  # the seconds reserved for it


def test_without_the_operators_detectors_are_skipped(check, wheels):
    behaviour = 'case "$*" in *setup.py*) exit 1;; *mmcv._ext*) exit 1;; esac'
    summary = check(wheels, behaviour=behaviour, code=1)
    assert summary['mmcv with its operators (background)'] == 'failed with exit status 1'
    assert summary['Mask R-CNN steps'] == summary['training and val loop'] == 'skipped: no mmcv._ext'
    assert summary['compiled training'] == 'ok'


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--quick'], '--quick: expected --smoke, --collect or a folder'), (['--collect'], '--collect needs a folder'),
    (['nowhere'], 'nowhere has no wheels')])
def test_user_errors(arguments, message):
    run = subprocess.run(['bash', SCRIPT, *arguments], capture_output=True, text=True)
    assert run.returncode == 2 and message in run.stderr and run.stderr.count('\n') == 1


@pytest.mark.parametrize('capability', ['9.0', 'cpu'])
def test_commands_are_ones_that_the_scripts_accept(check, capability, tmp_path, monkeypatch):
    """With the sizes for a GPU, which no CPU test runs, and with those for a CPU."""
    check(capability=capability)
    calls = [shlex.split(line) for line in (tmp_path / 'calls').read_text().splitlines()
             if line.startswith(('-m pytest', 'benchmarks/', 'tools/'))]
    seen = set()
    for script, *arguments in calls:
        if script == '-m':
            assert all((ROOT / name).exists() for name in arguments if name.startswith('tests/'))
            continue
        seen.add(Path(script).name)
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        monkeypatch.syspath_prepend(ROOT / Path(script).parent)
        module = importlib.import_module(Path(script).stem)
        args = getattr(module, 'parse_arguments', None) or getattr(module, 'parse_args', None)
        if args is not None:
            assert getattr(args(), 'device', capability) in ('cuda', capability)
    assert seen >= {'gpu_parts.py', 'layers.py', 'backbones.py', 'detectors.py', 'make_occluded_shapes.py', 'train.py'}


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_evaluation_on_the_device_equals_pycocotools(device, capsys):
    import gpu_parts
    pretend = device == 'cuda' and not torch.cuda.is_available()
    if pretend and not HAS_PRETEND_CUDA:
        pytest.skip(f'torch {torch.__version__} < 2.3: stand-in for CUDA')
    with PretendCuda() if pretend else nullcontext() as watch:
        gpu_parts.equality(Namespace(device=device, images=6, detections=90))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(float(line.split()[-1]) < 1e-12 for line in lines)
    assert not pretend or watch.transfers > 0


def test_a_wrong_number_is_an_error(monkeypatch):
    import gpu_parts
    monkeypatch.setattr(gpu_parts, 'with_pycocotools', lambda data, found, iou_type, images: {'all': [.5] * 6})
    with pytest.raises(ValueError, match='boxes on the device, bbox: differs from pycocotools by'):
        gpu_parts.equality(Namespace(device='cpu', images=3, detections=9))


def test_intervals_are_timed(tmp_path, monkeypatch):
    import gpu_parts
    from reporting import read_csv
    path = tmp_path / 'intervals.csv'
    monkeypatch.setattr(sys, 'argv', ['gpu_parts.py', 'intervals', '--images', '4', '--detections', '40', '--replicates', '3',
                                      '--repeats', '1', '--csv', str(path)])
    gpu_parts.main()
    assert [(row['step'], row['device']) for row in read_csv(path)] == [('evaluation', 'cpu'), ('intervals', 'cpu')]
