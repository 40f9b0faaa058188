"""Checks before a run: misspellings, classes, mmcv, output folders; and around a run: log and Ctrl-C."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmtied import atomic, cli, compat
from mmtied.launch import checks, config
from tests.helpers.packages import only_installed


def test_misspelled_settings_of_a_config_give_a_warning(tmp_path, capsys):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
                                      "modle = dict(backbone=dict(depth=101))\ntrain_dataloder = dict(batch_size=4)")
    config.load_config(str(tmp_path / 'mine.py'))
    assert capsys.readouterr().err == (
        'warning: the config sets modle, which mmengine does not read; did you mean model?\n'
        'warning: the config sets train_dataloder, which mmengine does not read; did you mean train_dataloader?\n')


def test_names_in_shipped_configs_are_not_taken_for_misspellings(capsys):
    """Every name that a config of mmdet or mmpretrain assigns at its top level."""
    names = {name for package in ('mmdet', 'mmpretrain') for path in (
        Path(pytest.importorskip(package).__file__).parent / '.mim/configs').rglob('*.py')
        for name in re.findall(r'^(\w+) = ', path.read_text(), re.MULTILINE)}
    assert len(names) > 100
    checks.warn_of_misspelled_settings(Config({name: {} for name in names}))
    assert capsys.readouterr().err == ''


def test_options_that_nothing_reads(capsys):
    cfg = Config({'model': {}, 'my_setting': 1})
    checks.check_options(cfg, ['my_setting', 'model.depth', 'load_from', 'randomness.seed', 'find_unused_parameters'])
    assert capsys.readouterr().err == ''
    checks.check_options(cfg, ['zebra.depth'])
    assert capsys.readouterr().err == ('warning: --cfg-options zebra.depth: the config has no zebra, so it is probably unused\n')
    with pytest.raises(ValueError, match='--cfg-options my_seting: the config has no my_seting; did you mean my_setting[?]'):
        checks.check_options(cfg, ['my_seting'])


@pytest.mark.parametrize(('name', 'registry', 'hint'), [
    ('SDG', 'optimizer', 'did you mean SGD?'),
    ('mmdet.RetinaNt', 'model', 'did you mean mmdet.RetinaNet?'),
    ('RetinaNt', 'model', 'did you mean RetinaNet?'),
    ('tiedresnet', 'model', 'did you mean TiedResNet?'),
    ('mmtied.TiedSENt', 'model', 'did you mean mmtied.TiedSENet?'),
    ('EarlyStopingHook', 'hook', 'did you mean EarlyStoppingHook?'),
    ('Zzzzzz', 'hook', 'a type of your own needs custom_imports = dict(imports=[its module])'),
])
def test_unknown_types_are_corrected(name, registry, hint):
    from mmdet.utils import register_all_modules
    register_all_modules()  # makes mmdet the default scope
    assert checks.describe_unknown_type(name, registry) == f'{name} is not in the {registry} registry; {hint}'


def test_heads_with_too_few_classes():
    """Class-agnostic heads, such as an RPN's, have one class and are not compared."""

    class Head(torch.nn.Module):
        def __init__(self, num_classes, class_agnostic=False):
            super().__init__()
            self.num_classes, self.class_agnostic = num_classes, class_agnostic

    model = torch.nn.ModuleDict(dict(rpn_head=Head(1), roi_head=torch.nn.ModuleDict(dict(
        bbox_head=torch.nn.ModuleList([Head(8), Head(6)]), mask_head=Head(1, class_agnostic=True)))))
    checks.check_heads(model, 6)
    with pytest.raises(ValueError, match=r'have 8 classes and model.roi_head.bbox_head.1.num_classes is 6; set it to 8'):
        checks.check_heads(model, 8)


def test_log_is_dropped_for_a_user_error_only(capsys):
    with pytest.raises(ValueError, match='wrong'), cli.log_after_checks():
        print('a config of 500 lines')
        raise ValueError('wrong')
    assert capsys.readouterr().out == ''
    with pytest.raises(ZeroDivisionError), cli.log_after_checks():
        print('the log')
        1 / 0  # noqa: B018
    stream = None
    with cli.log_after_checks():
        print('more')
        stream = sys.stdout
        assert not stream.isatty()
    print('later', file=stream)
    assert capsys.readouterr().out == 'the log\nmore\nlater\n'


def test_resume_without_checkpoint_is_said(tmp_path, capsys):
    cfg = Config({'work_dir': str(tmp_path), 'load_from': 'initial.pth'})
    config.use_resume(cfg, 'auto')
    assert capsys.readouterr().err == (f'warning: --resume: {tmp_path} has no checkpoint to resume from, so training starts from '
                                       'the beginning\n')
    assert (cfg.load_from, cfg.get('resume')) == ('initial.pth', None)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'gone.pth'))
    with pytest.raises(ValueError, match='--resume .*gone.pth: no such file'):
        config.use_resume(cfg, 'auto')


