"""Classification: CIFAR-10 by networks of one form whose convolutions share weights in different ways."""

from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from mmtied.analysis.filter_similarity import weight_similarities
from mmtied.cli import repository_path
from mmtied.launch.config import load_config

from . import backbones, training  # noqa: F401, backbones registers the grouped convolution
from .runs import Run

CONFIG = 'configs/cifar/regconv_w16_d20_cifar10.py'
_NET = dict(type='mmtied.IGCNetCIFAR', depth=20, identity=True)
#: Grouped and tied convolutions of 22 channels need 5 % fewer multiply-adds than plain ones of 16.
MODELS = {
    'plain': dict(_NET, base_channels=16, conv_cfg=None),
    'grouped': dict(_NET, base_channels=22, conv_cfg=dict(type='GroupedConv2d', num_groups=2)),
    'tied': dict(_NET, base_channels=22, conv_cfg=dict(type='TBC', num_blocks=2)),
    'igc': dict(_NET, base_channels=48, conv_cfg=dict(type='IGC', num_primary=24)),
    'shared': dict(type='mmtied.SharedResNetCIFAR', depth=20),
}


@dataclass(frozen=True)
class Preset:
    """Size of the experiment."""

    seeds: int
    epochs: int
    batch_size: int


PRESETS = {'cpu': Preset(seeds=2, epochs=3, batch_size=128), 'gpu': Preset(seeds=5, epochs=200, batch_size=128)}


def prepare(preset: str, root: Path) -> None:
    """Check that the data set is there.

    Raises:
        ValueError: A folder is missing.
    """
    for split in ('train', 'test'):
        folder = root / 'cifar10' / split
        if not folder.is_dir():
            raise ValueError(f'{folder} is missing; experiments/data.md says where CIFAR-10 is and into which folder it goes')


def make_config(model: str, preset: str, root: Path) -> Config:
    """Return the config of a model: IGC's recipe with a cosine schedule, for a few epochs."""
    settings = PRESETS[preset]
    cfg = load_config(str(repository_path(CONFIG)))
    backbone = MODELS[model]
    cfg.model.backbone = dict(backbone)
    cfg.model.head.in_channels = 4 * backbone.get('base_channels', 16)
    cfg.model.data_preprocessor = dict(num_classes=10, mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255],
                                       to_rgb=True)
    cfg.data_preprocessor = cfg.model.data_preprocessor
    load = dict(type='LoadImageFromFile')
    augment = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='RandomFlip', prob=.5, direction='horizontal')]
    for split, folder, steps in (('train', 'train', augment), ('val', 'test', []), ('test', 'test', [])):
        loader = cfg[f'{split}_dataloader']
        loader.batch_size = settings.batch_size
        loader.dataset = dict(type='CustomDataset', data_root=str(root / 'cifar10'), data_prefix=folder, with_label=True,
                              pipeline=[load, *steps, dict(type='PackInputs')])
    cfg.train_cfg.update(max_epochs=settings.epochs, val_interval=settings.epochs)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=100),
                           dict(type='CosineAnnealingLR', T_max=settings.epochs, convert_to_iter_based=True)]
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run, or go on where it stopped, and keep its accuracy and how alike its filters are."""
    running, summary = training.train(run, make_config(run.model, run.preset, root), work_root)
    run.keep(training.kept_files(run, work_root),
             {**summary, 'accuracy': running.message_hub.get_scalar('val/accuracy/top1').current(),
              'filter_similarity': filter_similarity(running.model.backbone)})


def filter_similarity(network: torch.nn.Module) -> float:
    """Return the mean absolute cosine of two filters that see the same channels, over all 3x3 convolutions but the stem.

    Wang & Yu (Figures 1 and 9) take alike filters for redundant ones, and compare their guided backpropagation patterns, as
    `mmtied similarity` does; this compares the filters themselves.
    """
    banks = [bank for layer in network.modules()
             if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels > 3
             for bank in weight_similarities(layer)]
    return torch.stack([bank.abs().mean() for bank in banks]).mean().item()
