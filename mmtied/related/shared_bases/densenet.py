"""DenseNet for CIFAR whose layers share filter bases, structured as in the authors' code."""

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.backbones.checkpoint import StrictCheckpoint
from mmtied.backbones.resnet_base import check_choice
from mmtied.layers.blocks import check_not_negative, check_positive

from .backbones import SharedStage
from .layers import FilterBasis, SharedBasisConv

#: Layers per dense block, by depth.
_LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
#: Output channels of a layer's 1x1 convolution as a multiple of the growth rate.
_BOTTLENECK = 4


@MODELS.register_module()
@suggest_arguments
class SharedDenseNetCIFAR(StrictCheckpoint, BaseModule):
    """DenseNet-121-SsUu for 32 x 32 images, with a 3x3 stem without pooling.

    Every 3x3 convolution of a dense block combines S elements of the block's basis and U of its own; S and U are the same in all
    blocks, as is the width. Between the blocks are BatchNorm, a 1x1 convolution and pooling, without an activation.

    In the authors' code the last dense block uses the third block's basis; its own, the fourth, is registered and counted but
    unused. ``last_basis='third'`` builds that (without the unused basis); 'own' is the paper's network.

    In the state_dict, shared filters appear once, under their block: ``layer2.bases.spatial.weight``.

    Args:
        depth: 121, 169 or 201.
        num_bases: 1 shares a basis in each dense block; 0 is an ordinary DenseNet.
        shared_elements: Shared elements of a basis, S.
        unique_elements: Elements that each layer adds, U.
        growth_rate: Channels that each layer adds.
        last_basis: Basis of the last dense block, 'own' or 'third'.
        norm_cfg: Normalization layer.
        strict_checkpoint: Raise a ValueError for weights that do not fit, instead of mmengine's warning.
        init_cfg: Initialization; None is PyTorch's, with orthonormal bases.

    Shape:
        - Input: (N, 3, H, W).
        - Output: a tuple of one (N, C, H / 8, W / 8), C = 1024 with depth 121.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> model = SharedDenseNetCIFAR(shared_elements=16)  # S16U1
        >>> sum(p.numel() for p in model.parameters()) + 1024 * 100 + 100  # on CIFAR-100: 5.08M
        5084504
    """

    def __init__(self, depth: int = 121, *, num_bases: int = 1, shared_elements: int = 16, unique_elements: int = 1,
                 growth_rate: int = 32, last_basis: str = 'own', norm_cfg: dict | None = None, strict_checkpoint: bool = True,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        check_choice(name, 'depth', depth, _LAYERS)
        check_choice(name, 'num_bases', num_bases, (0, 1))
        check_choice(name, 'last_basis', last_basis, ('own', 'third'))
        check_positive(name, shared_elements=shared_elements, growth_rate=growth_rate)
        check_not_negative(name, unique_elements=unique_elements)
        self.strict_checkpoint = strict_checkpoint
        norm_cfg = norm_cfg or {'type': 'BN', 'requires_grad': True}
        channels = 2 * growth_rate
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.stage_names = []
        basis = None
        for number, layers in enumerate(_LAYERS[depth], 1):
            last = number == len(_LAYERS[depth])
            if num_bases and not (last and last_basis == 'third'):
                basis = FilterBasis(_BOTTLENECK * growth_rate, shared_elements, 3)
            block = [DenseLayer(channels + index * growth_rate, growth_rate, basis, unique_elements, norm_cfg)
                     for index in range(layers)]
            channels += layers * growth_rate
            self.stage_names.append(f'layer{number}')
            borrows = last and last_basis == 'third'
            stage = SharedStage(block, {} if basis is None or borrows else {'spatial': basis})
            if borrows and basis is not None:
                for layer in stage:
                    layer.conv2.refer_to(self.layer3.bases, 'spatial')
            self.add_module(f'layer{number}', stage)
            if not last:
                self.add_module(f'transition{number}', nn.Sequential(
                    build_norm_layer(norm_cfg, channels)[1], nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)))
                channels //= 2
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.out_channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the last features, normalized and activated."""
        x = self.stem(x)
        for number, name in enumerate(self.stage_names, 1):
            x = getattr(self, name)(x)
            if number < len(self.stage_names):
                x = getattr(self, f'transition{number}')(x)
        return (self.norm(x).relu(), )


class DenseLayer(nn.Module):
    """Layer of a dense block: norm, ReLU, 1x1, norm, ReLU, 3x3, whose output is appended to the input.

    The 3x3 convolution combines a basis and elements of its own; without a basis it is ordinary.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: (N, in_channels + growth_rate, H, W).
    """

    def __init__(self, in_channels: int, growth_rate: int, basis: FilterBasis | None, unique_elements: int,
                 norm_cfg: dict) -> None:
        super().__init__()
        width = _BOTTLENECK * growth_rate
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, width)[1]
        if basis is None:
            self.conv2 = nn.Conv2d(width, growth_rate, 3, padding=1, bias=False)
        else:
            norm = build_norm_layer(norm_cfg, basis.out_channels + unique_elements)[1]
            self.conv2 = SharedBasisConv(width, growth_rate, 3, padding=1, bias=False, filters=basis, num_unique=unique_elements,
                                         norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Append the layer's output to its input."""
        out = self.conv1(self.norm1(x).relu())
        return torch.cat([x, self.conv2(self.norm2(out).relu())], 1)
