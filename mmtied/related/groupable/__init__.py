"""Groupable convolution, which learns its groups.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867.
"""

from .layers import DGConv, gated_layers, group_numbers, grouped_multiply_adds

__all__ = ['DGConv', 'gated_layers', 'group_numbers', 'grouped_multiply_adds']
