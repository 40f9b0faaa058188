"""The five backbones that the detection experiments compare, and the one that the package does not have."""

from bisect import bisect_left
from functools import cache

import torch
from mmengine.registry import MODELS
from torch import nn

from mmtied.analysis.complexity import count_parameters
from mmtied.backbones import TiedResNet
from mmtied.layers import TBC

#: B of the splits of TiedResNet-50-S; at half its width a split has 9 channels, which 3 divides and the fitted 2 does not.
THIN_SPLIT_BLOCKS = {64: (1, 2, 2, 3), 32: (1, 3, 3, 3)}
_FROM_SCRATCH = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)


@MODELS.register_module()
class GroupedTwin(TiedResNet):
    """TiedResNet with a grouped convolution in place of each tied one: as many multiply-adds, B times as many weights.

    Each block has filters of its own, so that what differs from `TiedResNet` is the tying alone. Arguments as there.
    """

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if type(child) is TBC:
                    setattr(module, name, untie(child))


@MODELS.register_module()
class GroupedConv2d(nn.Conv2d):
    """A grouped convolution for ``conv_cfg``, whose `groups` mmcv's ConvModule sets itself."""

    def __init__(self, *args, num_groups: int, groups: int = 1, **settings) -> None:
        super().__init__(*args, groups=num_groups * groups, **settings)


def untie(layer: TBC) -> nn.Conv2d:
    """Return a grouped convolution of the same shape with filters of its own for each block."""
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                     groups=layer.num_blocks, bias=layer.bias is not None, padding_mode=layer.padding_mode)


@cache
def backbones(base_channels: int) -> dict[str, dict]:
    """Return the config of each backbone at a width: 64 is the papers', 32 half of it.

    ``r50_narrow`` is the ResNet-50 whose number of parameters is nearest to that of ``tied_s``.
    """
    tied = dict(_FROM_SCRATCH, base_channels=base_channels)
    thin = dict(tied, type='mmtied.TiedResNet', base_width=18, split_blocks=THIN_SPLIT_BLOCKS[base_channels])
    wanted, widths = size_of(thin), range(8, base_channels)
    above = bisect_left(widths, wanted, key=lambda width: size_of(_resnet(width)))
    narrow = min(widths[above - 1:above + 1], key=lambda width: abs(size_of(_resnet(width)) - wanted))
    return {
        'r50': _resnet(base_channels),
        'tied': dict(tied, type='mmtied.TiedResNet'),
        'tied_s': thin,
        'grouped': dict(tied, type='GroupedTwin'),
        'r50_narrow': _resnet(narrow),
    }


def size_of(backbone: dict) -> int:
    """Build a backbone without memory for its weights, and count them."""
    with torch.device('meta'):
        return count_parameters(MODELS.build(dict(backbone)))


def _resnet(base_channels: int) -> dict:
    return dict(_FROM_SCRATCH, type='mmdet.ResNet', depth=50, base_channels=base_channels)
