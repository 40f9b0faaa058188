"""Checkpoints that are read but hold something else than a model's weights: one line in every tool, whatever it is."""

import json
import runpy
from collections import OrderedDict
from copy import deepcopy

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmtied.launch.checkpoints import find_weights, write_checkpoint
from mmtied.launch.networks import load_networks
from mmtied.unpickling import safe_loading
from tests.helpers.tiny_networks import DETECTOR, write_images, write_network
from tests.helpers.tools import ROOT, run_in_process
from tests.helpers.torch_versions import RELEASE
from tests.robustness.killed_trainings import CONFIG, ground_truth


def with_attributes(**attributes):
    """Return a state_dict with attributes, which a file may set too."""
    weights = OrderedDict(a=torch.ones(1))
    vars(weights).update(attributes)
    return {'state_dict': weights}


#: Contents without weights that a model could have.
ODD = {
    'list': [1], 'text': 'state_dict', 'none': None, 'number': 1, 'tensor': torch.ones(2), 'empty': {}, 'list of weights': {
        'state_dict': [torch.ones(1)]}, 'no weights': {'state_dict': None}, 'text of weights': {'state_dict': 'abc'},
    'number of weights': {'state_dict': 3}, 'tensor of weights': {'state_dict': torch.ones(2)},
    'numbers as names': {'state_dict': {1: torch.ones(1)}}, 'tuples as names': {('a', ): torch.ones(1)},
    'numbers as values': {'state_dict': {'a': 1.}}, 'none as a value': {'state_dict': {'a': None}},
    'nested': {'state_dict': {'backbone': {'a': torch.ones(1)}}}, 'nested under another': {'model': {'a': torch.ones(1)}},
    'complex': {'state_dict': {'a': torch.ones(1, dtype=torch.complex64)}},
    'metadata list': with_attributes(_metadata=[1]),
    'metadata text': with_attributes(_metadata={'': 'abc'}),
    'metadata version': with_attributes(_metadata={'': {'version': 'a'}}),
    'replaced methods': with_attributes(values=OrderedDict)}
if RELEASE >= (2, 5):  # refused by their types before
    ODD |= {'sparse': {'state_dict': {'a': torch.eye(2).to_sparse()}},
            'without values': {'state_dict': {'a': torch.ones(1, device='meta')}}}
