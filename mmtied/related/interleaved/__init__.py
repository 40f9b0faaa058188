"""Interleaved group convolutions.

Zhang et al., "Interleaved Group Convolutions for Deep Neural Networks", ICCV 2017, https://arxiv.org/abs/1707.02725.
"""

from .layers import IGC, SumFusion
from .partitions import Partitions, leanest_partitions, widest_partitions

__all__ = ['IGC', 'Partitions', 'SumFusion', 'leanest_partitions', 'widest_partitions']
