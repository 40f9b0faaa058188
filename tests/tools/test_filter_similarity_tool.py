"""Run tools/filter_similarity.py on tiny networks of mmdet and mmpretrain."""

import csv

import pytest
import torch

from tests.helpers.tiny_networks import CLASSIFIER, DETECTOR, write_images, write_network
from tests.helpers.tools import run_in_process


@pytest.fixture
def run(monkeypatch, capfd):
    pytest.importorskip('mmdet')
    return lambda *arguments: run_in_process('filter_similarity.py', arguments, monkeypatch, capfd)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    pytest.importorskip('mmdet')
    folder = tmp_path_factory.mktemp('detector')
    write_images(folder / 'images', 1)
    return folder, write_network(folder, DETECTOR, 'config')


def test_a_detector_beside_a_classifier(run, detector, tmp_path):
    pytest.importorskip('mmpretrain')
    classifier = write_network(tmp_path, CLASSIFIER)
    write_images(tmp_path / 'images')
    code, printed, err = run(*detector[1], *classifier, '--images', tmp_path / 'images', '--num', 2, '--size', 48, '--filters', 5,
                             '--depths', '0.5', '1', '--out', tmp_path / 'out', '--names', 'A', 'B')
    assert code == 0, err
    with (tmp_path / 'out/similarity.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['network'], row['layer'], row['similarity']) for row in rows] == [
        (name, f'backbone.layer{stage}.1.conv2', kind) for name in 'AB' for stage in (2, 4)
        for kind in ('guided', 'weights')]
    assert rows[0]['filters'] == '5' and int(rows[3]['filters']) == 128
    assert f'{float(rows[0]["mean"]):.3f}' in printed
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['histograms.png', 'matrices.png', 'similarity.csv']


@pytest.mark.parametrize(('options', 'message'), [
    (['--images', 'nowhere'], 'error: images: nowhere is not a folder'),
    (['--num', '0'], 'error: --num 0: expected at least 1'),
    (['--layers', 'backbone.conv9'], "error: RetinaNet: no layer named 'backbone.conv9'; its spatial convolutions are "),
    (['--layers', 'bbox_head.retina_cls'], 'error: layer bbox_head.retina_cls does not run during feature extraction'),
    (['--names', 'a', 'b'], 'error: --names: 2 names for 1 networks'),
    (['--out', 'config.py'], 'error: --out config.py'),
    (['--device', 'gpu'], 'error: --device gpu: not usable here; expected one of cpu'),
    (['--device', 'cuda:99'], 'error: --device cuda:99: not usable here; expected one of cpu'),
    (['--seed', '-1'], 'error: --seed -1: expected 0 or more'),
    (['--threshold', '50'], 'error: --threshold 50.0: expected a cosine, from -1 to 1'),
    (['--size', '0'], 'error: --size 0: expected at least 1'),
    (['--images', 'config.py'], 'error: config.py: cannot be read as an image'),
])
def test_mistakes_are_one_line(run, detector, monkeypatch, options, message):
    folder, network = detector
    monkeypatch.chdir(folder)
    code, _, err = run(*network, '--images', 'images', '--size', 48, *options)
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith('error: ')][0].startswith(message)
    assert err.count('error: ') == 1 and 'MMTIED_TRACEBACK' not in err


@pytest.mark.parametrize(('options', 'message'), [
    (['--average', 'maps'], "argument --average: invalid choice: 'maps'"),
    (['--filters', '1'], 'error: --filters 1: expected at least 2'),
    (['--depths', '1.5'], 'error: filter similarity: depth 1.5, expected numbers above 0 and up to 1'),
])
def test_options_are_checked_before_files_are_read(run, options, message):
    code, _, err = run('nowhere.py', 'nowhere.pth', '--images', 'nowhere', *options)
    assert code == 2 and message in err.splitlines()[-1]


def test_checkpoints_are_paired_and_read_safely(run, detector, tmp_path):
    folder, (config, _) = detector
    code, _, err = run(config, '--images', folder / 'images')
    assert (code, err.splitlines()[-1].split(', got')[0]) == (2, 'error: expected pairs of a config and a checkpoint')
    torch.save({'state_dict': {}, 'meta': torch.nn.ReLU()}, tmp_path / 'unsafe.pth')
    code, _, err = run(config, tmp_path / 'unsafe.pth', '--images', folder / 'images')
    assert code == 2 and '--trust-checkpoint' in err.splitlines()[-1]
