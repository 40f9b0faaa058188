"""Backbones with few channels or few blocks, which have the structure of the full ones and run quickly."""

from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest
from torch import nn

import mmtied.backbones as backbones
from mmtied.backbones.from_mmpretrain import network_class
from mmtied.torch_compat import has_selective_checkpoint

FAMILIES = {
    'TiedResNet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSENet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSEResNet': {'base_channels': 8},
    'TiedResNeXt': {'base_channels': 16, 'split_groups': 4, 'split_blocks': (1, 2, 2, 4)},
    'TiedResNeSt': {'base_channels': 8},
}

needs_selective_checkpoint = pytest.mark.skipif(not has_selective_checkpoint(), reason='PyTorch before 2.4')
#: Parametrize a test by the values of with_cp that recompute something.
recomputing = pytest.mark.parametrize('with_cp', [True, pytest.param('norm', marks=needs_selective_checkpoint)])


def tiny(family: str, **settings) -> nn.Module:
    """Build a thin network of a family, of depth 50 unless settings say otherwise."""
    return getattr(backbones, family)(**{'depth': 50, **FAMILIES[family], **settings})


def short(builder: str) -> AbstractContextManager:
    """Let a class or function of `mmtied.backbones` build few blocks: two and one in two stages, about half of mmpretrain's.

    Tracing and exporting take time for each block; a stage's first block and its others are all that differ.
    """
    if builder == 'tied_efficientnet':
        pytest.importorskip('mmpretrain')
        return patch.dict(network_class('TiedEfficientNet').arch_settings, b0=(1., .4, 224))
    if builder == 'shared_mobilenet_v2':  # three blocks, of which two share filters, once
        pytest.importorskip('mmpretrain')
        make = network_class('SharedMobileNetV2')
        blocks = (1, 2, 3, 1, 1, 1, 1)
        settings = [[ratio, channels, number, stride]
                    for (ratio, channels, _, stride), number in zip(make.arch_settings, blocks, strict=True)]
        return patch.object(make, 'arch_settings', settings)
    cls = getattr(backbones, builder)
    return patch.object(cls, 'stage_blocks', dict.fromkeys(cls.stage_blocks, (2, 1)))


def build_short(builder: str, **settings) -> nn.Module:
    """Build a backbone with few blocks; with two stages unless it is mmpretrain's."""
    stages = {} if builder in ('tied_efficientnet', 'shared_mobilenet_v2') else {'num_stages': 2, 'out_indices': (0, 1)}
    with short(builder):
        return getattr(backbones, builder)(**{**stages, **settings})
