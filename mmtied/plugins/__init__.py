"""Tied attention layers, for the ``plugins`` setting of a ResNet or as standalone modules."""

from .tied_context_block import TiedGCB
from .tied_se import TiedSE

__all__ = ['TiedGCB', 'TiedSE']
