"""Copy a model, put other modules in the places of some of its own, and make convolutions of given weights."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn


def make_conv(weight: Tensor, bias: Tensor | None, like: nn.Module, groups: int = 1,
              kind: Callable[..., nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """Return a Conv2d with copies of weights, and the stride, padding and dilation of another convolution."""
    conv = kind(in_channels=weight.size(1) * groups, out_channels=weight.size(0), kernel_size=tuple(weight.shape[2:]),
                stride=like.stride, padding=like.padding, dilation=like.dilation, groups=groups, bias=bias is not None,
                padding_mode=getattr(like, 'padding_mode', 'zeros'), device='meta')
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def copy_model(model: nn.Module) -> nn.Module:
    """Copy a model, also one whose weights are computed from others (pruning, weight norm), which deepcopy refuses."""
    computed = [value for module in model.modules() for value in vars(module).values()
                if isinstance(value, torch.Tensor) and not value.is_leaf]
    return deepcopy(model, {id(value): value.detach().clone() for value in computed})


def replace_modules(parent: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace each module below a parent, the outermost first, unless `make` returns None; shared modules stay shared.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
        >>> replace_modules(net, {net[0][0]: nn.Identity()}.get)
        >>> net[0][0], net[1]
        (Identity(), ReLU())
    """
    made: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> None:
        for name, child in module._modules.items():
            if child is None:
                continue
            if child not in made:
                new = make(child)
                made[child] = child if new is None else new
                if made[child] is child:
                    visit(child)
            if made[child] is not child:
                module._modules[name] = made[child]

    visit(parent)


def is_channels_last(parameter: nn.Parameter) -> bool:
    """Return whether a weight of four dimensions is channels_last and not contiguous."""
    return (parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
            and not parameter.is_contiguous())
