"""Convert dense or grouped convolutions to tied ones with the nearest tied weights.

A trained dense network loses accuracy until it is fine-tuned or distilled, because most of a dense layer's weights connect
different blocks and are dropped. The result is an initialization, better than random weights if the error is small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from mmtied.layers import TBC, TGC
from mmtied.layers.blocks import check_positive
from mmtied.tables import text_table

from .modules import copy_model, is_altered, is_channels_last, replace_modules
from .permute import is_plain_conv, permute_alike


@dataclass(frozen=True)
class TiedLayer:
    """Change of one layer by `tie`.

    Attributes:
        name: Name of the layer in the model.
        num_blocks: B; the layer takes B times fewer multiply-adds.
        weights: Number of weights before, including the bias.
        tied_weights: Number of weights after.
        relative_error: Norm of the change of the equivalent dense weights, relative to the norm of the weights. For white noise
            as input, it is the relative root mean square error of the output, except at the image's border.
        error_in_order: The same without permuting channels; None without ``permute``.
    """

    name: str
    num_blocks: int
    weights: int
    tied_weights: int
    relative_error: float
    error_in_order: float | None = None


@torch.no_grad()
def tie(model: nn.Module, num_blocks: int = 2, layers: str | Sequence[str] = '*',
        error_budget: float | None = None, permute: bool = False) -> tuple[nn.Module, list[TiedLayer]]:
    """Return a copy of a model with tied convolutions, each with the least-squares nearest weights, and the change of each layer.

    A convolution becomes a `TBC`, a grouped one a `TGC`, if num_blocks divides the channels of its groups. Others stay, such as
    depthwise ones and the first one, which sees an image. Only torch.nn.Conv2d and mmcv's Conv2d themselves are tied, without
    hooks or computed weights (pruning, weight norm). A layer with several names stays one layer.

    Args:
        model: Any module. It is not changed.
        num_blocks: B.
        layers: Name or names of the layers to tie, with wildcards as in file names: ``'backbone.layer4.*'``.
        error_budget: Tie the layers that save the most weights first, while the root mean square of the relative errors of all
            candidates (0 for untied ones) stays within this.
        permute: First reorder channels so that blocks are more alike, wherever only convolutions, BatchNorm and activations touch
            them, as inside residual branches. This alone changes no output.

    Raises:
        ValueError: num_blocks is below 1, the budget is negative, or a pattern matches no layer that can be tied.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False))
        >>> tied, changes = tie(model, num_blocks=2)
        >>> tied[1].weight.shape, changes[0].weights, changes[0].tied_weights
        (torch.Size([4, 4, 3, 3]), 576, 144)
    """
    check_positive('tie', num_blocks=num_blocks)
    if error_budget is not None and not error_budget >= 0:
        raise ValueError(f'tie: error_budget={error_budget}, expected 0 or more')
    model = copy_model(model)
    fitting = {name: module for name, module in model.named_modules() if _can_be_tied(module, num_blocks)}
    patterns = [layers] if isinstance(layers, str) else layers
    unused = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in fitting)]
    if unused:
        if not fitting:
            raise ValueError(f'tie: num_blocks={num_blocks} fits the channels of no layer of this model')
        raise ValueError(f'tie: {unused[0]!r} matches no layer that num_blocks={num_blocks} can tie; use one of '
                         f'{", ".join(list(fitting)[:5])}')
    chosen = {name: module for name, module in fitting.items() if any(fnmatch(name, pattern) for pattern in patterns)}
    made, changes = _tie_all(chosen, num_blocks)
    if permute:
        in_order = changes
        permute_alike(model, num_blocks, chosen.values())
        made, changes = _tie_all(chosen, num_blocks)
        changes = [replace(change, error_in_order=before.relative_error)
                   for change, before in zip(changes, in_order, strict=True)]
    if error_budget is not None:
        changes = _within_budget(changes, error_budget)
    holder = nn.Sequential(model)  # so that replace_modules can replace the model itself too
    replace_modules(holder, {chosen[change.name]: made[change.name] for change in changes}.get)
    return holder[0], changes


def format_changes(changes: Sequence[TiedLayer]) -> str:
    """Return a table of the tied layers under a line of totals.

    Example:
        >>> print(format_changes([TiedLayer('conv', 2, 576, 144, .5)]))
        1 layers tied: 576 weights become 144, root mean square error 0.500
        layer  blocks  weights  tied weights  relative error
        -----  ------  -------  ------------  --------------
        conv        2      576           144           0.500
    """
    permuted = any(change.error_in_order is not None for change in changes)
    rows = [[change.name, change.num_blocks, change.weights, change.tied_weights, f'{change.relative_error:.3f}',
             *([f'{change.error_in_order:.3f}'] if permuted else [])] for change in changes]
    before, after = sum(change.weights for change in changes), sum(change.tied_weights for change in changes)
    error = (sum(change.relative_error**2 for change in changes) / max(1, len(changes)))**.5
    return text_table(f'{len(changes)} layers tied: {before} weights become {after}, root mean square error {error:.3f}',
                      ['layer', 'blocks', 'weights', 'tied weights', 'relative error', *['unpermuted'] * permuted], rows)


def _can_be_tied(module: nn.Module, num_blocks: int) -> bool:
    return is_plain_conv(module) and not is_altered(module) and not any(
        channels % (num_blocks * module.groups) for channels in (module.in_channels, module.out_channels))


def _tie_all(layers: dict[str, nn.Conv2d], num_blocks: int) -> tuple[dict[str, TBC | TGC], list[TiedLayer]]:
    made = {name: _tied(layer, num_blocks) for name, layer in layers.items()}
    return made, [_change(name, layers[name], tied) for name, tied in made.items()]


def _tied(conv: nn.Conv2d, num_blocks: int) -> TBC | TGC:
    """Return a tied layer with the nearest weights to a convolution's."""
    settings = {'stride': conv.stride, 'padding': conv.padding, 'dilation': conv.dilation, 'bias': conv.bias is not None,
                'num_blocks': num_blocks, 'padding_mode': conv.padding_mode, 'device': conv.weight.device,
                'dtype': conv.weight.dtype}
    kind, groups = (TBC, {}) if conv.groups == 1 else (TGC, {'groups': conv.groups})
    tied = kind(conv.in_channels, conv.out_channels, conv.kernel_size, **settings, **groups)
    blocks = _split(conv.weight, conv.groups, num_blocks)
    diagonal = blocks.diagonal(dim1=1, dim2=3)  # (G, C_out / GB, C_in / GB, k, k, B)
    tied.weight.copy_(diagonal.mean(-1).flatten(0, 1))
    if conv.bias is not None:
        tied.bias.copy_(conv.bias.view(conv.groups, num_blocks, -1).mean(1).flatten())
    if is_channels_last(conv.weight):
        tied.to(memory_format=torch.channels_last)
    tied.train(conv.training)
    for name, parameter in tied.named_parameters():
        parameter.requires_grad_(getattr(conv, name).requires_grad)
    return tied


