"""Multiply-adds of the grouped convolutions of a network ("GConv FLOPs", Table 3)."""

from copy import deepcopy

import torch
from torch import nn

from .layers import DGConv


def grouped_multiply_adds(model: nn.Module, size: int = 224) -> int:
    """Count the multiply-adds of a network's 3x3 convolutions, those of its ResNeXt blocks, for one image.

    A `DGConv` counts with the groups that it has now, so a network can be counted during training and after it. The paper prints
    the share of those of ResNeXt-32x4d, ``GResNeXt(depth, groups=32)``. The convolutions of a deep stem do not count.

    Nothing is computed: a copy of the network runs on torch's meta device, which has shapes alone.

    Example:
        >>> from mmtied.backbones import GResNeXt
        >>> with torch.device('meta'):
        ...     all_64, all_32 = (grouped_multiply_adds(GResNeXt(50, groups=groups)) for groups in (64, 32))
        >>> all_64 / all_32
        0.5
    """
    shapes = deepcopy(model).to('meta')
    shapes.eval()  # mmpretrain's networks return None here
    counts = []
    for name, conv in shapes.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and not name.startswith('stem'):
            layer = model.get_submodule(name)
            weights = conv.weight.numel() // (layer.group_number if isinstance(layer, DGConv) else 1)
            conv.register_forward_hook(lambda _, __, out, weights=weights: counts.append(weights * out.shape[-2:].numel()))
    with torch.no_grad():
        shapes(torch.zeros(1, 3, size, size, device='meta'))
    return sum(counts)
