"""experiments/run.py trains missing runs, and keeps small files."""

import csv
import functools
import json
import shutil
import sys
from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch

from experiments import cells, classification, occlusion, run, runs, warm_start
from experiments.backbones import GroupedTwin, backbones, size_of
from mmtied.backbones import TiedResNet
from mmtied.evaluation import read_records
from mmtied.layers import TBC
from tests.helpers.tools import run_in_process

pytestmark = pytest.mark.usefixtures('blank_figures')

CELL = ('<object><name>RBC</name><difficult>0</difficult>'
        '<bndbox><xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>')


def write_picture(path, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (size, size, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def write_cells(root):
    for split in ('train', 'val', 'test'):
        (root / 'bccd/ImageSets/Main').mkdir(parents=True, exist_ok=True)
        (root / f'bccd/ImageSets/Main/{split}.txt').write_text(f'{split}_0\n{split}_1\n')
        for name in (f'{split}_0', f'{split}_1'):
            write_picture(root / f'bccd/JPEGImages/{name}.jpg')
            annotation = root / f'bccd/Annotations/{name}.xml'
            annotation.parent.mkdir(exist_ok=True)
            size = '<size><width>64</width><height>64</height><depth>3</depth></size>'
            annotation.write_text(f'<annotation><filename>{name}.jpg</filename>{size}{CELL}</annotation>')


def write_cifar(root):
    for split in ('train', 'test'):
        for number in range(10):
            write_picture(root / f'cifar10/{split}/class{number}/0.jpg', size=32)


#: Of each experiment: its module, tiny settings, what makes its data, and a model.
EXPERIMENTS = {
    'occlusion': (occlusion, occlusion.Preset(1, 32, 64, train_images=4, val_images=2, epochs=1, batch_size=2), None, 'tied_s'),
    'cells': (cells, cells.Preset(1, 32, (64, 64), epochs=1, batch_size=2), write_cells, 'grouped'),
    'classification': (classification, classification.Preset(1, epochs=1, batch_size=5), write_cifar, 'tied'),
    'warm_start': (warm_start, occlusion.Preset(1, 32, 64, train_images=4, val_images=2, epochs=1, batch_size=2), None, 'tied_s'),
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that runs the command with tiny settings and folders of the test."""
    monkeypatch.setattr(runs, 'RESULTS', tmp_path / 'results')

    def start(experiment: str, *words: str):
        module, preset, *_ = EXPERIMENTS[experiment]
        monkeypatch.setitem(module.PRESETS, 'cpu', preset)
        monkeypatch.setattr(sys, 'argv', ['run.py', experiment, '--data', str(tmp_path / 'data'), '--work-dir',
                                          str(tmp_path / 'work'), *words])
        run.main()

    return start


@pytest.mark.parametrize('experiment', ['occlusion', 'cells', 'classification'])
def test_a_run_keeps_small_files_and_is_not_repeated(start, experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classification, 'pattern_similarity', functools.partial(classification.pattern_similarity, filters=4))
    _, _, write_data, model = EXPERIMENTS[experiment]
    if write_data:
        write_data(tmp_path / 'data')
    start(experiment, '--here', '--only', f'{model}/seed0')
    folder = tmp_path / f'results/cpu/{experiment}/{model}/seed0'
    summary = json.loads((folder / 'run.json').read_text())
    assert summary['steps'] in (1, 2) and summary['threads'] == 1 and not summary['resumed']
    if experiment == 'classification':
        assert 0 <= summary['accuracy'] <= 100 and 0 < summary['weights']['mean'] < 1 and -1 < summary['patterns']['mean'] < 1
    else:
        assert 'bbox' in read_records(folder).records
    with (folder / 'losses.csv').open() as file:
        assert next(csv.reader(file))[:2] == ['step', 'loss']
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2**20
    written = (folder / 'run.json').stat().st_mtime_ns
    start(experiment, '--here', '--only', f'{model}/*')
    assert (folder / 'run.json').stat().st_mtime_ns == written
    capsys.readouterr()
    start(experiment, '--list')
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if 'done' in line] == [f'{model}/seed0']


def test_a_seed_gives_the_same_losses_again(start, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, 'pattern_similarity', lambda *_: {})  # half of the time
    write_cifar(tmp_path / 'data')
    losses = []
    for _ in range(2):
        start('classification', '--here', '--only', 'igc/seed0')
        folder = tmp_path / 'results/cpu/classification/igc/seed0'
        losses.append((folder / 'losses.csv').read_bytes())
        shutil.rmtree(tmp_path / 'results')
        shutil.rmtree(tmp_path / 'work')
    assert losses[0] == losses[1] and losses[0].count(b'\n') > 1


def test_students_differ_in_their_start_alone(start, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(warm_start, 'subprocess', Namespace(run=lambda command, check: Namespace(
        returncode=run_in_process('distill.py', command[2:], monkeypatch, capfd)[0])))
    monkeypatch.setitem(EXPERIMENTS, 'occlusion', (occlusion, EXPERIMENTS['warm_start'][1]))
    monkeypatch.setattr(warm_start, 'EVALUATIONS', 2)
    start('occlusion', '--here', '--only', 'r50/seed0', 'tied_s/seed0')
    start('warm_start', '--here', '--only', 'tied_s*', 'tbc_from_teacher/*')

    def result(experiment: str, model: str) -> tuple[list[list[str]], dict]:
        folder = tmp_path / f'results/cpu/{experiment}/{model}/seed0'
        with (folder / 'losses.csv').open() as file:
            return list(csv.reader(file)), json.loads((folder / 'run.json').read_text())

    losses, summary = result('warm_start', 'tied_s')
    assert losses == result('occlusion', 'tied_s')[0]  # despite validations in between
    assert [step for step, _ in summary['validations']] == [1] and summary['steps'] == 2
    assert 'coco/bbox_mAP' in summary['validations'][0][1]
    header, *steps = result('warm_start', 'tied_s_distilled')[0]
    assert 'loss_distill' in header and len(steps) == len(losses) - 1
    header, *steps = result('warm_start', 'tied_s_before')[0]
    assert header == losses[0] and steps != losses[1:]
    assert (tmp_path / 'work/cpu/warm_start/tied_s_before/seed0/distillation/backbone.pth').is_file()
    tied = torch.load(tmp_path / 'work/cpu/warm_start/tied_teacher.pth', weights_only=True)['state_dict']
    teacher = torch.load(warm_start.trained_teacher('cpu', tmp_path / 'work'), weights_only=False)['state_dict']
    name = 'backbone.layer1.0.conv2.weight'
    half = len(teacher[name]) // 2
    torch.testing.assert_close(tied[name], (teacher[name][:half, :half] + teacher[name][half:, half:]) / 2)
    with (tmp_path / 'results/cpu/warm_start/tbc_from_teacher/seed0/config.py').open() as file:
        assert str(tmp_path) not in file.read()


def test_a_damaged_result_is_repeated(start, tmp_path, capsys):
    folder = tmp_path / 'results/cpu/occlusion/r50/seed0'
    folder.mkdir(parents=True)
    (folder / 'run.json').write_text('{"steps"')
    start('occlusion', '--list', '--only', 'r50/*')
    assert capsys.readouterr().out.split() == ['r50/seed0', 'damaged']
    with pytest.raises(ValueError, match='run.json: no results of a finished run .*--preset cpu --only r50/seed0 creates them'):
        runs.Run('occlusion', 'cpu', 'r50', 0).read_summary()
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occlusion, 'prepare', lambda *_: None)
        patch.setattr(occlusion, 'train', lambda given, *_: trained.append(given.name))
        start('occlusion', '--here', '--only', 'r50/*')
    assert trained == ['r50/seed0']


def test_cells_need_images_and_annotations(start, tmp_path, capsys):
    write_cells(tmp_path / 'data')
    shutil.rmtree(tmp_path / 'data/bccd/JPEGImages')
    with pytest.raises(SystemExit) as stop:
        start('cells')
    assert stop.value.code == 2
    assert 'bccd/JPEGImages is missing; experiments/data.md explains' in capsys.readouterr().err


def test_a_student_needs_its_teacher(start, capsys):
    with pytest.raises(SystemExit) as stop:
        start('warm_start', '--here', '--only', 'tied_s_distilled/seed0')
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert 'epoch_1.pth (the teacher) is missing' in error and 'occlusion --preset cpu --only r50/seed0' in error


@pytest.mark.parametrize(('words', 'said'), [
    (['occlusion', '--only', 'tide/*'], '--only tide/*: no such run; expected one of r50, tied'),
    (['occlusion', '--jobs', '0'], '--jobs 0: expected 1 or more'),
    (['cells'], 'ImageSets/Main/train.txt is missing; experiments/data.md explains'),
    (['classification'], 'cifar10/train is missing; experiments/data.md explains'),
])
def test_user_errors_are_one_line(start, capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        start(*words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1 and 'MMTIED_TRACEBACK' not in error


def test_the_grouped_twin_with_equal_filters_is_the_tied_network():
    settings = dict(base_channels=32, frozen_stages=-1, norm_eval=True)
    torch.manual_seed(0)
    tied, twin = TiedResNet(**settings).eval(), GroupedTwin(**settings).eval()
    weights = tied.state_dict()
    for name, layer in tied.named_modules():
        if isinstance(layer, TBC):
            weights[f'{name}.weight'] = layer.weight.repeat(layer.num_blocks, 1, 1, 1)
    twin.load_state_dict(weights)
    image = torch.rand(1, 3, 64, 64)
    for mine, theirs in zip(tied(image), twin(image), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_filters_drawn_at_random_are_as_alike_as_chance_makes_them():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(16, 200, 3), TBC(200, 200, 3, num_blocks=2))
    for layer in net:
        torch.nn.init.normal_(layer.weight)
    found = classification.weight_similarity(net)
    assert found['mean'] == pytest.approx(found['by_chance'], rel=.02)


@pytest.mark.parametrize('model', classification.MODELS)
def test_classifiers_build_and_take_an_image(model):
    from mmpretrain.registry import MODELS
    backbone = MODELS.build(classification.MODELS[model])
    feature, = backbone(torch.rand(2, 3, 32, 32))
    assert feature.shape[:2] == (2, 4 * classification.MODELS[model].get('base_channels', 16))
    if model == 'grouped':
        assert sum(module.groups == 2 for module in backbone.modules() if isinstance(module, torch.nn.Conv2d)) == 18


def test_the_narrow_network_is_as_large_as_the_thin_tied_one():
    sizes = {name: size_of(backbone) for name, backbone in backbones(64).items()}
    assert sizes['r50'] == 23_508_032 and sizes['tied_s'] == 13_921_358 - 2_049_000
    assert abs(sizes['r50_narrow'] / sizes['tied_s'] - 1) < .03


def test_a_run_that_was_killed_while_it_validated_validates(start, tmp_path):
    start('occlusion', '--here', '--only', 'r50_narrow/seed0')
    folder = tmp_path / 'results/cpu/occlusion/r50_narrow/seed0'
    report = json.loads((folder / 'report.json').read_text())
    shutil.rmtree(tmp_path / 'results')
    shutil.rmtree(tmp_path / 'work/cpu/occlusion/r50_narrow/seed0/occlusion')
    start('occlusion', '--here', '--only', 'r50_narrow/seed0')
    again = json.loads((folder / 'report.json').read_text())
    assert again['bbox'] == report['bbox'] and json.loads((folder / 'run.json').read_text())['resumed']
