"""Files that are only data run nothing: evil pickles and checkpoints in every tool, and what a pickle may allocate."""

import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmtied.evaluation.inputs.tensor_pickle import read_tensor_pickle
from mmtied.unpickling import check_memo, history_parts, load_checkpoint, load_tensors, safe_loading
from tests.helpers.loss_hooks import DistanceModel, RandomImages, make_runner
from tests.helpers.tools import ROOT, run_in_process
from tests.robustness.programs import plain_program, program_by_getattr

CONFIG = 'configs/demo/mask_rcnn_tiedr50_demo.py'


PROGRAMS = pytest.mark.parametrize('program', [plain_program, program_by_getattr])


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'it_ran'


@pytest.fixture
def tool(monkeypatch, capfd):
    """Return a function that runs a tool in this process."""
    def run(name, *arguments):
        monkeypatch.chdir(ROOT)
        MMLogger._instance_dict.clear()
        Visualizer._instance_dict.clear()
        return run_in_process(name, arguments, monkeypatch, capfd)

    return run


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    from mmtied.datasets import make_occluded_shapes
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_occluded_shapes(folder, num_images=2, num_val_images=2, seed=1, size=64, objects=(2, 3), workers=1)
    return folder


def options(shapes):
    """Return --cfg-options for a run on a tiny data set that could start."""
    roots = [f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val', 'test')]
    files = [f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')]
    return ['--cfg-options', *roots, *files, 'train_cfg.max_epochs=1', 'train_dataloader.num_workers=0',
            'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0']


def evil_checkpoint(path, program, marker):
    torch.save({'state_dict': {'backbone.a': torch.ones(1)}, 'meta': {'extra': program(marker)}}, path)
    return path


def test_the_programs_work(tmp_path):
    """Otherwise the tests below could not fail."""
    for number, program in enumerate((plain_program, program_by_getattr)):
        marker = tmp_path / str(number)
        pickle.loads(pickle.dumps(program(marker)))
        assert marker.is_dir()
        with safe_loading(trusted=True):
            load_checkpoint(evil_checkpoint(tmp_path / 'evil.pth', program, tmp_path / f'{number}_trusted'))
        assert (tmp_path / f'{number}_trusted').is_dir()


@pytest.mark.parametrize('way', ['load_from', 'resume', 'resume=True', 'last_checkpoint', 'backbone', 'init_cfg',
                                 'init_cfg_late'])
def test_training_runs_nothing_of_a_checkpoint(tool, shapes, tmp_path, marker, way, monkeypatch):
    evil, work = evil_checkpoint(tmp_path / 'evil.pth', program_by_getattr, marker), tmp_path / 'work'
    work.mkdir()
    (work / 'last_checkpoint').write_text(str(evil))
    config = CONFIG
    if way.startswith('init_cfg'):
        config = tmp_path / 'config.py'
        config.write_text(f"_base_ = {str(ROOT / CONFIG)!r}\n"
                          f"model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='{evil}')))")
    more = {'load_from': [*options(shapes), f'load_from={evil}'],
            'resume': ['--resume', evil, *options(shapes)],
            'resume=True': [*options(shapes), 'resume=True'],
            'last_checkpoint': ['--resume', *options(shapes)],
            'backbone': ['--backbone-checkpoint', evil, *options(shapes)]}.get(way, options(shapes))
    if way == 'init_cfg_late':  # one that the checks before training do not see
        monkeypatch.setattr('mmtied.launch.checkpoints.dicts_in', lambda *_: iter(()))
    code, _, err = tool('train.py', config, '--work-dir', work, *more)
    assert not marker.exists()
    assert code == 2 and 'evil.pth: refused, as it needs ' in err.splitlines()[-1]
    assert '--trust-checkpoint' in err.splitlines()[-1]


def with_config(text):
    """Return a checkpoint of tensors and plain values alone, with the text of a config in every place where mmengine looks."""
    return {'state_dict': OrderedDict(a=torch.ones(1)), 'meta': OrderedDict(epoch=1, iter=3, config=text, cfg=text, seed=3),
            'message_hub': {'log_scalars': {}, 'resumed_keys': {}, 'runtime_info': {'cfg': text, 'iter': 3}}}


@pytest.mark.parametrize('key', ['config', 'cfg'])
def test_configs_in_checkpoints_are_not_executed(tmp_path, marker, key):
    """mmengine executes the first as it resumes and the second as it infers; `weights_only=True` reads both."""
    path, text = tmp_path / 'texts.pth', f'__import__("os").mkdir({str(marker)!r})\nmodel = dict(type="ToyModel")'
    torch.save(with_config(text), path)

    def use():
        if key == 'cfg':
            from mmengine.infer import BaseInferencer
            inferencer = SimpleNamespace(_load_weights_to_model=lambda *_: None)
            return BaseInferencer._init_model(inferencer, ConfigDict(), str(path))
        runner = make_runner(DistanceModel(), RandomImages((1, ), (1, )), tmp_path / 'work')
        runner.model.layers = torch.nn.Linear(1, 1)
        return runner.resume(str(path))

    with safe_loading(), pytest.raises(ValueError, match='Cannot find the config') if key == 'cfg' else nullcontext():
        use()
    assert not marker.exists()
    with safe_loading(trusted=True), suppress(Exception):
        use()
    assert marker.is_dir()


def test_replaced_methods_of_a_dict_keep_no_config(tmp_path):
    """A file can give an OrderedDict attributes, which hide its methods from whoever calls them."""
    content = with_config('raise SystemExit')
    vars(content['meta']).update(pop=slice, get=slice)
    torch.save(content, tmp_path / 'a.pth')
    with safe_loading():
        loaded = torch.load(tmp_path / 'a.pth')
    assert vars(loaded['meta']) == {'pop': slice, 'get': slice} and list(loaded['meta']) == ['epoch', 'iter', 'seed']
    assert loaded['message_hub']['runtime_info'] == {'iter': 3}
    wide = OrderedDict(a=torch.zeros(1).expand(1 << 40))
    vars(wide).update(values=OrderedDict)
    torch.save(wide, tmp_path / 'b.pth')
    with pytest.raises(ValueError, match='repeats its elements too often'):
        load_checkpoint(tmp_path / 'b.pth')


@PROGRAMS
@pytest.mark.parametrize(('name', 'arguments'), [
    ('test.py', (CONFIG, '{evil}', '--work-dir', '{out}')), ('deploy.py', (CONFIG, '{evil}', '{out}')),
    ('tie.py', (CONFIG, '{evil}', '{out}')), ('convert_backbone.py', ('{evil}', '{out}'))])
def test_other_tools_run_nothing_of_a_checkpoint(tool, shapes, tmp_path, marker, program, name, arguments):
    evil = evil_checkpoint(tmp_path / 'evil.pth', program, marker)
    arguments = [text.format(evil=evil, out=tmp_path / 'out') for text in arguments]
    code, _, err = tool(name, *arguments, *(options(shapes) if name == 'test.py' else ()))
    assert not marker.exists()
    assert code == 2 and err.count('\n') == 1 and 'evil.pth: refused, as it needs ' in err
    code, _, err = tool(name, *arguments, '--trust-checkpoint', *(options(shapes) if name == 'test.py' else ()))
    assert marker.exists()


@pytest.mark.parametrize(('name', 'arguments'), [
    ('filter_similarity.py', (CONFIG, '{evil}', '--images', '{images}', '--num', '1')),
    ('grad_cam.py', (CONFIG, '{evil}', '--images', '{images}', '--category', 'circle', '--out', '{out}.png')),
    ('samples.py', ('{truth}', '{images}', '--networks', CONFIG, '{evil}', '--bucket', '0', '1', '--out', '{out}.png')),
    ('samples.py', ('{truth}', '{images}', '--results', '{results}', '--bucket', '0', '1', '--out', '{out}.png')),
    ('shared_bases.py', ('coefficients', '{evil}', '--out', '{out}.png')),
    ('distill.py', (CONFIG, CONFIG, '--weights', '{evil}', '--images', '{images}', '--work-dir', '{out}')),
    ('distill.py', ('torchvision://resnet18', CONFIG, '--weights', '{evil}', '--images', '{images}', '--work-dir', '{out}')),
    ('distill.py', (CONFIG, CONFIG, '--resume', '--images', '{images}', '--work-dir', '{work}'))])
def test_tools_for_figures_and_distillation_run_nothing_of_a_file(tool, shapes, tmp_path, marker, name, arguments):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/last_checkpoint').write_text(str(tmp_path / 'evil.pth'))
    (tmp_path / 'results.pkl').write_bytes(pickle.dumps([program_by_getattr(marker)]))
    places = dict(evil=evil_checkpoint(tmp_path / 'evil.pth', program_by_getattr, marker), out=tmp_path / 'out',
                  images=shapes / 'val2017', truth=shapes / 'annotations/instances_val2017.json', work=tmp_path / 'work',
                  results=tmp_path / 'results.pkl')
    code, _, err = tool(name, *(text.format(**places) for text in arguments))
    assert not marker.exists()
    assert code == 2 and ('evil.pth' in err or 'results.pkl' in err) and 'refused, as ' in err.splitlines()[-1], err


def test_every_tool_that_reads_checkpoints_is_tried():
    """Tools that ask whether a checkpoint is trusted read one; the others read none."""
    tried = Path(__file__).read_text()
    assert all(f"'{path.name}'" in tried for path in (ROOT / 'tools').glob('*.py') if '--trust-checkpoint' in path.read_text())


@PROGRAMS
@pytest.mark.parametrize('name', ['results.pkl', 'results.PKL', 'results.pickle', 'results.pth', 'results.json', 'old.pth'])
def test_evaluation_runs_nothing_of_its_results(tool, shapes, tmp_path, marker, program, name):
    if name.endswith('.pth'):
        torch.save([program(marker)], tmp_path / name, _use_new_zipfile_serialization=name != 'old.pth')
    else:
        (tmp_path / name).write_bytes(pickle.dumps([program(marker)]))
    code, _, err = tool('occlusion_eval.py', shapes / 'annotations/instances_val2017.json', tmp_path / name)
    assert not marker.exists()
    assert code == 2 and err.count('\n') == 1 and len(err) < 400 and 'refused, as ' in err


def test_records_hold_no_objects(tool, tmp_path, marker):
    run = tmp_path / 'run'
    run.mkdir()
    np.savez(run / 'records.npz', header=np.array([plain_program(marker)], dtype=object))
    code, _, err = tool('compare_runs.py', run, run)
    assert not marker.exists()
    assert code == 2 and err.count('\n') == 1 and 'records.npz: not match records' in err


def test_only_one_module_unpickles():
    forbidden = re.compile(r'weights_only=False|pickle\.loads?\b|torch\.load\(|Unpickler|allow_pickle=True|joblib|marshal|shelve')
    found = {str(path.relative_to(ROOT)) for folder in ('mmtied', 'tools', 'benchmarks', 'configs', 'requirements', 'docs')
             for path in (ROOT / folder).rglob('*.py') if forbidden.search(path.read_text())}
    assert found == {'mmtied/unpickling.py'}


def test_small_pickles_take_little_memory(tmp_path):
    """In a process with 1 GB to spare; a list of nothing once took 4 GB, and counted as no detections."""
    contents = [b']r' + (1 << 28).to_bytes(4, 'little') + b'.', b']p268435456\n.',
                b'(' + b'G' + b'r' * 8 + b']r\xff\xff\xff\x00.']
    paths = [tmp_path / f'{number}.pkl' for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    code = ('import resource, sys; from mmtied.evaluation.inputs.tensor_pickle import read_tensor_pickle\n'
            'used = int(open("/proc/self/statm").read().split()[0]) * 4096\n'
            'resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), ) * 2)\n'
            'for path in sys.argv[1:]:\n    try: read_tensor_pickle(path)\n    except ValueError as error: print(error)')
    shown = subprocess.run([sys.executable, '-c', code, *paths], capture_output=True, text=True, check=True,
                           env={**os.environ, 'MMTIED_REGISTER': '0'}).stdout
    assert shown.count('stores object number') == len(contents)


@pytest.mark.parametrize('protocol', range(6))
def test_long_pickles_pass(protocol):
    """With numbers that look like far places, and more objects than two bytes count."""
    objects = [[float(number), b'r\xff\xff\xff\xff' * 9, f'p99999999\n{number}', 2**70, {number: b'r' * 300}]
               for number in range(20_000)]
    check_memo(pickle.dumps(objects, protocol))


def test_copies_of_bytes_are_bounded(tmp_path):
    """Each GET and REDUCE would copy a megabyte."""
    head = (b'cbuiltins\nbytearray\nq\x00B' + (1 << 20).to_bytes(4, 'little') + b'x' * (1 << 20) + b'q\x0100]')
    (tmp_path / 'bomb.pkl').write_bytes(head + b'(' + b'h\x00h\x01\x85R' * 10_000 + b'e.')
    with pytest.raises(ValueError, match='more than [0-9]+ bytes from a file of'):
        read_tensor_pickle(tmp_path / 'bomb.pkl')


def test_zip_bomb(tmp_path):
    torch.save({'a': torch.zeros(1 << 23)}, tmp_path / 'zeros.pth')
    load_tensors(tmp_path / 'zeros.pth')
    with zipfile.ZipFile(tmp_path / 'zeros.pth') as file, \
            zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as bomb:
        for name in file.namelist():
            bomb.writestr(name, file.read(name))
    assert Path(tmp_path / 'bomb.pth').stat().st_size < 1 << 16
    with pytest.raises(ValueError, match='bomb.pth: not a readable torch file; it would unpack to 335[0-9]+ bytes'):
        load_tensors(tmp_path / 'bomb.pth')


def test_tensors_that_repeat_elements_without_end(tmp_path):
    torch.save({'a': torch.zeros(1).expand(1 << 40)}, tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match=r'a tensor of shape \(1099511627776,\) repeats its elements too often'):
        load_tensors(tmp_path / 'wide.pth')


def test_an_empty_core_of_numpy_1_is_left_alone(monkeypatch):
    """NumPy 1.26 has both; scikit-learn, for example, imports the new one, which then lacks `multiarray`."""
    parts = SimpleNamespace(_reconstruct=len, scalar=max)
    monkeypatch.setattr(np, '__version__', '1.26.4')
    monkeypatch.setattr(np, '_core', SimpleNamespace(), raising=False)
    monkeypatch.setitem(vars(np), 'core', SimpleNamespace(multiarray=parts))
    allowed = {name: value for value, name in history_parts()}
    assert allowed['numpy.core.multiarray.scalar'] is allowed['numpy._core.multiarray.scalar'] is max
