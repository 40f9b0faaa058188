"""Modules that someone has hooked into."""

from torch import nn


def is_watched(module: nn.Module) -> bool:
    """Whether someone has hooked into the module, as counters and visualisers do: then its call must happen."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)
