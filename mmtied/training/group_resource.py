"""The resource constraint of networks that learn their groups.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867, Eq. 8 and 9.
"""

import torch
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.rnn import pad_sequence

from mmtied.layers import DGConv
from mmtied.layers.dynamic_group_conv import gated_layers, is_open

from .loss_hook import LossHook, is_number


@HOOKS.register_module()
class GroupResourceHook(LossHook):
    """Multiplies the loss by ``(o / zeta) ** alpha`` while zeta is more than o, and leaves it alone otherwise.

    zeta is the number of pairs of channels that the `DGConv` layers connect (Eq. 8), and o the bound, ``sum(C_in * C_out) / b``
    over these layers: what they would connect with b groups each. Layers without gates are left out of both. Logged as ``zeta``,
    ``zeta_bound`` (o) and ``resource_factor``.

    It scales the whole loss, the regularisation terms of hooks before it included.

    Args:
        b: How much smaller than dense the layers become, at least 1; 32 is the complexity of ResNeXt-32x4d.
        alpha: The exponent, negative; the paper's is -0.02.

    Raises:
        ValueError: Settings out of range, or, as training begins, a model without gates to train, or one that has more than o
            connections with every gate closed.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.GroupResourceHook', b=32)]``.
    """

    log_names = ('zeta', 'zeta_bound', 'resource_factor')

    def __init__(self, b: float = 32, alpha: float = -0.02) -> None:
        if not is_number(b) or not b >= 1:
            raise ValueError(f'GroupResourceHook: b={b!r}, expected at least 1, a number that is finite; 1 is the complexity of '
                             'dense convolutions')
        if not is_number(alpha) or not alpha < 0:
            raise ValueError(f'GroupResourceHook: alpha={alpha!r}, expected less than 0, a number that is finite, for example '
                             '-0.02; to train without the constraint leave the hook out')
        self.b = b
        self.alpha = alpha

    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model without gates to train, or with a bound that it cannot meet."""
        layers = list(gated_layers(model).values())
        if not any(layer.gates.requires_grad for layer in layers):
            what = 'only gates that are frozen' if layers else 'no DGConv with gates'
            raise ValueError(f'GroupResourceHook: {type(model).__name__} has {what}; the backbone mmtied.GResNeXt has gates to '
                             "train (without its argument groups), and so has conv_cfg=dict(type='DGConv')")
        least, bound = int(_sizes(layers).sum()), resource_bound(layers, self.b)
        if least > bound:
            raise ValueError(f'GroupResourceHook: b={self.b} bounds zeta by {bound:.0f}, but {type(model).__name__} has '
                             f'{least} connections with every gate closed; b can be up to {bound * self.b / least:.1f}')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scale the loss while there are too many connections."""
        layers = list(gated_layers(model).values())
        zeta = connections(layers).sum().to(loss.device)
        bound = zeta.new_tensor(resource_bound(layers, self.b))
        factor = torch.where(zeta > bound, (bound / zeta)**self.alpha, 1.)
        return loss * factor.to(loss.dtype), {'zeta': zeta.detach(), 'zeta_bound': bound, 'resource_factor': factor.detach()}


def resource_bound(layers: list[DGConv], b: float) -> float:
    """The bound o for these layers: the sum of C_in * C_out, divided by b."""
    return sum(layer.in_channels * layer.out_channels for layer in layers) / b


def connections(layers: list[DGConv]) -> Tensor:
    """Zeta of each layer: how many pairs of channels it connects (Eq. 9), shape (L,), float64; gradients reach the gates.

    Example:
        >>> layer = DGConv(8, 8, 1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., 1., -1.]))
        >>> connections([layer]).item()  # 8 * 2 * 2 * 1
        32.0
    """
    device = layers[0].gates.device
    gates = pad_sequence([layer.gates.to(device, torch.float64) for layer in layers], batch_first=True, padding_value=-1.)
    return _Connections.apply(gates, _sizes(layers).to(device))


def _sizes(layers: list[DGConv]) -> Tensor:
    """Connections with every gate closed, shape (L,), float64."""
    return torch.tensor([layer.in_channels * layer.out_channels / 2**len(layer.gates) for layer in layers], dtype=torch.float64)


class _Connections(Function):
    """Eq. 9, ``size * prod(1 + g)``, with the sign function's gradient passed unchanged."""

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor, sizes: Tensor) -> Tensor:
        """Real gates (L, K) and sizes (L,) to (L,)."""
        factors = 1 + is_open(gates).to(gates.dtype)
        values = sizes * factors.prod(1)
        ctx.save_for_backward(factors, values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """The derivative with respect to g_k is the product without its factor."""
        factors, values = ctx.saved_tensors
        return (gradient * values)[:, None] / factors, None
