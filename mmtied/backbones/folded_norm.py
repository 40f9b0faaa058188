"""A convolution and the BatchNorm after it as one convolution, while BatchNorm uses its running statistics.

BatchNorm in evaluation mode is a scale and a shift for each channel, which the filters and a bias can take over: the activations
are passed over once less, and a training step with `norm_eval=True` keeps no input of a normalisation. The folded filters are
made anew in each call, and gradients flow through them, as in You et al., "Tune-Mode ConvBN Blocks For Efficient Transfer
Learning", https://arxiv.org/abs/2305.11624; nothing is kept that a changed parameter could make stale.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.layers import TBC, TGC
from mmtied.layers.choice import is_automatic, is_exporting


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether blocks may be rewritten for speed: on the CPU, where it was measured, and not in an exported or compiled graph."""
    return x.device.type == 'cpu' and is_automatic() and not torch.compiler.is_compiling() and not is_exporting()


def can_fold(conv: nn.Module, norm: nn.Module | None) -> bool:
    """Whether the pair is a plain or tied convolution and a BatchNorm on running statistics, and no hook watches either.

    A tied convolution is not tied any more when it is folded, which costs more in a backward pass than the folding saves.
    """
    kinds = (nn.Conv2d, ) if torch.is_grad_enabled() else (nn.Conv2d, TBC, TGC)
    return (isinstance(norm, _BatchNorm) and not norm.training and norm.running_var is not None and type(conv) in kinds
            and conv.padding_mode == 'zeros' and not is_watched(conv) and not is_watched(norm))


def is_watched(module: nn.Module) -> bool:
    """Whether someone has hooked into the module, as counters and visualisers do: then its call must happen."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What the normalisation multiplies each channel with, and then adds."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def convolve_scaled(x: Tensor, conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> Tensor:
    """The convolution, multiplied by `scale` and with `shift` added, for each output channel, as one convolution."""
    tied = isinstance(conv, (TBC, TGC))
    weight, bias = (conv.expanded_weight(), conv.expanded_bias()) if tied else (conv.weight, conv.bias)
    weight = weight * scale.to(weight.dtype).view(-1, 1, 1, 1)
    shift = shift if bias is None else shift + bias * scale
    groups = conv.groups * conv.num_blocks if tied else conv.groups
    return F.conv2d(x, weight, shift.to(weight.dtype), conv.stride, conv.padding, conv.dilation, groups)


class ConvNorm(ConvModule):
    """A ConvModule (convolution, normalisation, activation) that folds BatchNorm into the convolution where it can.

    Arguments, parameters and outputs are ConvModule's.
    """

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Convolve, normalise and activate."""
        if not (norm and runs_eagerly_on_cpu(x) and can_fold(self.conv, self.norm)):
            return super().forward(x, activate, norm)
        x = convolve_scaled(x, self.conv, *scale_and_shift(self.norm))
        return self.activate(x) if activate and self.with_activation else x

    def forward_repeated(self, x: Tensor, times: int) -> Tensor:
        """The same as ``self(sum of the `times` equal parts of x's channels)``, as one 1x1 convolution with the filters repeated.

        A sum over parts of the channels is slow in channels_last, where the parts of a pixel lie side by side.
        """
        weight, bias = self.conv.weight, self.conv.bias
        folds = can_fold(self.conv, self.norm)
        if folds:
            scale, bias = scale_and_shift(self.norm)
            weight = weight * scale.to(weight.dtype).view(-1, 1, 1, 1)
        x = F.conv2d(x, weight.repeat(1, times, 1, 1), None if bias is None else bias.to(weight.dtype))
        return self.activate(x if folds or self.norm is None else self.norm(x))

    def can_repeat(self, x: Tensor) -> bool:
        """Whether `forward_repeated` may stand in for a sum and a call: in channels_last, where no hook waits for the call."""
        return (runs_eagerly_on_cpu(x) and x.stride(1) == 1 and type(self.conv) is nn.Conv2d and self.conv.groups == 1
                and not is_watched(self) and not is_watched(self.conv))