READERS = {
    'test.py': '{0}.py {odd} --work-dir {out}', 'deploy.py': '{0}.py {odd} {out}/new.pt', 'tie.py': '{0}.py {odd} {out}/new.pth',
    'convert_backbone.py': '{odd} {out}/new.pth', 'shared_bases.py': 'coefficients {odd} --out {out}/new.png',
    'filter_similarity.py': '{0}.py {odd} --images {images} --num 1 --out {out}',
    'grad_cam.py': '{0}.py {odd} --images {images} --category cat --out {out}/new.png',
    'samples.py': '{truth} {images} --networks {0}.py {odd} --bucket 0 1 --out {out}/new.png',
    'distill.py': '{0}.py {0}.py --weights {odd} --images {images} --work-dir {out} --iters 1 --workers 0',
    'train.py load_from': '{0}.py --work-dir {out} --cfg-options load_from={odd}',
    'train.py init_cfg': '{init} --work-dir {out}',
    'train.py resume': '{0}.py --work-dir {out} --resume {odd}',
    'train.py backbone': '{0}.py --work-dir {out} --backbone-checkpoint {odd}'}


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """Return a folder with a detector, an image, annotations, and a training with a checkpoint after an epoch."""
    folder = tmp_path_factory.mktemp('network')
    write_network(folder, DETECTOR)
    write_images(folder / 'images', 1)
    (folder / 'truth.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='0.png', height=60, width=90)], categories=[dict(id=1, name='cat')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[5, 5, 40, 40], area=1600, iscrowd=0)])))
    (folder / 'trained.json').write_text(json.dumps(ground_truth()))
    (folder / 'trained.py').write_text(CONFIG.format(epochs=2, truth=str(folder / 'trained.json')))
    return folder


@pytest.fixture
def run(monkeypatch, capfd):
    """Return a function that runs a tool and returns exit code and lines of errors."""
    def run(tool, command):
        MMLogger._instance_dict.clear()
        Visualizer._instance_dict.clear()
        code, _, err = run_in_process(tool, command.split(), monkeypatch, capfd)
        return code, [line for line in err.splitlines() if line and not line.startswith('warning: ')]

    return run


@pytest.mark.parametrize('reader', READERS)
def test_one_line_from_every_tool(network, tmp_path, run, reader):
    (tmp_path / 'out').mkdir()
    for name, content in ODD.items():
        odd = tmp_path / f'{name.replace(" ", "_")}.pth'
        torch.save(content, odd)
        init = tmp_path / 'init.py'
        init.write_text(f'_base_ = {str(network / "network.py")!r}\nmodel = dict(backbone=dict(init_cfg=dict('
                        f'_delete_=True, type="Pretrained", checkpoint={str(odd)!r})))')
        code, lines = run(reader.split()[0], READERS[reader].format(
            network / 'network', odd=odd, out=tmp_path / 'out', images=network / 'images', truth=network / 'truth.json',
            init=init))
        assert code == 2 and len(lines) == 1 and len(lines[0]) <= 300, (name, lines)
        assert odd.name in lines[0] and any(text in lines[0] for text in (
            'contains no weights', 'is a tensor of another kind', '_metadata of its state_dict')), (name, lines)
        assert not list((tmp_path / 'out').glob('*.p[nt]*')), name


@pytest.mark.parametrize('meta', [
    None, [], 'classes', 3, torch.ones(2), {'dataset_meta': 'classes'}, {'dataset_meta': ['classes']}, {'dataset_meta': 3},
    {'dataset_meta': {'classes': 3}}, {'dataset_meta': {'classes': {'cat': 1}}}, {'dataset_meta': {'classes': [['cat'], None]}},
    {'CLASSES': torch.ones(2)}, {1: 2, 'dataset_meta': {2: 3}}], ids=str)
def test_notes_that_name_no_classes_are_left_alone(network, tmp_path, run, meta):
    """Figures take the names of the config then; seven of these ended in an AttributeError, a TypeError or odd names."""
    saved = torch.load(network / 'network.pth', weights_only=True)
    torch.save({**saved, 'meta': meta}, tmp_path / 'odd.pth')
    assert load_networks([str(network / 'network.py'), str(tmp_path / 'odd.pth')])[0].classes == ('cat', 'dog')
    code, lines = run('grad_cam.py', f'{network}/network.py {tmp_path}/odd.pth --images {network}/images --category cat '
                                     f'--out {tmp_path}/cam.png')
    assert (code, lines) == (0, []) and (tmp_path / 'cam.png').exists()


def test_nested_tensors_and_tensors_without_values():
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
    for value in (nested, torch.ones(1, device='meta')):
        with pytest.raises(ValueError, match='x.pth: a is a tensor of another kind'):
            find_weights({'a': value}, 'x.pth')


#: Changes of a checkpoint from which a training cannot go on, and what is said.
UNFIT = {
    'no meta': (lambda saved: saved.pop('meta'), 'lacks the training progress'),
    'meta list': (lambda saved: saved.update(meta=['epoch', 'iter']), 'lacks the training progress'),
    'epoch text': (lambda saved: saved['meta'].update(epoch='1'), 'lacks the training progress'),
    'epoch negative': (lambda saved: saved['meta'].update(epoch=-1), 'lacks the training progress'),
    'iter bool': (lambda saved: saved['meta'].update(iter=True), 'lacks the training progress'),
    'iter long': (lambda saved: saved['meta'].update(iter=10**400), 'lacks the training progress'),
    'no history': (lambda saved: saved.pop('message_hub'), 'lacks the training progress'),
    'history list': (lambda saved: saved.update(message_hub=[]), 'lacks the training progress'),
    'history empty': (lambda saved: saved.update(message_hub={}), 'by this run (AssertionError: '),
    'history of lists': (lambda saved: saved['message_hub'].update(log_scalars=[1]), 'by this run (AttributeE'),
    'optimizer list': (lambda saved: saved.update(optimizer=[1]), 'by this run ('),
    'optimizer empty': (lambda saved: saved.update(optimizer={}), 'by this run ('),
    'another optimizer': (lambda saved: saved['optimizer']['param_groups'][0]['params'].pop(), 'by this run (Val'),
    'schedule': (lambda saved: saved.update(param_schedulers=[3]), 'by this run ('),
    'seed': (lambda saved: saved['meta'].update(seed='abc'), 'by this run (')}


@pytest.fixture(scope='module')
def saved(network):
    """Return the checkpoint of a training after an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['train.py', f'{network}/trained.py', '--work-dir', f'{network}/work', '--cfg-options',
                                   'train_cfg.max_epochs=1'])
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    with safe_loading():
        return torch.load(network / 'work/epoch_1.pth')


@pytest.mark.parametrize('name', UNFIT)
def test_resuming_from_what_is_no_training(network, saved, tmp_path, run, name):
    """Most of these were tracebacks: once a training runs, only errors of mmtied are lines."""
    odd, (change, said) = deepcopy(saved), UNFIT[name]
    change(odd)
    write_checkpoint(odd, tmp_path / 'odd.pth')
    code, lines = run('train.py', f'{network}/trained.py --work-dir {tmp_path}/work --resume {tmp_path}/odd.pth')
    errors = [line for line in lines if line.startswith('error: ')]
    assert code == 2 and errors == lines[-1:]
    assert f'{tmp_path}/odd.pth: cannot be resumed' in errors[0] and said in errors[0]
    assert len(errors[0]) <= 300 and not [line for line in lines if 'Traceback' in line]
    assert not list(tmp_path.rglob('epoch_*.pth'))
