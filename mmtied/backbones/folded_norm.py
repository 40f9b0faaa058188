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
from mmtied.layers.batch_norm import uses_running_statistics
from mmtied.layers.choice import is_automatic, is_exporting

from .recomputed import normalise
from .watched import is_watched


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Whether blocks may be rewritten for speed: on the CPU, where it was measured, and not in an exported or compiled graph."""
    return x.device.type == 'cpu' and is_automatic() and not torch.compiler.is_compiling() and not is_exporting()


def can_fold(conv: nn.Module, norm: nn.Module | None) -> bool:
    """Whether the pair is a plain or tied convolution and a BatchNorm on running statistics, and no hook watches either.

    A tied convolution is not tied any more when it is folded, which costs more in a backward pass than the folding saves; and
    where someone has chosen its way, that way is taken.
    """
    if not uses_running_statistics(norm):
        return False
    if isinstance(conv, (TBC, TGC)) and (torch.is_grad_enabled() or conv.way != 'auto'):
        return False
    return (type(conv) in (nn.Conv2d, TBC, TGC) and conv.padding_mode == 'zeros' and not is_watched(conv)
            and not is_watched(norm))


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What the normalisation multiplies each channel with, and then adds."""
    scale = torch.rsqrt(_at_least_float32(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def scale_filters(weight: Tensor, scale: Tensor) -> Tensor:
    """Filters (C_out, C_in, k, k) times a factor for each output channel, in their own dtype."""
    return weight * scale.to(weight.dtype).view(-1, 1, 1, 1)


def convolve_scaled(x: Tensor, conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> Tensor:
    """The convolution, multiplied by `scale` and with `shift` added, for each output channel, as one convolution."""
    tied = isinstance(conv, (TBC, TGC))
    weight, bias = (conv.expanded_weight(), conv.expanded_bias()) if tied else (conv.weight, conv.bias)
    weight = scale_filters(weight, scale)
    shift = shift if bias is None else shift + bias * scale
    groups = conv.groups * conv.num_blocks if tied else conv.groups
    return F.conv2d(x, weight, shift.to(weight.dtype), conv.stride, conv.padding, conv.dilation, groups)


class ConvNorm(ConvModule):
    """A ConvModule (convolution, normalisation, activation) that folds BatchNorm into the convolution where it can.

    Where it cannot, and training goes on within `recomputing`, its output is made anew in the backward pass.

    Arguments, parameters and outputs are ConvModule's.
    """

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Convolve, normalise and activate."""
        usual = norm and self._is_usual()
        activation = self.activate if activate and self.with_activation else None
        if usual and runs_eagerly_on_cpu(x) and can_fold(self.conv, self.norm):
            x = convolve_scaled(x, self.conv, *scale_and_shift(self.norm))
            return x if activation is None else activation(x)
        if usual and self.with_norm and self.efficient_conv_bn_eval_forward is None:
            return normalise(self.norm, activation, self.conv(x))
        return super().forward(x, activate, norm)

    def ends_with_norm(self) -> bool:
        """Whether the layer is its convolution and then its normalisation, and nothing else, in a subclass neither."""
        own = type(self).forward is ConvNorm.forward and 'forward' not in vars(self)
        return (own and self._is_usual() and self.with_norm and not self.with_activation
                and self.efficient_conv_bn_eval_forward is None)

    def _is_usual(self) -> bool:
        return self.order == ('conv', 'norm', 'act') and not self.with_explicit_padding


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
