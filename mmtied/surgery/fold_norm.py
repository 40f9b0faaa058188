"""BatchNorm in evaluation mode scales and shifts each channel by constants, which the layer before it can take over."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from mmtied.layers.batch_norm import uses_running_statistics

#: Layers of torch that a normalisation can be folded into; a subclass counts where it computes what its parent does. Linear is
#: none of them: its features are in the last dimension, and BatchNorm1d normalises the second, which need not be the same.
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Subclasses with a forward of their own that is linear in weight and bias: they only pad, or handle empty inputs.
_ALSO_LINEAR = ('mmcv.cnn.bricks.conv2d_adaptive_padding.Conv2dAdaptivePadding', 'mmcv.cnn.bricks.wrappers.Conv2d',
                'mmcv.cnn.bricks.wrappers.ConvTranspose2d')


class Affine(NamedTuple):
    """What a normalisation does to each channel: scale * x + shift, both of shape (C,) and in float64."""

    scale: Tensor
    shift: Tensor

    def take(self, channels: Tensor | slice) -> 'Affine':
        """The same for some channels, or for all in another order."""
        return Affine(self.scale[channels], self.shift[channels])


def is_altered(module: nn.Module) -> bool:
    """Whether a module does more or else than its class says: it has hooks, computed weights, or a forward of its own.

    Example:
        >>> is_altered(nn.Conv2d(1, 1, 1)), is_altered(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1)))
        (False, True)
    """
    return bool(module._forward_pre_hooks or module._forward_hooks or hasattr(module, 'parametrizations')
                or 'forward' in vars(module))


def is_foldable_norm(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm (SyncBatchNorm included) that has statistics of its own to normalise with.

    A subclass with a forward of its own is none: it may do more than normalise, as timm's BatchNormAct2d does.
    """
    return uses_running_statistics(module) and not is_altered(module)


def is_foldable(module: nn.Module) -> bool:
    """Whether a layer's output is linear in its weight and bias, so that it can take over a scale for each output channel.

    A convolution that standardises its weight, computes it (spectral norm), has hooks or a forward of its own is not.
    """
    kind = type(module)
    if is_altered(module) or not isinstance(module, _LINEAR) or not isinstance(module._parameters.get('weight'), nn.Parameter):
        return False
    parent = next(base for base in _LINEAR if isinstance(module, base))
    same = all(getattr(kind, name, None) is getattr(parent, name, None) for name in ('forward', '_conv_forward'))
    return same or f'{kind.__module__}.{kind.__qualname__}' in _ALSO_LINEAR


def affine_of(norm: _BatchNorm) -> Affine:
    """The scale and shift of a BatchNorm in evaluation mode.

    Example:
        >>> norm = nn.BatchNorm2d(1, eps=0).eval()
        >>> _ = norm.running_mean.fill_(3), norm.running_var.fill_(4)
        >>> [value.item() for value in affine_of(norm)]
        [0.5, -1.5]
    """
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return Affine(scale, shift if norm.bias is None else shift + norm.bias.detach().double())


def fold(layer: nn.Module, norm: _BatchNorm | Affine) -> nn.Module:
    """A copy of a layer that computes what the layer and the normalisation after it compute.

    Args:
        layer: `is_foldable`.
        norm: `is_foldable_norm`, or its scale and shift.

    Example:
        >>> conv, norm = nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8).eval()
        >>> _ = norm.running_mean.normal_()
        >>> x = torch.rand(1, 4, 5, 5)
        >>> torch.allclose(fold(conv, norm)(x), norm(conv(x)), atol=1e-6)
        True
    """
    scale, shift = norm if isinstance(norm, Affine) else affine_of(norm)
    folded = deepcopy(layer)
    weight, bias = layer.weight.detach(), layer.bias
    shape = [-1] + [1] * (weight.dim() - 1)
    if isinstance(layer, _ConvTransposeNd):  # (C_in, C_out / G, ...): its output channels lie in two dimensions
        by_group = weight.double().unflatten(0, (layer.groups, -1))
        new = (by_group * scale.view(layer.groups, 1, -1, *shape[2:])).flatten(0, 1)
    else:
        new = weight.double() * scale.view(shape)
    if bias is not None:
        shift = shift + scale * bias.detach().double()
    folded.weight = nn.Parameter(torch.empty_like(weight).copy_(new), requires_grad=False)
    folded.bias = nn.Parameter(shift.to(weight), requires_grad=False)
    return folded
