"""Parameters and multiply-adds of a network.

Multiply-adds are those of convolutions and matrix products, each multiply-add counted once, which is what papers call "FLOPs".
Normalization, activations, pooling and additions are not counted. torch's FlopCounterMode counts; the tests compare it with
mmengine's counter.
"""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from mmtied.layers import TBC, TGC
from mmtied.surgery.modules import replace_modules


class Complexity(NamedTuple):
    """Parameters of a network, and its multiply-adds for one image."""

    parameters: int
    multiply_adds: int


class ImageNetClassifier(nn.Module):
    """A backbone with average pooling and a fully connected layer on its last feature map, as papers count it."""

    def __init__(self, backbone: nn.Module, channels: int = 2048, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify (N, 3, H, W): (N, classes)."""
        return self.fc(self.backbone(x)[-1].mean(dim=(2, 3)))


def count_parameters(model: nn.Module, trained_only: bool = False) -> int:
    """Count the parameters of a model, shared ones once; with `trained_only`, only the trainable ones."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)


def describe_tying(model: nn.Module) -> str:
    """Describe how many convolutions of a model are tied; empty for a model without TBC and TGC.

    Example:
        >>> describe_tying(nn.Sequential(nn.Conv2d(3, 8, 1), TBC(8, 8, 1), TBC(8, 8, 3, groups=8, indivisible='untie')))
        '1 of 3 convolutions are tied; TBC or TGC of one block: 1, other types: 1'
    """
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    blocks = [conv.num_blocks for conv in convs if isinstance(conv, (TBC, TGC))]
    if not blocks:
        return ''
    untied, others = blocks.count(1), len(convs) - len(blocks)
    return (f'{len(blocks) - untied} of {len(convs)} convolutions are tied; TBC or TGC of one block: {untied}, other types: '
            f'{others}')


def measure(model: nn.Module, size: int = 224) -> Complexity:
    """Count parameters, and multiply-adds for one image of size x size pixels in evaluation mode.

    A copy of the network runs on torch's meta device, which propagates shapes without computing.

    Example:
        >>> measure(nn.Conv2d(3, 8, 3, padding=1, bias=False), size=10)
        Complexity(parameters=216, multiply_adds=21600)
    """
    shapes = deepcopy(model).to('meta').eval()
    replace_modules(shapes, lambda layer: nn.Identity() if isinstance(layer, _NormBase) else None)  # slow there, and not counted
    for layer in shapes.modules():
        if isinstance(layer, (TBC, TGC)):
            layer.algorithm = 'grouped'  # other algorithms may multiply zeros or use several passes
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.zeros(1, 3, size, size, device='meta'))
    return Complexity(count_parameters(model), counter.get_total_flops() // 2)
