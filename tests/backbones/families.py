"""Every family of tied residual backbones with few channels: the structure, quickly."""

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
    """A thin network of 50 layers, unless settings say otherwise."""
    return getattr(backbones, family)(**{'depth': 50, **FAMILIES[family], **settings})
