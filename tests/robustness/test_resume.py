"""Resumed training: exact with the hook, from the last whole checkpoint, never from the beginning without a word."""

import errno
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner

from mmtied.launch import config
from mmtied.training.resume import safe_saving
from tests.helpers.loss_hooks import DistanceModel, RandomImages


def checkpoint(path, **more):
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': {'epoch': 1, 'iter': 2}, 'message_hub': {}, **more}, path)


def test_last_whole_checkpoint_is_found(tmp_path, capsys):
    for number in (1, 2, 10):
        checkpoint(tmp_path / f'epoch_{number}.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    assert config.latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth') and capsys.readouterr().err == ''
    whole = (tmp_path / 'epoch_10.pth').read_bytes()
    (tmp_path / 'epoch_10.pth').write_bytes(whole[:len(whole) // 2])
    assert config.latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and 'epoch_10.pth: not a readable checkpoint' in err and 'resuming from' in err
    for note in ('', '\0\0\0', str(tmp_path / 'gone.pth'), str(tmp_path)):
        (tmp_path / 'last_checkpoint').write_text(note)
        (tmp_path / 'epoch_10.pth').write_bytes(b'')
        assert config.latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').unlink()
    assert config.latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')
    checkpoint(tmp_path / 'epoch_10.pth', meta=None)
    assert config.latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')
    assert 'epoch_10.pth: cannot be resumed: it lacks the training progress' in capsys.readouterr().err


def test_training_does_not_start_again_silently(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path)))
    (tmp_path / 'last_checkpoint').write_text('')
    with pytest.raises(ValueError, match='last_checkpoint is empty, and no checkpoint is beside it; remove it to start'):
        config.use_resume(cfg, 'auto')
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK')
    with pytest.raises(ValueError, match='epoch_1.pth: not a readable checkpoint'):
        config.use_resume(cfg, 'auto')
    (tmp_path / 'epoch_1.pth').unlink()
    (tmp_path / 'last_checkpoint').unlink()
    config.use_resume(cfg, 'auto')
    assert 'training starts from the beginning' in capsys.readouterr().err


def test_the_older_checkpoint_goes_after_the_newer_one_is_whole(tmp_path, monkeypatch):
    """As with max_keep_ckpts=1, and a full disk: the file is named, the old checkpoint stays, nothing half is left."""
    backend, put = LocalBackend(), LocalBackend.put
    (tmp_path / 'epoch_1.pth').write_bytes(b'first')

    def full(self, obj, filepath):
        put(self, obj[:2], filepath)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, 'put', full)
        with safe_saving():
            backend.remove(tmp_path / 'epoch_1.pth')
            with pytest.raises(ValueError, match=r'epoch_2.pth: cannot be written \(No space left on device\)'):
                backend.put(b'second', tmp_path / 'epoch_2.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
    with safe_saving():
        backend.remove(tmp_path / 'epoch_1.pth')
        assert (tmp_path / 'epoch_1.pth').exists()
        backend.put(b'second', tmp_path / 'epoch_2.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_2.pth']
    assert LocalBackend.put is put


class Augmented(RandomImages):
    """Images with random noise, as from augmentation."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {**item, 'inputs': item['inputs'] + torch.randn(())}


class Model(DistanceModel):
    """Its steps depend on random states, in training as well as in the data."""

    def forward(self, inputs, target, mode='loss'):
        return super().forward(torch.nn.functional.dropout(inputs, .5, self.training), target, mode)


def trained(folder, epochs, hook, workers, load=None):
    torch.manual_seed(0)
    model = Model()
    model.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    data = Augmented((3, 4, 4), (4, 4, 4))
    runner = Runner(model, str(folder), train_dataloader=dict(
        dataset=data, batch_size=2, num_workers=workers, persistent_workers=workers > 0,
        collate_fn=dict(type='default_collate'), sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1, momentum=.9)), load_from=load, resume=load is not None,
        custom_hooks=[dict(type='mmtied.ExactResumeHook')] if hook else [], randomness=dict(seed=3),
        default_hooks=dict(logger=None, runtime_info=None, checkpoint=dict(type='CheckpointHook', interval=1)),
        experiment_name=f'{folder.name}')
    runner.train()
    return model.state_dict()


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_run_equals_a_straight_one(tmp_path, workers):
    straight = trained(tmp_path / 'straight', 3, True, workers)
    trained(tmp_path / 'first', 1, True, workers)
    resumed = trained(tmp_path / 'second', 3, True, workers, str(tmp_path / 'first/epoch_1.pth'))
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_without_the_hook_it_does_not(tmp_path):
    """Otherwise the test above could not fail."""
    straight = trained(tmp_path / 'straight', 2, False, 0)
    trained(tmp_path / 'first', 1, False, 0)
    resumed = trained(tmp_path / 'second', 2, False, 0, str(tmp_path / 'first/epoch_1.pth'))
    assert any(not torch.equal(value, resumed[name]) for name, value in straight.items())
