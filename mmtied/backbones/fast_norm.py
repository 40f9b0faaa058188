"""BatchNorm on the statistics of the batch, with what follows it, by the compiled library: for training in channels_last.

In channels_last PyTorch takes the statistics in two passes and ReLU in one of its own, forward and backward. Where the kernels do
not apply, everyone calls the modules as ever.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mmtied.native import batch_norm
from mmtied.native.batch_norm import Channels, Then, pixel_stride
from mmtied.native.conditions import is_plain, is_transformed, may_stand_in

from .watched import is_watched


class Normalised(NamedTuple):
    """A normalised map and the statistics that it was normalised with."""

    y: Tensor
    mean: Tensor
    inverse_std: Tensor


def can_normalise(norm: nn.Module) -> bool:
    """Whether a module is a BatchNorm2d that the kernels can stand in for here and now, with the statistics of the batch."""
    if not may_stand_in() or type(norm) is not nn.BatchNorm2d or 'forward' in vars(norm) or is_watched(norm):
        return False
    if not norm.training and (norm.running_mean is not None or norm.running_var is not None):
        return False
    running = [] if norm.running_mean is norm.running_var is None else [norm.running_mean, norm.running_var]
    return all(is_plain(values) and values.shape == (norm.num_features, ) and values.is_contiguous()
               for values in (norm.weight, norm.bias, *running))


def can_follow(activate: nn.Module) -> bool:
    """Whether a module is a ReLU in place that nobody watches."""
    return type(activate) is nn.ReLU and activate.inplace and 'forward' not in vars(activate) and not is_watched(activate)


def is_fit(norm: nn.BatchNorm2d, *maps: Tensor) -> bool:
    """Whether the kernels can read these maps of one shape, and the shape is one that the normalisation takes."""
    return all(is_plain(x) and x.dim() == 4 and x.size(1) == norm.num_features and x.numel() > x.size(1)
               and x.shape == maps[0].shape and pixel_stride(x) is not None for x in maps)


def normalise_batch(norm: nn.BatchNorm2d, z: Tensor, then: Then, identity: Tensor | None = None) -> Normalised:
    """Normalise a map with its own statistics, move the running ones, and do what follows; differentiable as often as one likes.

    Args:
        norm: One that `can_normalise`.
        z: Shape (N, C, H, W); it `is_fit`, and `identity` with it.
        then: What follows.
        identity: What is added with ADD_RELU.
    """
    mean, inverse_std = batch_norm.measure(z, norm.eps, *_count_batch(norm))
    return Normalised(_Normalise.apply(z, norm.weight, norm.bias, identity, mean, inverse_std, norm.eps, then), mean, inverse_std)


class _Normalise(torch.autograd.Function):
    """y from z by statistics that depend on z, as the gradients know."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, weight: Tensor, bias: Tensor, identity: Tensor | None, mean: Tensor,
                inverse_std: Tensor, eps: float, then: Then) -> Tensor:
        ctx.eps, ctx.then = eps, then
        y = batch_norm.apply(z, Channels(weight, bias, mean, inverse_std), then, identity)
        ctx.save_for_backward(z, weight, bias, mean, inverse_std, *([y] if then == Then.ADD_RELU else []))
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, *channels = ctx.saved_tensors
        y = channels.pop() if ctx.then == Then.ADD_RELU else None
        of_z, _, _, of_identity = needed = ctx.needs_input_grad[:4]
        if not all(map(is_plain, [z, *channels] if y is None else [z, y, *channels])):
            raise RuntimeError('expected the float32 tensors that were saved for the backward pass of BatchNorm, but hooks on '
                               f'saved tensors gave {z.dtype} on {z.device} for its input')
        z, y = (x if x is None or pixel_stride(x) else x.contiguous(memory_format=torch.channels_last) for x in (z, y))
        channels = Channels(*(values.contiguous() for values in channels))
        if torch.is_grad_enabled() or is_transformed(gradient) or not is_plain(gradient):
            found = _differentiable_gradients(gradient, z, channels, ctx.then, y, ctx.eps)
        else:
            found = batch_norm.gradients(gradient, z, channels, ctx.then, y, of_z, of_identity)
        return *(tensor if needs else None for tensor, needs in zip(found, needed, strict=True)), None, None, None, None


def _differentiable_gradients(gradient: Tensor, z: Tensor, channels: Channels, then: Then, y: Tensor | None,
                              eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `gradients`, by PyTorch's operators, which can be differentiated again."""
    if then != Then.NOTHING:
        with torch.no_grad():
            stopped = (batch_norm.apply(z, channels, then) if y is None else y.detach()) <= 0
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