def test_missing_drive_is_refused(monkeypatch):
    """On Windows a missing drive is its own parent."""
    monkeypatch.setattr(Path, 'exists', lambda path: False)
    with pytest.raises(ValueError, match='^--out /gone/new: cannot be written, as / is not a folder'):
        monkeypatch.setattr(Path, 'is_dir', lambda path: False)
        atomic.check_can_write('/gone/new', '--out', folder=True)


def test_interrupt_says_how_to_go_on(tmp_path, capsys):
    command = ['tools/train.py', 'my config.py', '--resume', 'old.pth', '--amp']
    assert config.how_to_resume(str(tmp_path), command) == f'no checkpoint was saved in {tmp_path}, so there is nothing to resume'
    (tmp_path / 'last_checkpoint').write_text('epoch_2.pth')
    with pytest.raises(SystemExit) as stop, cli.user_errors(
            only_own=True, after_interrupt=lambda: config.how_to_resume(str(tmp_path), command)):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == ("\nstopped by Ctrl-C; to resume from epoch_2.pth: python tools/train.py 'my config.py' "
                                       '--amp --resume\n')
    assert config.how_to_resume(str(tmp_path), ['mmtied train', 'a.py']).endswith('epoch_2.pth: mmtied train a.py --resume')
    assert config.how_to_resume(str(tmp_path), [*command, '--launcher', 'pytorch']).endswith('run the same command with --resume')


def test_missing_package_of_a_base_config(tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmrotate::r3det/r3det.py'")
    monkeypatch.setitem(compat.RELEASES, 'mmrotate', ('onedl-mmrotate==1', 'mmrotate==1'))
    with pytest.raises(ImportError, match='^the config .*mine.py needs mmrotate, which is not installed: pip install '):
        config.load_config(str(tmp_path / 'mine.py'))


@pytest.mark.parametrize(('path', 'folder', 'message'), [
    ('file/new.pkl', False, '--out .*/file/new.pkl: cannot be written, as .*/file is not a folder'),
    ('file', True, '--out .*/file: cannot be written, as .*/file is not a folder'),
    ('', False, '--out .*: expected a file, got a folder'),
    ('new/deep/out.pkl', False, None),
    ('new', True, None),
])
def test_places_that_cannot_be_written(tmp_path, path, folder, message):
    (tmp_path / 'file').touch()
    if message is None:
        atomic.check_can_write(tmp_path / path, '--out', folder)
    else:
        with pytest.raises(ValueError, match=message):
            atomic.check_can_write(tmp_path / path, '--out', folder)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr('os.access', lambda path, mode: False)
    with pytest.raises(ValueError, match='--out .*: cannot be written, no permission to write into'):
        atomic.check_can_write(tmp_path / 'new/out.pkl', '--out')


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a function that creates packages that find_spec finds but that fail to import."""
    def make(**contents):
        for name, files in contents.items():
            (tmp_path / name).mkdir()
            for file, text in {'__init__.py': '1 / 0', **files}.items():
                (tmp_path / name / file).write_text(text)
        specs = {name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)]) for name in contents}
        monkeypatch.setattr('mmtied.compat.find_spec', specs.get)
    return make


MMDET = {'__init__.py': "mmcv_minimum_version = '2.0.0rc4'\nmmcv_maximum_version = '2.2.0'\n"}


COMPILE = ('pip uninstall mmcv-lite, then with MMCV_WITH_OPS=1 in the environment, pip install --no-build-isolation '
           'mmcv==2.1.0')


@pytest.mark.parametrize(('mmcv', 'mmdet', 'message'), [
    ({'version.py': "__version__ = '2.1.0'"}, MMDET, "The demo needs mmcv's compiled operators, and the installed mmcv-lite "
     f'2.1.0 has none: {COMPILE}'),
    ({'version.py': "__version__ = '2.2.0'", '_ext.so': ''}, MMDET, 'The demo needs an mmcv below 2.2.0, as mmdet does, and '
     f'2.2.0 is installed: {COMPILE}, or run make setup'),
    ({'version.py': "__version__ = '2.1.0'", '_ext.so': ''}, None, 'The demo needs mmdet, which is not installed: pip install'),
    (None, MMDET, 'The demo needs mmcv, which is not installed: pip install'),
    ({'version.py': "__version__ = '2.1.0'", '_ext.so': ''}, MMDET, None),
    ({'version.py': "__version__ = '2.3.6'", '_ext.so': ''}, {}, None),
])
def test_unsuitable_mmcv(packages, monkeypatch, mmcv, mmdet, message):
    only_installed(monkeypatch, 'mmcv-lite')
    packages(**{name: files for name, files in dict(mmengine={}, mmcv=mmcv, mmdet=mmdet).items() if files is not None})
    if message is None:
        compat.check_mmcv('The demo', 'mmdet')
    else:
        with pytest.raises(ImportError, match=message):
            compat.check_mmcv('The demo', 'mmdet')


def test_backbones_alone_need_no_operators(packages):
    packages(mmengine={}, mmcv={'version.py': "__version__ = '2.1.0'"}, mmpretrain={})
    compat.check_mmcv('the config', 'mmpretrain', operators=False)
