"""Shared filter bases.

Kang & Kim, "Deeply Shared Filter Bases for Parameter-Efficient Convolutional Neural Networks", NeurIPS 2021,
https://arxiv.org/abs/2006.05066.
"""

from .layers import FilterBasis, SharedBasisConv, SharedConv2d

__all__ = ['FilterBasis', 'SharedBasisConv', 'SharedConv2d']
