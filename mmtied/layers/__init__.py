"""Tied layers, convolutions with shared filter bases, and one that learns its groups, in pure torch."""

from .dynamic_group_conv import DGConv
from .shared_basis_conv import FilterBasis, SharedBasisConv, SharedConv2d
from .tied_conv import TBC, TGC
from .tied_linear import TFC

__all__ = ['TBC', 'TFC', 'TGC', 'DGConv', 'FilterBasis', 'SharedBasisConv', 'SharedConv2d']