def _split(weight: Tensor, groups: int, num_blocks: int) -> Tensor:
    """Split a weight (C_out, C_in / G, k, k) into blocks of output and input channels: (G, B, C_out / GB, B, C_in / GB, k, k)."""
    out_channels, in_channels, *kernel = weight.shape
    return weight.view(groups, num_blocks, out_channels // groups // num_blocks, num_blocks, in_channels // num_blocks, *kernel)


def _change(name: str, conv: nn.Conv2d, tied: TBC | TGC) -> TiedLayer:
    change = _split(conv.weight, conv.groups, tied.num_blocks).clone()
    expanded = tied.expanded_weight().view(conv.groups, tied.num_blocks, -1, *change.shape[4:])
    for block in range(tied.num_blocks):
        change[:, block, :, block] -= expanded[:, block]
    squares = [(change.double().square().sum(), conv.weight.double().square().sum())]
    if conv.bias is not None:
        squares.append(((conv.bias - tied.expanded_bias()).double().square().sum(),
                        conv.bias.double().square().sum()))
    moved, norm = (float(sum(parts)) for parts in zip(*squares, strict=True))
    counts = [sum(parameter.numel() for parameter in layer.parameters()) for layer in (conv, tied)]
    return TiedLayer(name, tied.num_blocks, *counts, (moved / norm)**.5 if norm else 0.)


def _within_budget(changes: Sequence[TiedLayer], budget: float) -> list[TiedLayer]:
    """Greedily select the changes that save the most weights while the root mean square error stays within the budget."""
    kept, total = set(), 0.
    for change in sorted(changes, key=lambda change: change.tied_weights - change.weights):
        if ((total + change.relative_error**2) / len(changes))**.5 <= budget:
            kept.add(change.name)
            total += change.relative_error**2
    return [change for change in changes if change.name in kept]
