"""Tied layers, and convolutions with shared filter bases, in pure torch."""

from .shared_basis_conv import FilterBasis, SharedBasisConv, SharedConv2d
from .tied_conv import TBC, TGC
from .tied_linear import TFC

__all__ = ['TBC', 'TFC', 'TGC', 'FilterBasis', 'SharedBasisConv', 'SharedConv2d']
