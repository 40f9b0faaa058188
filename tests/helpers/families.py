"""Tied residual backbones with few channels, which have the structure of the full ones and run quickly."""

from torch import nn

import mmtied.backbones as backbones

FAMILIES = {
    'TiedResNet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSENet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSEResNet': {'base_channels': 8},
    'TiedResNeXt': {'base_channels': 16, 'split_groups': 4, 'split_blocks': (1, 2, 2, 4)},
    'TiedResNeSt': {'base_channels': 8},
}


def tiny(family: str, **settings) -> nn.Module:
    """Build a thin network of a family, of depth 50 unless settings say otherwise."""
    return getattr(backbones, family)(**{'depth': 50, **FAMILIES[family], **settings})
