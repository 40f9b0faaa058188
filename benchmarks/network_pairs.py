"""The tied backbones and the untied ones that they stand against, built with random weights."""

import logging
from functools import cache
from importlib import import_module

import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from mmtied.compat import require

#: How each backbone is built; all train wholly, with BatchNorm in its usual mode, where mmdet's default would keep it still.
NETWORKS: dict[str, dict] = {
    'ResNet-50': dict(type='mmdet.ResNet', depth=50, norm_eval=False),
    'TiedResNet-50': dict(type='mmtied.TiedResNet', depth=50),
    'TiedResNet-50-S': dict(type='mmtied.TiedResNet', depth=50, base_width=18),
    'ResNet-101': dict(type='mmdet.ResNet', depth=101, norm_eval=False),
    'TiedResNet-101': dict(type='mmtied.TiedResNet', depth=101),
    'TiedResNet-101-S': dict(type='mmtied.TiedResNet', depth=101, base_width=18),
    'ResNeXt-50': dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4, norm_eval=False),
    'TiedResNeXt-50': dict(type='mmtied.TiedResNeXt', depth=50),
    'TiedResNeXt-50-S': dict(type='mmtied.TiedResNeXt', depth=50, base_width=36),
    'SE-ResNet-50': dict(type='mmpretrain.SEResNet', depth=50, out_indices=(0, 1, 2, 3)),
    'TiedSENet-50': dict(type='mmtied.TiedSENet', depth=50),
    'TiedSENet-50-S': dict(type='mmtied.TiedSENet', depth=50, base_width=18),
    'ResNeSt-50': dict(type='mmdet.ResNeSt', depth=50, stem_channels=64, radix=2, reduction_factor=4, avg_down_stride=True,
                       norm_eval=False),
    'TiedResNeSt-50-S': dict(type='mmtied.TiedResNeSt', depth=50),
    'EfficientNet-B0': dict(type='mmpretrain.EfficientNet', arch='b0'),
    'TiedEfficientNet-B0': dict(type='mmtied.TiedEfficientNet', arch='b0'),
}
#: The untied network of each tied one.
BASELINES: dict[str, str] = {
    'TiedResNet-50': 'ResNet-50', 'TiedResNet-50-S': 'ResNet-50', 'TiedResNet-101': 'ResNet-101',
    'TiedResNet-101-S': 'ResNet-101', 'TiedResNeXt-50': 'ResNeXt-50', 'TiedResNeXt-50-S': 'ResNeXt-50',
    'TiedSENet-50': 'SE-ResNet-50', 'TiedSENet-50-S': 'SE-ResNet-50', 'TiedResNeSt-50-S': 'ResNeSt-50',
    'TiedEfficientNet-B0': 'EfficientNet-B0',
}


def build(name: str) -> nn.Module:
    """Build a network with seeded random weights, without a word from mmengine.

    Raises:
        ImportError: mmdet or mmpretrain is needed and not there.
    """
    quieten()
    package = NETWORKS[name]['type'].partition('.')[0]
    require(package, name)
    import_module(package if package == 'mmtied' else f'{package}.models')
    torch.manual_seed(0)
    network = MODELS.build(dict(NETWORKS[name]))
    network.init_weights()
    return network


@cache
def quieten() -> None:
    """Let mmengine report errors only; it has a line for every initialised layer."""
    MMLogger.get_instance('benchmark', log_level=logging.ERROR)
    MMLogger.get_instance('mmengine', log_level=logging.ERROR)
