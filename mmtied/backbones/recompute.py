"""Recompute activations in the backward pass instead of keeping them: ``with_cp=True`` and ``with_cp='norm'``."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import checkpoint as checkpointing

from mmtied.torch_compat import is_compiling, selective_checkpoint_contexts

#: Operators of convolutions and linear layers, whose outputs 'norm' keeps.
_PRODUCTS = frozenset({torch.ops.aten.convolution.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default,
                       torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default})


def recompute(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor, keep_convolutions: bool) -> Tensor:
    """Return `function(x)`, and recompute it in the backward pass with the same gradients and running statistics.

    `module` contains the layers that the function calls. With `keep_convolutions` the outputs of convolutions and matrix products
    are kept, and only normalization, activation and concatenation are recomputed, which is cheap and saves a third of a network's
    activations.
    """
    if is_compiling():  # the compiler recomputes cheap operators itself and cannot trace the contexts
        return function(x) if keep_convolutions else checkpointing.checkpoint(function, x, use_reentrant=False)
    return checkpointing.checkpoint(function, x, use_reentrant=False, context_fn=partial(_contexts, module, keep_convolutions))


def _contexts(module: nn.Module, keep_convolutions: bool) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the forward pass and of the recomputation."""
    forward, cached = nullcontext(), nullcontext()
    if keep_convolutions:
        forward, cached = selective_checkpoint_contexts(_PRODUCTS.__contains__)
    return forward, _Recomputing(module, cached)


class _Recomputing:
    """Let BatchNorm update copies of its running statistics, since the originals already include this batch.

    A class instead of a generator, because a retained graph re-enters the context in each backward pass.
    """

    def __init__(self, module: nn.Module, inner: AbstractContextManager) -> None:
        self.module = module
        self.inner = inner
        self.kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [(norm, name, buffer) for norm in self.module.modules() if isinstance(norm, _BatchNorm)
                     for name, buffer in norm.named_buffers(recurse=False)]
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer.clone())
        self.inner.__enter__()

    def __exit__(self, *error: object) -> bool | None:
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer)
        self.kept = []
        return self.inner.__exit__(*error)
