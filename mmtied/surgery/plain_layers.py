"""Convert the layers of this package to torch.nn layers with the same outputs, for inference.

A tied convolution becomes a grouped one, because folding a normalization scales each output channel differently, after which the
blocks share no weights. Sharing stays if it is cheaper: in a `TFC` (one small matrix product over a view of its input), and for
filters combined from a basis if basis and coefficients need fewer multiply-adds than the combined filters.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmtied.layers import IGC, TBC, TFC, TGC, SharedBasisConv, SharedConv2d, SumFusion
from mmtied.layers.tied_conv import _TiedConv2d
from mmtied.related.interleaved.layers import CHEAP_ZEROS, Secondary

from .fold import fold, is_foldable_norm
from .freeze_groups import PermutedConv2d
from .modules import is_altered, make_conv


class Select(nn.Module):
    """Permute the channels. `deploy` traces it to a bare index_select."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer('order', order)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) in the new order."""
        return x.index_select(-3, self.order)


class SideBySide(nn.Module):
    """Concatenate the outputs of two convolutions of the same input."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) to (N, C_first + C_second, H', W')."""
        return torch.cat([self.first(x), self.second(x)], -3)


def plain_layer(layer: nn.Module) -> nn.Module | None:
    """Return a torch.nn equivalent of a layer of this package, or None for other modules and `is_altered` layers.

    Example:
        >>> plain_layer(TBC(64, 64, 3, padding=1, num_blocks=2))
        Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2)
    """
    make = _PLAIN.get(type(layer))
    parts = [*layer.modules(), *([layer.filters] if isinstance(layer, (SharedConv2d, SharedBasisConv)) else [])]
    return None if make is None or any(map(is_altered, parts)) else make(layer)


def _plain_pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    return make_conv(weight, bias, nn.Conv2d(1, 1, 1, device='meta'))


def _tied_conv(layer: _TiedConv2d) -> nn.Conv2d:
    return make_conv(layer.expanded_weight(), layer.expanded_bias(), layer, layer.groups * layer.num_blocks)


def _tied_linear(layer: TFC) -> nn.Module:
    linear = nn.Linear(*reversed(layer.weight.shape), layer.bias is not None, device='meta')
    for name, value in layer.named_parameters():
        setattr(linear, name, nn.Parameter(value.detach().clone(), requires_grad=False))
    if layer.num_blocks == 1:
        return linear
    return nn.Sequential(nn.Unflatten(-1, (layer.num_blocks, linear.in_features)), linear, nn.Flatten(-2))


def _sum_fusion(layer: SumFusion) -> nn.Conv2d:
    return make_conv(layer.weight.unflatten(0, (layer.num_branches, -1)).sum(0), layer.bias, layer)


def _shared_conv(layer: SharedConv2d) -> nn.Module:
    shared = make_conv(layer.filters.weight, None, layer, layer.groups)
    if layer.unique is None:
        return shared
    if layer.groups == layer.unique.groups == 1:
        return make_conv(torch.cat([layer.filters.weight, layer.unique.weight]), None, layer)
    return SideBySide(shared, make_conv(layer.unique.weight, None, layer, layer.unique.groups))


def _shared_basis(layer: SharedBasisConv) -> nn.Module:
    basis, coefficients = make_conv(layer.basis_weight(), None, layer), layer.coefficients
    steps = [basis]
    if layer.norm is not None:
        if not is_foldable_norm(layer.norm):
            return nn.Sequential(basis, layer.norm, coefficients)
        steps = [fold(basis, layer.norm)]
    mixing = coefficients.weight.flatten(1)
    if steps[0].weight.numel() + mixing.numel() < mixing.size(0) * basis.weight[0].numel():
        return nn.Sequential(*steps, _plain_pointwise(coefficients.weight, coefficients.bias))
    combined, bias = torch.einsum('tr,rskl->tskl', mixing, steps[0].weight), coefficients.bias
    if steps[0].bias is not None:
        bias = mixing @ steps[0].bias + (0 if bias is None else bias)
    return make_conv(combined, bias, layer)


def _interleaved(layer: IGC) -> nn.Module:
    num_primary, num_secondary = layer.partitions
    first = [make_conv(layer.primary.weight, None, layer.primary, layer.primary.groups)]
    if not isinstance(layer.activate, nn.Identity):
        first.append(nn.ReLU())
    secondary = layer.secondary
    if not isinstance(secondary, Secondary):
        return nn.Sequential(*first, make_conv(secondary.weight, secondary.bias, secondary))
    few_zeros = num_primary == 1 or num_primary * (num_secondary - 1) <= CHEAP_ZEROS  # as in Secondary.forward
    if few_zeros and secondary.kernel_size == (1, 1):
        return nn.Sequential(*first, _plain_pointwise(secondary.permuted_weight(), layer.composed_bias()))
    there = torch.arange(layer.out_channels, device=layer.primary.weight.device).view(num_primary, num_secondary).T.flatten()
    grouped = make_conv(secondary.weight, secondary.bias, secondary, num_secondary)
    return nn.Sequential(*first, Select(there), grouped, Select(there.argsort()))


def _permuted(layer: PermutedConv2d) -> nn.Module:
    order = layer.output_order  # weight rows are in the order of the outputs, not by group
    weight, bias = layer.weight[order], None if layer.bias is None else layer.bias[order]
    return nn.Sequential(Select(layer.input_order), make_conv(weight, bias, layer, layer.groups), Select(layer.output_places))


_PLAIN: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {
    TBC: _tied_conv,
    TGC: _tied_conv,
    TFC: _tied_linear,
    SumFusion: _sum_fusion,
    SharedConv2d: _shared_conv,
    SharedBasisConv: _shared_basis,
    IGC: _interleaved,
    PermutedConv2d: _permuted,
}
