"""Tied layers, shared filter bases, interleaved group convolutions, and a convolution that learns its groups, in pure torch."""

from .choice import tied_convolution_way
from .dynamic_group_conv import DGConv
from .filter_basis import FilterBasis
from .interleaved_conv import IGC
from .partitions import Partitions, leanest_partitions, widest_partitions
from .shared_basis_conv import SharedBasisConv, SharedConv2d
from .sum_fusion import SumFusion
from .tied_conv import TBC, TGC
from .tied_linear import TFC

__all__ = ['IGC', 'TBC', 'TFC', 'TGC', 'DGConv', 'FilterBasis', 'Partitions', 'SharedBasisConv', 'SharedConv2d', 'SumFusion',
           'leanest_partitions', 'tied_convolution_way', 'widest_partitions']
