"""Tied residual backbones with few channels, which have the structure of the full ones and run quickly."""

import pytest
from torch import nn

import mmtied.backbones as backbones
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
