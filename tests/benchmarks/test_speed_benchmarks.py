"""The benchmarks of speed end to end at tiny sizes, and a user's mistakes."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def run_quickly(script, page, *options):
    run = subprocess.run([sys.executable, BENCHMARKS / f'{script}.py', '--quick', '--repeats', '1', '--docs', page, *options],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = page.read_text()
    assert '![' in text and f'<!-- begin {script} cpu -->' in text and f'torch {torch.__version__}'.partition('+')[0] in text
    picture = page.parent / 'images' / f'{script}_cpu.png'
    assert f'(images/{picture.name})' in text and picture.stat().st_size < 100_000
    with Image.open(picture) as image:
        image.verify()
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('| ')]


@pytest.mark.slow
def test_layers(tmp_path):
    rows = run_quickly('layers', tmp_path / 'page.md', '--formats', 'channels_last', '--kernels', '1')
    figure = [row for row in rows if row[0].startswith('1x1, channels_last, ')]
    assert [(row[0].rpartition(', ')[2], row[1]) for row in figure] == [
        (which, blocks) for which in ('forward', 'forward + backward') for blocks in '12']
    assert all(row[3] == '1.00 [1.00, 1.00]' for row in figure if row[1] == '1')
    sums = {row[0]: row[1:] for row in rows if row[0].startswith('TiedResNet')}
    assert sums['TiedResNet-50, 1 x 32 x 32, 1x1 (20), channels_last, forward'][3] != '-'
    assert sums['TiedResNet-50-S, 1 x 32 x 32, 3x3 (48), channels_last, forward'][3] == '-'
    assert len(sums) == 8


@pytest.mark.slow
def test_backbones(tmp_path):
    rows = run_quickly('backbones', tmp_path / 'page.md', '--networks', 'TiedResNet-50-S', '--format', 'contiguous')
    tables = [row for row in rows if 'ResNet-50' in row[0]]
    assert [row[0] for row in tables] == ['ResNet-50, contiguous', 'TiedResNet-50-S, contiguous'] * 2
    assert all(row[2] == row[3] == row[4] == '1.00 [1.00, 1.00]' and row[6] == '1.00' for row in tables[::2])
    inference, training = (float(tables[number][5]) for number in (0, 2))
    weights = 23.5e6 * 4 / 2**20
    assert weights < inference < 1.3 * weights and 3 * weights < training < 5 * weights


@pytest.mark.slow
def test_detectors(tmp_path):
    rows = run_quickly('detectors', tmp_path / 'page.md', '--networks', 'TiedResNet-50-S')
    tables = [row for row in rows if 'ResNet-50' in row[0]]
    assert [row[0] for row in tables] == ['ResNet-50', 'TiedResNet-50-S'] * 2
    assert all(row[2] == '1.00 [1.00, 1.00]' for row in tables[::2])
    assert all(0 < int(row[5].rstrip('%')) < 100 for row in tables)
    assert 'Inference, 0 to' not in (tmp_path / 'page.md').read_text()


@pytest.mark.parametrize(('script', 'options', 'message'), [
    ('layers', '--device gpu', '--device gpu: expected cpu'),
    ('layers', '--repeats 0', '--repeats 0: expected 1 or more'),
    ('layers', '--parts figure3 --kernels 2', '--kernels 2: expected odd sizes'),
    ('layers', '--parts figure3 --blocks 3 --input 4 4 32', 'channels=32 is not divisible by num_blocks=3'),
    ('layers', '--parts figure3 --filters 0', 'expected 1 or more'),
    ('backbones', '--batch 1', '--batch 1: expected 2 or more'),
    ('backbones', '--size 1 2 3', '--size 1 2 3: expected a side'),
    ('detectors', '--batch -1', '--batch -1: expected 1 or more'),
    ('detectors', '--batch 0', '--batch 0: expected 1 or more'),
    ('backbones', '--batch 0', '--batch 0: expected 1 or more'),
    ('floors', '--batch 0', '--batch 0: expected 1 or more'),
    ('floors', '--least-ms nan', '--least-ms nan: expected 0 or more'),
    ('layers', '--device cpu:3', '--device cpu:3: expected cpu'),
    ('layers', '--label a/b', "--label 'a/b': expected letters"),
    ('layers', '--docs nowhere/page.md', '--docs nowhere/page.md: expected a page in a folder'),
    ('backbones', '--docs .', '--docs .: this is a folder'),
])
def test_mistakes_are_one_line(script, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [script, *options.split()])
    with pytest.raises(SystemExit) as raised:
        importlib.import_module(script).main()
    error = capsys.readouterr().err.splitlines()
    assert raised.value.code == 2
    assert message in error[-1] and error[-1].startswith('error: ')


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['layers', '--device', 'cuda'])
    with pytest.raises(SystemExit):
        importlib.import_module('layers').main()
    assert 'torch sees no GPU here' in capsys.readouterr().err


def test_deployed_networks_stand_beside_the_deployed_baseline(monkeypatch):
    import backbones

    def build(name):
        return nn.Sequential(nn.Conv2d(3, 8 if name == 'ResNet-50' else 4, 3), nn.BatchNorm2d(8 if name == 'ResNet-50' else 4))

    monkeypatch.setattr(backbones, 'build', build)
    args = argparse.Namespace(device='cpu', formats=['contiguous'], dtype='float32', repeats=2, least_ms=0)
    rows, ratios = {'inference': [], 'training': []}, {}
    backbones.compare(args, ['ResNet-50', 'TiedResNet-50'], torch.rand(2, 3, 8, 8), {', deployed': lambda network: network[0]},
                      rows, ratios)
    assert [row[0] for row in rows['training']] == ['ResNet-50, contiguous', 'TiedResNet-50, contiguous']
    assert [row[0] for row in rows['inference']] == [
        'ResNet-50, contiguous', 'ResNet-50, deployed, contiguous', 'TiedResNet-50, contiguous',
        'TiedResNet-50, deployed, contiguous']
    assert [row[2] == '1.00 [1.00, 1.00]' for row in rows['inference']][:2] == [True, True]
    assert list(ratios) == ['TiedResNet-50', 'TiedResNet-50, deployed']
    assert list(ratios['TiedResNet-50, deployed']) == ['inference, contiguous']


def test_every_tied_network_has_a_baseline_that_can_be_built():
    from network_pairs import BASELINES, NETWORKS
    assert set(BASELINES) | set(BASELINES.values()) == set(NETWORKS)
    assert all(settings['type'].startswith('mmtied.') == (name in BASELINES) for name, settings in NETWORKS.items())


def test_batches_are_seeded_and_boxes_fit_their_masks():
    from detection_samples import make_batch
    first, again = (make_batch(2, (40, 60), seed=1) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first['inputs'], again['inputs'], strict=True))
    for image, sample in zip(first['inputs'], first['data_samples'], strict=True):
        assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
        instances = sample.gt_instances
        assert len(instances) >= 1 and instances.labels.max() < 80
        for box, mask in zip(instances.bboxes.tolist(), instances.masks.masks, strict=True):
            y, x = mask.nonzero()
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
