"""Networks made into other networks that compute the same."""

from .deploy import deploy
from .freeze_groups import PermutedConv2d, freeze_groups

__all__ = ['PermutedConv2d', 'deploy', 'freeze_groups']
