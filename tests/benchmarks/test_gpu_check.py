"""benchmarks/gpu_check.sh without a GPU: order, limits, summary and commands; its evaluation on a simulated device."""

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
import torch._inductor.config as inductor
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from tests.helpers.pages import ROOT
from tests.helpers.pretend import PretendCuda
from tests.helpers.tools import run_in_process
from tests.helpers.torch_versions import HAS_PRETEND_CUDA

SCRIPT = ROOT / 'benchmarks' / 'gpu_check.sh'
FAKE = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in *get_device_capability*) echo {capability}; exit;; esac
{behaviour}
case "$*" in *--csv*) for last; do :; done; echo row > "$last";; esac
"""
#: A Mask R-CNN about as narrow as the demo's.
THIN = {'backbone.base_channels': 16, 'neck.in_channels': [64, 128, 256, 512], 'neck.out_channels': 16,
        'rpn_head.in_channels': 16, 'rpn_head.feat_channels': 16, 'roi_head.bbox_roi_extractor.out_channels': 16,
        'roi_head.bbox_head.in_channels': 16, 'roi_head.bbox_head.fc_out_channels': 16,
        'roi_head.mask_roi_extractor.out_channels': 16, 'roi_head.mask_head.in_channels': 16}


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


def commands_of(folder):
    """Return the scripts and tests that the script ran, as lists of words."""
    lines = (folder / 'calls').read_text().splitlines()
    return [shlex.split(line) for line in lines if line.startswith(('-m pytest', 'benchmarks/', 'tools/'))]


def has_selected_tests(arguments):
    """Return whether each test file of a pytest command has a test whose name its -k selects."""
    given = arguments[arguments.index('-k') + 1:]
    words = [word for word in given if word != 'or' and not word.startswith('tests/')]
    texts = [(ROOT / name).read_text() for name in given if name.startswith('tests/')]
    return texts and all(any(word in name for name in re.findall(r'^def (test_\w+)', text, re.MULTILINE) for word in words)
                         for text in texts)


@pytest.mark.slow
@pytest.mark.usefixtures('blank_figures')
def test_every_smoke_command_runs_on_a_cpu(check, tmp_path, monkeypatch, capfd):
    """With tiny sizes, thin networks, and not compiled.

    The first runs from the shell script, in a process of its own; the others here, which saves the imports of each.
    """
    import backbones
    import detectors
    from reporting import read_csv
    first = f'case "$*" in *tests/layers*) exec {sys.executable} "$@" > {tmp_path}/first 2>&1;; esac'
    check('--smoke', capability='cpu', behaviour=first)
    assert re.search(r'^[1-9]\d* passed', (tmp_path / 'first').read_text(), re.MULTILINE)
    _, *commands = commands_of(tmp_path)
    assert has_selected_tests(commands.pop(1)) and len(commands) == 10

    from_file = Config.fromfile

    def thin(path):
        cfg = from_file(path)
        cfg.merge_from_dict({f'model.{key}': value for key, value in THIN.items()})
        return cfg

    def run(script, arguments):
        if script.startswith('tools/'):
            return run_in_process(Path(script).name, arguments, monkeypatch, capfd)[0]
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        return importlib.import_module(Path(script).stem).main()

    monkeypatch.setattr(detectors, 'Config', Namespace(fromfile=thin))
    monkeypatch.setitem(detectors.DETECTORS, 'TiedResNet-50-S', detectors.DETECTORS['TiedResNet-50'])  # -S is not divisible then
    monkeypatch.setattr(backbones, 'build', lambda name: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    MMLogger._instance_dict.clear()  # loggers of earlier tests write to closed streams
    work, = {found[1] for text in sum(commands, []) if (found := re.match('(.+)/csv/', text))}  # the script has removed it
    (tmp_path / 'csv').mkdir()
    with torch._dynamo.config.patch(disable=True), inductor.patch(freezing=False):
        for script, *arguments in commands:
            assert not run(script, [text.replace(work, str(tmp_path)) for text in arguments]), (script, arguments)
    tables = {path.stem.removesuffix('_cuda'): read_csv(path) for path in (tmp_path / 'csv').glob('*_cuda.csv')}
    assert {name: len(rows) for name, rows in tables.items()} == {
        'intervals': 2, 'layers': 4, 'backbones': 9, 'float32': 6, 'compiled': 6, 'detectors': 4, 'compiled_training': 4}
    assert [(row['step'], row['device']) for row in tables['intervals']] == [('evaluation', 'cpu'), ('intervals', 'cpu')]
    assert (tmp_path / 'train/epoch_1.pth').exists() and (tmp_path / 'train/occlusion/report.json').exists()


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
    seen = set()
    for script, *arguments in commands_of(tmp_path):
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


def test_evaluation_on_the_device_equals_pycocotools(capsys):
    import gpu_parts
    pretend = not torch.cuda.is_available()
    if pretend and not HAS_PRETEND_CUDA:
        pytest.skip(f'torch {torch.__version__} < 2.3: stand-in for CUDA')
    with PretendCuda() if pretend else nullcontext() as watch:
        gpu_parts.equality(Namespace(device='cuda', images=20, detections=60))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and ': 3 intervals, ' in lines[-1] and all(float(line.split()[-1]) < 1e-12 for line in lines)
    assert not pretend or watch.transfers > 0


def test_a_wrong_number_is_an_error(monkeypatch):
    import gpu_parts
    monkeypatch.setattr(gpu_parts, 'with_pycocotools', lambda data, found, iou_type, images: {'all': [.5] * 6})
    with pytest.raises(ValueError, match='boxes on the device, bbox: differs from pycocotools by'):
        gpu_parts.equality(Namespace(device='cpu', images=3, detections=9))
