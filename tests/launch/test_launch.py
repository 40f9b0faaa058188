"""Load configs, apply the command line to them, and read checkpoints."""

import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn

from mmtied.launch import checkpoints, config, runner
from mmtied.layers import TBC
from mmtied.unpickling import safe_loading


def test_config_of_mmdet():
    cfg = config.load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py', {'train_cfg.max_epochs': 3})
    assert cfg.model.type == 'MaskRCNN'
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.work_dir == 'work_dirs/mask-rcnn_r50_fpn_2x_coco'


def test_config_of_mmtied():
    """Configs load from a clone and from an installed package."""
    shipped = config.load_config('mmtied::mask_rcnn_tiedr50_2x.py')
    assert shipped.model == config.load_config('configs/mask_rcnn_tiedr50_2x.py').model


@pytest.mark.parametrize(('base', 'message'), [
    ('mmdet::nope.py', 'cannot be read: a package\'s config is named package::folder/file.py, such as mmdet::detr/'),
    ('mmdet::nope/nope.py', r'cannot be read: no such file, or a _base_ that does not exist: .*nope/nope.py'),
    ('nope.py', r'cannot be read: no such file, or a _base_ that does not exist: .*nope.py'),
])
def test_missing_base_config(tmp_path, base, message):
    (tmp_path / 'mine.py').write_text(f'_base_ = {base!r}')
    with pytest.raises(ValueError, match=message):
        config.load_config(str(tmp_path / 'mine.py'))


def test_mmpretrain_dataloader_defaults():
    cfg = config.load_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.batch_size == 32


@pytest.mark.parametrize('name', ['configs/imagenet/tiedr50_in1k.py', 'configs/mask_rcnn_tiedr50_2x.py'])
def test_zero_workers_disable_persistent_workers(name):
    """torch's DataLoader accepts the settings if an option sets only num_workers=0."""
    cfg = config.load_config(name, {'train_dataloader.num_workers': 0})
    for split, persistent in (('train', False), ('val', True)):
        settings = {key: cfg[f'{split}_dataloader'][key] for key in ('num_workers', 'persistent_workers')}
        assert torch.utils.data.DataLoader([0], **settings).persistent_workers is persistent


