"""Transformations of trained networks: deploy, tie, and freeze learned groups."""

from .deploy import deploy
from .freeze_groups import PermutedConv2d, freeze_groups
from .tie import TiedLayer, tie

__all__ = ['PermutedConv2d', 'TiedLayer', 'deploy', 'freeze_groups', 'tie']
