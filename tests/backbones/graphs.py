"""Modules as the graphs that PyTorch's tools make of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def _trace(model: nn.Module, x: Tensor) -> Callable:
    return torch.jit.trace(model, x, check_trace=False)


def _export(model: nn.Module, x: Tensor) -> Callable:
    return torch.export.export(model, (x, )).module()


def _compile(model: nn.Module, x: Tensor) -> Callable:
    return torch.compile(model, backend='aot_eager', fullgraph=True)


#: What makes a graph of a module and an example of its input, by name.
GRAPHS = {'trace': _trace, 'export': _export, 'compile': _compile}