def test_amp_and_auto_scale_lr(monkeypatch):
    with pytest.raises(ValueError, match='--amp needs a GPU'):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        config.use_amp(Config({}))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = config.load_config('configs/mask_rcnn_tiedr50_2x.py')
    config.use_amp(cfg)
    config.use_auto_scale_lr(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr == {'enable': True, 'base_batch_size': 16}
    with pytest.raises(ValueError, match='base_batch_size'):
        config.use_auto_scale_lr(Config({}))


def test_wrapped_datasets_are_checked(tmp_path):
    (tmp_path / 'here.json').touch()
    good = {'type': 'CocoDataset', 'data_root': str(tmp_path), 'ann_file': 'here.json', 'data_prefix': {'img': ''}}
    bad = {**good, 'ann_file': 'gone.json'}
    wrapped = {'type': 'RepeatDataset', 'dataset': {'type': 'ConcatDataset', 'datasets': [good, bad]}}
    runner.check_data_files(Config({'train_dataloader': {'dataset': good}}), 'train', 'val')
    with pytest.raises(ValueError, match=r'train data: .*gone.json not found'):
        runner.check_data_files(Config({'train_dataloader': {'dataset': wrapped}}), 'train')
    remote = {**bad, 'data_root': 's3://bucket/'}
    runner.check_data_files(Config({'train_dataloader': {'dataset': remote}}), 'train')


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('wrapped', [True, False])
def test_backbone_checkpoint_settings(tmp_path, prefix, wrapped):
    state = {f'{prefix}stem.conv.weight': torch.zeros(1)}
    torch.save({'state_dict': state} if wrapped else state, tmp_path / 'weights.pth')
    cfg = config.load_config('configs/mask_rcnn_tiedr101s_2x.py')
    checkpoints.use_backbone_checkpoint(cfg, str(tmp_path / 'weights.pth'))
    backbone = cfg.model.backbone
    assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
    assert backbone.init_cfg.get('prefix') == (prefix or None)


@pytest.mark.parametrize('content', [{}, {'state_dict': {}}, {'a': 1}, [1, 2]])
def test_checkpoint_without_weights(tmp_path, content):
    torch.save(content, tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match='contains no weights'):
        checkpoints.check_checkpoint(str(tmp_path / 'weights.pth'), 'checkpoint')


def test_legacy_checkpoint_format(tmp_path):
    torch.save({'weight': torch.ones(2)}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    checkpoints.check_checkpoint(str(tmp_path / 'old.pth'), 'checkpoint')


class Program:
    """Object that calls print when it is unpickled."""

    def __reduce__(self):
        return print, ('a program in the checkpoint ran', )


@pytest.fixture(params=['safe_globals', 'before torch 2.5'])
def torch_release(request, monkeypatch):
    if request.param != 'safe_globals':
        monkeypatch.delattr(torch.serialization, 'safe_globals', raising=False)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.usefixtures('torch_release')
def test_checkpoint_reader_rejects_unknown_classes(tmp_path, capsys, zipped):
    """A Runner saves mmengine's HistoryBuffer of NumPy arrays; other classes are refused by name and never run."""
    weights = {'weight': torch.ones(2, dtype=torch.float16), 'scale': torch.nn.Parameter(torch.rand(3, 4).T)}
    history = {'log_scalars': {'loss': HistoryBuffer([1., 2.], [1, 1])}, 'runtime_info': {'lr': np.float64(1)}}
    content = {'meta': {'epoch': 3}, 'state_dict': weights, 'message_hub': history,
               'param_schedulers': [{'milestones': Counter({8: 1, 11: 1})}]}
    torch.save(content, tmp_path / 'trained.pth', _use_new_zipfile_serialization=zipped)
    read = checkpoints.read_state_dict(tmp_path / 'trained.pth')
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in weights.items())
    torch.save({**content, 'extra': Program()}, tmp_path / 'program.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r'program.pth: refused, as it needs (builtins.)?print, which could run arbitrary code'):
        checkpoints.read_state_dict(tmp_path / 'program.pth')
    assert capsys.readouterr().out == ''


def test_backbone_without_norm_eval(tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path / 'weights.pth')
    cfg = config.load_config('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')
    checkpoints.use_backbone_checkpoint(cfg, str(tmp_path / 'weights.pth'))
    assert cfg.model.backbone.frozen_stages == 1
    assert 'norm_eval' not in cfg.model.backbone


def test_drawing_and_tta_without_settings():
    with pytest.raises(ValueError, match='visualization hook'):
        config.draw_predictions(Config({}), False, 'out', 0)
    with pytest.raises(ValueError, match='tta_model and tta_pipeline'):
        config.use_tta(Config({}))


def test_tta():
    cfg = config.load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    cfg.merge_from_dict({'tta_model': {'type': 'DetTTAModel'}, 'tta_pipeline': [{'type': 'LoadImageFromFile'}]})
    config.use_tta(cfg)
    assert cfg.model.module.type == 'RetinaNet'
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline


def trained_checkpoint(path, **more):
    """Save what mmengine's CheckpointHook saves: weights, optimizer state, and a history with NumPy numbers."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    history = {'log_scalars': {'loss': HistoryBuffer([1., 2.], [1, 1])},
               'runtime_info': {'lr': np.float64(.1), 'best': np.float32(.5), 'count': np.int64(3)}, 'resumed_keys': {}}
    torch.save({'meta': {'epoch': 3, 'dataset_meta': {'classes': ('a', )}}, 'state_dict': model.state_dict(),
                'optimizer': optimizer.state_dict(), 'message_hub': history, **more}, path)


@pytest.mark.skipif(not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'), reason='torch.load reads everything')
def test_safe_loading_lets_torch_load_read_a_history(tmp_path):
    """torch.load without arguments, as mmengine 0.10.7 calls it, reads a Runner's checkpoint in the block and only there."""
    trained_checkpoint(tmp_path / 'epoch_3.pth')
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer|getattr'):
        torch.load(tmp_path / 'epoch_3.pth')
    with safe_loading():
        read = torch.load(tmp_path / 'epoch_3.pth')
    assert read['message_hub']['log_scalars']['loss'].mean() == 1.5
    assert read['message_hub']['runtime_info'] == {'lr': .1, 'best': np.float32(.5), 'count': 3}
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'epoch_3.pth')


class Getter:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


@pytest.mark.parametrize(('extra', 'name'), [(Program(), '(builtins.)?print'), (Getter(), 'builtins.getattr'),
                                             (Path('x'), r'pathlib.*Path')])
def test_safe_loading_names_what_it_refuses(tmp_path, capsys, extra, name):
    trained_checkpoint(tmp_path / 'other.pth', extra=extra)
    with pytest.raises(ValueError, match=f'other.pth: refused, as it needs {name}, which could run arbitrary code'), \
            safe_loading():
        torch.load(tmp_path / 'other.pth')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(('model', 'expected'), [
    (nn.Sequential(nn.Conv2d(3, 8, 1), TBC(8, 8, 1), TBC(3, 8, 1, indivisible='untie')),
     ['Sequential: 1 of 3 convolutions are tied; TBC or TGC of one block: 1, other types: 1']),
    (nn.Sequential(nn.Conv2d(3, 8, 1)), []),
])
def test_build_runner_logs_tying(model, expected, monkeypatch):
    lines = []
    built = SimpleNamespace(model=model, logger=SimpleNamespace(info=lines.append))
    monkeypatch.setattr(runner.Runner, 'from_cfg', lambda cfg: built)
    assert runner.build_runner(Config()) is built
    assert lines == expected
