"""PyTorch functions newer than 2.1, the oldest release that the package supports.

Everything else calls these instead, so that a newer API is looked up in one place.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn


def is_compiling() -> bool:
    """Return whether `torch.compile` or `torch.export` is recording the call."""
    check = getattr(torch.compiler, 'is_compiling', None) or torch._dynamo.is_compiling
    return check()


def is_exporting() -> bool:
    """Return whether `torch.jit.trace` (and so the ONNX exporter) or `torch.export` is recording the call."""
    if torch.jit.is_tracing():
        return True
    check = getattr(torch.compiler, 'is_exporting', None)
    return check is not None and check()


def is_autocast_enabled(device_type: str) -> bool:
    """Return whether autocast is on for a type of device ('cpu', 'cuda')."""
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:  # before 2.4 each device has a function of its own
        return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()


def set_submodule(module: nn.Module, target: str, submodule: nn.Module) -> None:
    """Replace the submodule called `target` ('layer1.0.conv').

    Raises:
        AttributeError: There is no submodule of that name.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.ReLU()))
        >>> set_submodule(net, '0.0', nn.Identity())
        >>> net[0][0]
        Identity()
    """
    parent_name, _, name = target.rpartition('.')
    module.get_submodule(target)
    setattr(module.get_submodule(parent_name), name, submodule)


def selective_checkpoint_contexts(keeps: Callable[[object], bool]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of `torch.utils.checkpoint` that keep the results of some operators and recompute the others.

    Args:
        keeps: Returns whether to keep the results of an operator (`torch.ops.aten.convolution.default`, ...).

    Raises:
        RuntimeError: PyTorch is older than 2.4.
    """
    from torch.utils import checkpoint
    if not hasattr(checkpoint, 'create_selective_checkpoint_contexts'):
        raise RuntimeError(f"with_cp='norm' needs PyTorch 2.4 or newer, found {torch.__version__}; use with_cp=True")
    policy = checkpoint.CheckpointPolicy

    def choose(context: object, operator: object, *args: object, **kwargs: object) -> checkpoint.CheckpointPolicy:
        return policy.MUST_SAVE if keeps(operator) else policy.PREFER_RECOMPUTE

    return checkpoint.create_selective_checkpoint_contexts(choose)
