"""Convert learned groups to ordinary grouped convolutions with the same outputs.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867, Figure 1 (d) and Table 6. The channels of a learned group need not be adjacent, so permutations
surround the grouped convolution. A residual block of `GResNeXt` absorbs the permutations into its 1x1 convolutions and
normalizations, and becomes a ResNeXt block.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.compat import is_installed
from mmtied.related.groupable.layers import DGConv, closed_bits, gated_layers

from .modules import make_conv, replace_modules
from .permute import Space


class PermutedConv2d(nn.Conv2d):
    """Grouped convolution whose groups are not adjacent channels: permute, convolve, permute back.

    Weight rows and bias are in the order of the output channels, as in any Conv2d; `forward` sorts them by group. So scaling them
    by output channel, as in folding a normalization, stays correct.

    Args:
        input_order: Input channels, group by group, shape (C_in,).
        output_order: Output channels, group by group, shape (C_out,).
        **conv: Keyword arguments of Conv2d, including groups.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Example:
        >>> order = torch.tensor([0, 2, 1, 3])
        >>> conv = PermutedConv2d(order, order, in_channels=4, out_channels=4, kernel_size=1, groups=2)
        >>> conv(torch.rand(1, 4, 5, 5)).shape
        torch.Size([1, 4, 5, 5])
    """

    def __init__(self, input_order: Tensor, output_order: Tensor, **conv) -> None:
        super().__init__(**conv)
        self.register_buffer('input_order', input_order)
        self.register_buffer('output_order', output_order)
        self.register_buffer('output_places', output_order.argsort())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        weight = self.weight.index_select(0, self.output_order)
        bias = None if self.bias is None else self.bias.index_select(0, self.output_order)
        return self._conv_forward(x.index_select(-3, self.input_order), weight, bias).index_select(-3, self.output_places)


class ChannelGroups(NamedTuple):
    """Input and output channels of a layer, group by group, and the number of groups."""

    input_order: Tensor
    output_order: Tensor
    groups: int


def freeze_groups(model: nn.Module, fold: bool = True) -> nn.Module:
    """Replace every `DGConv` of a model, in place, by a grouped convolution with its current groups and the same outputs.

    The result can be trained, exported and counted like any Conv2d.

    Args:
        model: A network with DGConv layers, or one such layer.
        fold: Absorb the permutations into the neighboring layers in `GResNeXt` blocks with BatchNorm and without plugins between
            the convolutions. Such a block then has plain convolutions only, and its weights fit ``GResNeXt(groups=[...])`` with
            the learned numbers. In other places a `PermutedConv2d` replaces a layer whose groups are not adjacent.

    Returns:
        The model; for a single layer, its replacement.

    Raises:
        ValueError: The argument is not a model or has no DGConv, a gate is nan, or a layer is pruned. The model is not changed
            then.

    Example:
        >>> layer = DGConv(8, 8, 3, padding=1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., -1., 1.]))
        >>> freeze_groups(nn.Sequential(layer))
        Sequential(
          (0): PermutedConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2)
        )
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f'freeze_groups: expected a model with DGConv layers, got {type(model).__name__}; load weights into a '
                         'model first')
    if not any(isinstance(module, DGConv) for module in model.modules()):
        raise ValueError(f'freeze_groups: {type(model).__name__} has no DGConv; its groups may be frozen already')
    for name, layer in gated_layers(model).items():
        if not {'weight', 'gates'} <= set(layer._parameters):
            raise ValueError(f'freeze_groups: {name or "the layer"} is pruned or reparametrized; make its weight permanent first '
                             '(prune.remove, remove_weight_norm or remove_parametrizations)')
        if layer.gates.isnan().any():
            raise ValueError(f'freeze_groups: {name or "the layer"} has gates {layer.gates.tolist()}; nan means that training '
                             'diverged, use an earlier checkpoint')
    if fold and is_installed('mmengine', 'mmcv'):
        _fold_blocks(model)
    holder = nn.Sequential(model)  # so that replace_modules can replace a single layer too
    replace_modules(holder, lambda layer: _replacement(layer, find_groups(layer)) if isinstance(layer, DGConv) else None)
    return holder[0]


def find_groups(layer: DGConv) -> ChannelGroups:
    """Return the current groups of a layer.

    Example:
        >>> layer = DGConv(4, 4, 1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., -1.]))
        >>> find_groups(layer).input_order.tolist()
        [0, 2, 1, 3]
    """
    if layer.gates is None:
        return ChannelGroups(torch.arange(layer.in_channels), torch.arange(layer.out_channels), 1)
    closed, size = closed_bits(layer.gates.detach().cpu()), 2**len(layer.gates)
    orders = [(torch.arange(channels) // (channels // size) & closed).argsort(stable=True)
              for channels in (layer.in_channels, layer.out_channels)]
    return ChannelGroups(*orders, layer.group_number)


def _replacement(layer: DGConv, channels: ChannelGroups) -> nn.Conv2d:
    """Build the equivalent grouped convolution."""
    kind = nn.Conv2d
    if not (_is_sorted(channels.input_order) and _is_sorted(channels.output_order)):
        kind = partial(PermutedConv2d, channels.input_order, channels.output_order)
    conv = make_conv(_weights_within_groups(layer.weight.detach(), channels), layer.bias, layer, channels.groups, kind)
    for name, parameter in conv.named_parameters():
        parameter.requires_grad_(getattr(layer, name).requires_grad)
    return conv.train(layer.training).to(layer.weight.device)


def _weights_within_groups(weight: Tensor, channels: ChannelGroups) -> Tensor:
    """Reduce a weight (C_out, C_in, k, k) to (C_out, C_in / G, k, k); rows keep their order."""
    input_order, output_order = (order.to(weight.device) for order in channels[:2])
    blocks = weight[output_order][:, input_order].unflatten(1, (channels.groups, -1)).unflatten(0, (channels.groups, -1))
    return torch.cat([blocks[group, :, group] for group in range(channels.groups)])[output_order.argsort()]


def _is_sorted(order: Tensor) -> bool:
    return torch.equal(order, torch.arange(len(order)))


def _fold_blocks(model: nn.Module) -> None:
    """Sort the channels inside the blocks of GResNeXt by group, so that groups are adjacent."""
    from mmtied.related.groupable.backbones import GroupableBottleneck

    for block in model.modules():
        if isinstance(block, GroupableBottleneck) and isinstance(block.grouped.conv, DGConv) and _can_sort(block):
            layer, channels = block.grouped.conv, find_groups(block.grouped.conv)
            Space(block.entry.conv, [block.entry.norm], [layer]).reorder(channels.input_order)
            Space(layer, [block.grouped.norm], [block.exit.conv]).reorder(channels.output_order)
            adjacent = ChannelGroups(*(torch.arange(len(order)) for order in channels[:2]), channels.groups)
            block.grouped.conv = _replacement(layer, adjacent)


def _can_sort(block: nn.Module) -> bool:
    plain = all(type(part.conv) is nn.Conv2d and part.conv.groups == 1 for part in (block.entry, block.exit))
    by_channel = all(isinstance(part.norm, _BatchNorm) for part in (block.entry, block.grouped))
    return plain and by_channel and not (block.plugins.names['after_conv1'] or block.plugins.names['after_conv2'])
