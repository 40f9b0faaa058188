"""Tied layers in pure torch."""

from .tied_conv import TBC, TGC
from .tied_linear import TFC

__all__ = ['TBC', 'TFC', 'TGC']
