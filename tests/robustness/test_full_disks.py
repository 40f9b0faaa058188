"""A full disk for tools that load networks: a line that names the file, old files whole, nothing half."""

import contextlib
import errno
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmtied.backbones import SharedResNetCIFAR
from mmtied.cli import full_disk_named, user_errors
from tests.helpers.tiny_networks import DETECTOR, write_images, write_network
from tests.helpers.tools import ROOT, run_in_process, run_on_full_disk
from tests.robustness.killed_trainings import CONFIG, ground_truth

#: Commands, and the file that cannot be written; {0} is a folder of inputs, {1} one for outputs, {2} another one.
COMMANDS = {
    'tie': ('tie {0}/network.py {0}/network.pth {1}/x.pth', 'x.pth'),
    'deploy': ('deploy {0}/network.py {0}/network.pth {1}/x.pt --shape 64 64', 'x.pt'),
    'deploy state': ('deploy {0}/network.py {0}/network.pth {1}/x.pt --shape 64 64 --format state', 'x.pt'),
    'convert': ('convert_backbone {0}/network.pth {1}/x.pth', 'x.pth'),
    'bases': ('shared_bases coefficients {0}/shared.pth --out {1}/x.png', 'x.png'),
    'cam': ('grad_cam {0}/network.py {0}/network.pth --images {0}/images --category cat --out {1}/x.png', 'x.png'),
    'similarity': ('filter_similarity {0}/network.py {0}/network.pth --images {0}/images --num 1 --out {1}', ''),
    'samples': ('samples {0}/truth.json {0}/images --networks {0}/network.py {0}/network.pth --bucket 0 1 --num 1 '
                '--out {1}/x.png', 'x.png'),
    'test': ('test {0}/network.py {0}/network.pth --work-dir {2} --out {1}/x.pkl', 'x.pkl'),
    'distill': ('distill {0}/network.py {0}/network.py --weights {0}/network.pth --images {0}/images --work-dir {1} --iters 2 '
                '--save-every 1 --batch-size 1 --size 64 --workers 0', 'iter_1.pth'),
    'train': ('train {0}/trained.py --work-dir {1}', 'epoch_1.pth'), 'seeds': ('train_seeds --summarize {1}', 'seeds.json')}


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    pytest.importorskip('mmdet')
    folder = tmp_path_factory.mktemp('inputs')
    boxes = [[5, 5, 40, 40], [25, 5, 40, 40]]
    (folder / 'truth.json').write_text(json.dumps(dict(
        images=[dict(id=image, file_name=f'{image}.png', height=60, width=90) for image in range(6)],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        annotations=[dict(id=2 * image + number + 1, image_id=image, category_id=1, bbox=box, area=1600, iscrowd=0)
                     for image in range(6) for number, box in enumerate(boxes)])))
    write_images(folder / 'images', 6)
    write_network(folder, DETECTOR + f"""
test_dataloader['dataset'].update(type='CocoDataset', data_root='', ann_file={f'{folder}/truth.json'!r},
                                  data_prefix=dict(img={f'{folder}/images/'!r}))
test_dataloader['num_workers'] = 0
test_evaluator = dict(_delete_=True, type='mmtied.OcclusionCocoMetric', ann_file={f'{folder}/truth.json'!r})
""")
    (folder / 'trained.json').write_text(json.dumps(ground_truth()))
    (folder / 'trained.py').write_text(CONFIG.format(epochs=1, truth=f'{folder}/trained.json'))
    torch.save(SharedResNetCIFAR(32, shared_elements=16).state_dict(), folder / 'shared.pth')
    return folder


@pytest.fixture
def run(inputs, tmp_path, monkeypatch, capfd):
    """Return a function that runs one of the commands, in some way, where old files are.

    It returns exit code, lines of stderr, the names of old files that changed, and those of temporary files.
    """
    monkeypatch.chdir(ROOT)
    out, work = tmp_path / 'out', tmp_path / 'work'
    for seed in range(3):
        folder = out / f'seed_{seed}'
        (folder / '1/vis_data').mkdir(parents=True)
        (folder / 'finished').touch()
        (folder / '1/vis_data/scalars.json').write_text(json.dumps({f'metric {number}': .5 for number in range(300)}))
    olds = [out / old for old in ('x.pth', 'x.pt', 'x.png', 'x.pkl', 'seeds.json', 'similarity.csv', 'matrices.png')]
    for old in olds:
        old.write_text('before')

    def run(name, way):
        MMLogger._instance_dict.clear()
        Visualizer._instance_dict.clear()
        tool, *words = COMMANDS[name][0].format(inputs, out, work).split()
        with Path(os.devnull).open('w') as null, contextlib.redirect_stdout(null):  # captured in a file, which is limited too
            code, _, err = way(lambda: run_in_process(f'{tool}.py', words, monkeypatch, capfd))
        return code, [line for line in err.splitlines() if line], [old.name for old in olds if old.read_text() != 'before'], [
            path.name for path in out.rglob('*') if path.name.startswith('.')]

    return run


@pytest.mark.parametrize('name', COMMANDS)
def test_a_full_disk(run, tmp_path, name):
    """As under ``ulimit -f``. The results of `test` were half a file, and much was a traceback."""
    command, file = COMMANDS[name]
    size = 30_000 if '--work-dir' in command else 10_000
    code, (*before, last), changed, temporary = run(name, lambda run: run_on_full_disk(run, size))
    assert code == 2 and last.startswith(f'error: {tmp_path}/out/{file}'.rstrip('/')) and len(last) <= 300
    assert 'File too large' in last
    assert all(line.startswith('warning: ') for line in before), before
    assert changed == temporary == []


@pytest.mark.parametrize(('error', 'expected', 'said'), [
    (MemoryError(), 2, 'error: out of memory'), (KeyboardInterrupt(), 130, 'stopped by Ctrl-C')])
@pytest.mark.parametrize('name', COMMANDS)
def test_stopped_at_the_last_moment(run, monkeypatch, name, error, expected, said):
    """When the file that is written would take its place."""
    def stop(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.replace', stop)
        code, lines, changed, temporary = run(name, lambda run: run())
    said_of = [line for line in lines if not line.startswith('warning: ')]  # of other packages
    assert code == expected and lines[-1].startswith(said) and len(said_of) == 1, lines
    assert changed == temporary == []


def test_a_log_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """Python prints a traceback for each line of a log that cannot be written, and no error has the name of the file."""
    monkeypatch.setattr(logging.FileHandler, 'emit', lambda handler, record: fail(handler, record))
    logger = logging.Logger('full')
    logger.addHandler(logging.FileHandler(tmp_path / 'a.log'))

    def fail(handler, record):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            handler.handleError(record)

    with pytest.raises(SystemExit), user_errors(only_own=True), full_disk_named(tmp_path):
        logger.error('one')
        logger.error('two')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert capsys.readouterr().err.splitlines() == [
        f'warning: {tmp_path}/a.log: No space left on device; lines of the log are lost',
        f'error: {tmp_path}: No space left on device (MMTIED_TRACEBACK=1 shows where)']
    with pytest.raises(OSError, match='Input/output'), user_errors(only_own=True), full_disk_named(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
