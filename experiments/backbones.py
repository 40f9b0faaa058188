"""The five backbones of the detection experiments, including a grouped twin that the package lacks."""

from bisect import bisect_left
from functools import cache

import torch
from mmengine.registry import MODELS
from torch import nn

from mmtied.analysis.complexity import count_parameters
from mmtied.backbones import TiedResNet
from mmtied.layers import TBC

#: B of the splits of TiedResNet-50-S. At half width a split has 9 channels, which the fitted B = 2 does not divide; 3 does.
THIN_SPLIT_BLOCKS = {64: (1, 2, 2, 3), 32: (1, 3, 3, 3)}
_FROM_SCRATCH = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)


@MODELS.register_module()
class GroupedTwin(TiedResNet):
    """TiedResNet with grouped instead of tied convolutions: equal multiply-adds, B times the weights.

    Each block has its own filters, so the only difference from `TiedResNet` is the tying. Takes the same arguments.
    """

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if type(child) is TBC:
                    setattr(module, name, untie(child))


@MODELS.register_module()
class GroupedConv2d(nn.Conv2d):
    """A grouped convolution for ``conv_cfg``; its argument differs from `groups`, which mmcv's ConvModule sets itself."""

    def __init__(self, *args, num_groups: int, groups: int = 1, **settings) -> None:
        super().__init__(*args, groups=num_groups * groups, **settings)


def untie(layer: TBC) -> nn.Conv2d:
    """Return a grouped convolution of the same shape, with separate filters for each block."""
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                     groups=layer.num_blocks, bias=layer.bias is not None, padding_mode=layer.padding_mode)


@cache
def backbones(base_channels: int) -> dict[str, dict]:
    """Return the config of each backbone at a width: 64 as in the papers, or 32.

    ``r50_narrow`` is the ResNet-50 whose number of parameters is closest to that of ``tied_s``.
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
    """Count the parameters of a backbone on the meta device."""
    with torch.device('meta'):
        return count_parameters(MODELS.build(dict(backbone)))


def _resnet(base_channels: int) -> dict:
    return dict(_FROM_SCRATCH, type='mmdet.ResNet', depth=50, base_channels=base_channels)
