"""Training runs with a loss hook, and the same in plain PyTorch."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.launch.config import load_config
from mmtied.launch.runner import leave_processes
from mmtied.training.loss_hook import LossHook, attach
from tests.helpers.processes import run_processes


class RandomImages(torch.utils.data.Dataset):
    """Data set of twelve random images and targets of the given shapes."""

    def __init__(self, image: tuple[int, ...], target: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(12, *image, generator=generator)
        self.targets = torch.randn(12, *target, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': self.images[index], 'target': self.targets[index]}


class DistanceModel(BaseModel):
    """Model that runs `layers`; the loss is the squared distance to a target."""

    layers: nn.Module

    def forward(self, inputs: Tensor, target: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return {'loss_distance': (self.layers(inputs) - target).square().mean()}


def make_runner(model: nn.Module, dataset: RandomImages, folder: Path, *hooks: dict, epochs: int = 2, accumulate: int = 1,
                batch: int = 2, resume: bool = False, seed: int | None = None, launcher: str = 'none',
                cfg: dict | None = None, **optim) -> Runner:
    return Runner(
        model, str(folder), resume=resume, launcher=launcher, cfg=cfg, randomness={'seed': seed},
        default_scope='mmengine', experiment_name=uuid4().hex,
        train_dataloader={'dataset': dataset, 'batch_size': batch, 'num_workers': 0, 'collate_fn': {'type': 'default_collate'},
                          'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}, 'accumulative_counts': accumulate, **optim},
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}}, custom_hooks=list(hooks))


def train_plainly(model: DistanceModel, dataset: RandomImages, change_loss: Callable[[Tensor], Tensor], epochs: int,
                  accumulate: int) -> None:
    """Train like the runner, as a loop in plain PyTorch with the changed loss written out."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = list(torch.utils.data.DataLoader(dataset, 2)) * epochs
    for number, batch in enumerate(batches, 1):
        loss = change_loss((model.layers(batch['inputs']) - batch['target']).square().mean())
        (loss / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()


def logged(runner: Runner, name: str) -> Tensor:
    """Return all logged values of a scalar."""
    return torch.as_tensor(runner.message_hub.get_scalar(f'train/{name}').data[0])


def assert_same_weights(first: nn.Module, second: nn.Module, **tolerance) -> None:
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), **tolerance)


def train_step_of_rank(rank: int, world_size: int, folder: Path, make_model: Callable[[], DistanceModel], hook: LossHook,
                       dataset: RandomImages) -> None:
    """Save the gradients of one step on this rank's part of a batch, and the log, as ``<world_size>_<rank>.pt``."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = make_model()
    samples = torch.utils.data.default_collate([dataset[index] for index in range(4)])
    wrapped = model
    if world_size > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    attach(hook, model)
    kept = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.)
    optimizer.register_step_pre_hook(lambda *_: kept.update({name: p.grad.clone() for name, p in model.named_parameters()}))
    log = wrapped.train_step({key: value[rank::world_size] for key, value in samples.items()}, OptimWrapper(optimizer))
    entries = {name: log[name].detach() for name in hook.log_names}
    torch.save((kept, entries), folder / f'{world_size}_{rank}.pt')
    leave_processes()


def check_two_processes(folder: Path, *arguments) -> dict[str, Tensor]:
    """Compare a step of two processes with that of one, and return the gradients.

    Takes the last arguments of `train_step_of_rank`.
    """
    train_step_of_rank(0, 1, folder, *arguments)
    run_processes(train_step_of_rank, (2, folder, *arguments))
    gradients, entries = torch.load(folder / '1_0.pt')
    for rank in (0, 1):
        theirs, their_entries = torch.load(folder / f'2_{rank}.pt')
        torch.testing.assert_close(theirs, gradients)
        torch.testing.assert_close(their_entries, entries)
    return gradients


def make_openmmlab_model(kind: str, backbone: dict) -> tuple[BaseModel, dict]:
    """Build a small mmdet detector or mmpretrain classifier with a backbone of base_channels=8, and a batch for it."""
    scope = 'mmdet' if kind == 'detector' else 'mmpretrain'
    pytest.importorskip(scope)
    if kind == 'detector':
        from mmdet.testing import demo_mm_inputs
        cfg = load_config('configs/retinanet_r50_1x.py').model
        cfg.backbone = backbone
        cfg.neck.in_channels = [32, 64, 128, 256]
        batch = demo_mm_inputs(2, [(3, 64, 64)] * 2)
    else:
        from mmpretrain.structures import DataSample
        cfg = {'type': 'ImageClassifier', 'backbone': backbone, 'neck': {'type': 'GlobalAveragePooling'},
               'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 256}}
        batch = {'inputs': torch.rand(2, 3, 64, 64), 'data_samples': [DataSample().set_gt_label(1)] * 2}
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg), batch
