"""Networks made into other networks that compute the same."""

from .deploy import deploy
from .freeze_groups import PermutedConv2d, freeze_groups
from .tie import TiedLayer, tie

__all__ = ['PermutedConv2d', 'TiedLayer', 'deploy', 'freeze_groups', 'tie']
