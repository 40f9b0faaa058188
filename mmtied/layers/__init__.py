"""Tied layers in pure PyTorch, and the layers of `mmtied.related`."""

from mmtied.compat import forward_names

from .algorithms import tied_conv_algorithm
from .blocks import refuse_fusion
from .tied_conv import TBC, TGC
from .tied_linear import TFC

__all__ = ['IGC', 'TBC', 'TFC', 'TGC', 'DGConv', 'FilterBasis', 'Partitions', 'SharedBasisConv', 'SharedConv2d',  # noqa: F822
           'SumFusion', 'leanest_partitions', 'tied_conv_algorithm', 'tied_convolution_way', 'widest_partitions']

for module in ('torch.nn.utils', 'torch.nn.utils.fusion'):
    refuse_fusion(module, 'fuse_conv_bn_eval', 'fuse_linear_bn_eval')

#: Former name of `tied_conv_algorithm`.
tied_convolution_way = tied_conv_algorithm

__getattr__, __dir__ = forward_names(__name__, {
    'groupable': ['DGConv'],
    'interleaved': ['IGC', 'Partitions', 'SumFusion', 'leanest_partitions', 'widest_partitions'],
    'shared_bases': ['FilterBasis', 'SharedBasisConv', 'SharedConv2d'],
})
