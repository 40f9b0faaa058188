"""A layer as something to time: its forward pass, or forward and backward, on one input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from interleaved import Times, time_in_turns
from torch import nn

#: What is timed: the forward pass without gradients, or with the gradients of input and weights after it.
PASSES = ('forward', 'forward + backward')


@dataclass(frozen=True)
class Setting:
    """How layers run.

    Attributes:
        device: Where.
        dtype: Type of input and weights.
        memory_format: Of input and weights.
        repeats: Turns.
        least_seconds: What one measurement takes at least.
    """

    device: str
    dtype: torch.dtype
    memory_format: torch.memory_format
    repeats: int
    least_seconds: float


def time_layers(layers: Mapping[str, nn.Module], shape: tuple[int, ...], which: str, setting: Setting) -> Times:
    """Time layers in turns on one random input of a shape (N, C, H, W); `which` is one of `PASSES`."""
    x = torch.randn(shape, device=setting.device, dtype=setting.dtype).to(memory_format=setting.memory_format)
    x.requires_grad_(which != PASSES[0])
    calls = {name: _call(layer.to(setting.device, setting.dtype, memory_format=setting.memory_format), x)
             for name, layer in layers.items()}
    return time_in_turns(calls, setting.repeats, device=setting.device, least_seconds=setting.least_seconds)


def _call(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    if not x.requires_grad:
        return lambda: _forward(layer, x)
    inputs = (x, *layer.parameters())
    gradient = torch.empty_like(_forward(layer, x)).normal_()
    return lambda: torch.autograd.grad(layer(x), inputs, gradient)


@torch.no_grad()
def _forward(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x)
