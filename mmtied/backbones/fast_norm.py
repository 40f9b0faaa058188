"""BatchNorm on the statistics of the batch, with what follows it, by the compiled library: for training in channels_last.

In channels_last PyTorch takes the statistics in two passes and ReLU in one of its own, forward and backward. Where the kernels do
not apply, everyone calls the modules as ever.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mmtied.layers.choice import is_automatic, is_exporting
from mmtied.native import library
from mmtied.native.batch_norm import Channels, Then, apply, gradients, measure, pixel_stride

from .watched import is_watched


class Normalised(NamedTuple):
    """A normalised map and the statistics that it was normalised with."""

    y: Tensor
    mean: Tensor
    inverse_std: Tensor


def can_normalise(norm: nn.Module) -> bool:
    """Whether a module is a BatchNorm2d that the kernels can stand in for here and now, with the statistics of the batch."""
    if _runs_specially() or type(norm) is not nn.BatchNorm2d or 'forward' in vars(norm) or is_watched(norm):
        return False
    if not norm.training and (norm.running_mean is not None or norm.running_var is not None):
        return False
    running = [] if norm.running_mean is norm.running_var is None else [norm.running_mean, norm.running_var]
    return all(_is_plain(values) and values.shape == (norm.num_features, ) and values.is_contiguous()
               for values in (norm.weight, norm.bias, *running))


def can_follow(activate: nn.Module) -> bool:
    """Whether a module is a ReLU in place that nobody watches."""
    return type(activate) is nn.ReLU and activate.inplace and 'forward' not in vars(activate) and not is_watched(activate)


def is_fit(norm: nn.BatchNorm2d, *maps: Tensor) -> bool:
    """Whether the kernels can read these maps of one shape, and the shape is one that the normalisation takes."""
    return all(_is_plain(x) and x.dim() == 4 and x.size(1) == norm.num_features and x.numel() > x.size(1)
               and x.shape == maps[0].shape and not x.is_neg() and pixel_stride(x) is not None for x in maps)


def normalise_batch(norm: nn.BatchNorm2d, z: Tensor, then: Then, identity: Tensor | None = None) -> Normalised:
    """Normalise a map with its own statistics, move the running ones, and do what follows; differentiable as often as one likes.

    Args:
        norm: One that `can_normalise`.
        z: Shape (N, C, H, W); it `is_fit`, and `identity` with it.
        then: What follows.
        identity: What is added with ADD_RELU.
    """
    mean, inverse_std = measure(z, norm.eps, *_count_batch(norm))
    return Normalised(_Normalise.apply(z, norm.weight, norm.bias, identity, mean, inverse_std, norm.eps, then), mean, inverse_std)


class _Normalise(torch.autograd.Function):
    """y from z by statistics that depend on z, as the gradients know."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, weight: Tensor, bias: Tensor, identity: Tensor | None, mean: Tensor,
                inverse_std: Tensor, eps: float, then: Then) -> Tensor:
        ctx.eps, ctx.then = eps, then
        y = apply(z, Channels(weight, bias, mean, inverse_std), then, identity)
        ctx.save_for_backward(z, weight, bias, mean, inverse_std, *([y] if then == Then.ADD_RELU else []))
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, *channels = ctx.saved_tensors
        y = channels.pop() if ctx.then == Then.ADD_RELU else None
        of_z, _, _, of_identity = needed = ctx.needs_input_grad[:4]
        channels = Channels(*channels)
        if torch.is_grad_enabled() or _is_transformed() or not _is_plain(gradient):
            found = _differentiable_gradients(gradient, z, channels, ctx.then, y, ctx.eps)
        else:
            found = gradients(gradient, z, channels, ctx.then, y, of_z, of_identity)
        return *(tensor if needs else None for tensor, needs in zip(found, needed, strict=True)), None, None, None, None


def _differentiable_gradients(gradient: Tensor, z: Tensor, channels: Channels, then: Then, y: Tensor | None,
                              eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `gradients`, by PyTorch's operators, which can be differentiated again."""
    if then != Then.NOTHING:
        with torch.no_grad():
            stopped = (apply(z, channels, then) if y is None else y.detach()) <= 0
        gradient = gradient.masked_fill(stopped, 0)
    return *torch.ops.aten.native_batch_norm_backward(gradient, z, channels.weight, None, None, channels.mean,
                                                      channels.inverse_std, True, eps, [True] * 3), gradient


def _count_batch(norm: nn.BatchNorm2d) -> tuple[tuple[Tensor, Tensor] | None, float]:
    """The running statistics that a batch moves, and how far, as `_BatchNorm.forward` has it; counts the batch."""
    if not norm.training or not norm.track_running_stats:
        return None, 0.
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / float(norm.num_batches_tracked)
    running = None if norm.running_mean is None else (norm.running_mean, norm.running_var)
    return running, momentum or 0.


def _is_plain(x: object) -> bool:
    """Whether this is an ordinary float32 tensor in the CPU's memory, and no wrapper as vmap's."""
    return (type(x) in (Tensor, nn.Parameter) and torch._C._has_storage(x) and x.dtype == torch.float32
            and x.layout == torch.strided and x.device.type == 'cpu')


def _runs_specially() -> bool:
    """Whether there are no kernels, calls are recorded, transformed or watched, or someone wants the plain network."""
    return bool(torch.compiler.is_compiling() or is_exporting() or not is_automatic() or library() is None or _is_transformed()
                or torch.is_autocast_enabled('cpu') or nn.modules.module._has_any_global_hook())


def _is_transformed() -> bool:
    """Whether PyTorch hands operators to others: function transforms, forward-mode gradients, dispatch modes."""
    return (torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
            or torch._C._len_torch_dispatch_stack() > 0)
