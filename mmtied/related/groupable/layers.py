"""Dynamic grouping convolution (DGConv): a convolution that learns the number of its groups and their channels.

A binary matrix U masks the dense weight, so that it connects some input channels with some output channels (Eq. 3). U is a
Kronecker product of K matrices of size 2 x 2, each all ones (open gate) or the identity (closed gate; Eq. 4, 5 and 7). Gate k,
counted from 0, controls bit K - 1 - k of the channel index: if it is closed, U connects only channels that agree in that bit. So
U connects two channels if and only if they agree in the bits of all closed gates, and no Kronecker product needs computing.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from mmtied.arguments import suggest_arguments
from mmtied.layers.blocks import check_geometry, check_input, check_positive

#: Gates start at plus or minus this value at random (Section 4).
INITIAL_GATE = 1e-8
_Size = int | tuple[int, int]


@suggest_arguments
class DGConv(nn.Conv2d):
    """A convolution that learns its groups (Eq. 3 to 7).

    2**K is the largest power of two that divides both channel counts, so there are 1 to 2**K groups. If both counts are 2**K,
    closing all gates gives a depthwise convolution. Other factors become blocks of ones in U, a Kronecker product with one more
    matrix. Without a common factor of 2 there are no gates, and the layer is an ordinary convolution.

    The weight stays dense during training, so that groups can change. `mmtied.surgery.freeze_groups` converts the layer to an
    ordinary grouped convolution.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size, stride, padding, dilation: As in Conv2d.
        groups: Must be 1, since groups are learned; mmcv passes it to every convolution.
        bias, padding_mode: As in Conv2d.
        device, dtype: Of the parameters.

    Attributes:
        gates: Real gates, shape (K,), open if >= 0 (-0 is closed); None if K is 0.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: groups is not 1, or the channels or the kernel size are not positive integers.

    Example:
        >>> conv = DGConv(8, 8, 3, padding=1, bias=False)
        >>> _ = conv.gates.data.copy_(torch.tensor([1., 1., -1.]))
        >>> conv.group_number  # channels 0, 2, 4, 6 and channels 1, 3, 5, 7
        2
        >>> conv.relationship()[0].int().tolist()
        [1, 0, 1, 0, 1, 0, 1, 0]
        >>> conv(torch.rand(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size = 1, padding: _Size | str = 0,
                 dilation: _Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        check_positive('DGConv', in_channels=in_channels, out_channels=out_channels)
        check_geometry('DGConv', kernel_size, stride, padding, dilation, padding_mode)
        if groups != 1:
            raise ValueError(f'DGConv: groups={groups}, expected 1; the layer learns its groups')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 1, bias, padding_mode, device, dtype)
        count = common_twos(in_channels, out_channels)
        self.gates = nn.Parameter(self.weight.new_empty(count)) if count else None
        self.reset_gates()

    def reset_gates(self) -> None:
        """Set every gate to 1e-8 or -1e-8 at random."""
        if self.gates is not None:
            with torch.no_grad():
                signs = torch.randint(0, 2, self.gates.shape, device=self.gates.device) * 2 - 1
                self.gates.copy_(signs * INITIAL_GATE)

    @property
    def open_gates(self) -> list[bool]:
        """Binary gates g (Eq. 6); empty for a layer without gates."""
        return [] if self.gates is None else is_open(self.gates.detach()).tolist()

    @property
    def group_number(self) -> int:
        """Current number of groups, 2 to the power of the number of closed gates."""
        return 2**self.open_gates.count(False)

    def relationship(self) -> Tensor:
        """Return U, shape (C_out, C_in), zeros and ones in the weight's dtype; gradients reach the gates (Eq. 4 to 7)."""
        if self.gates is None:
            return torch.ones_like(self.weight[:, :, 0, 0])
        learning = self.gates.requires_grad and torch.is_grad_enabled()
        connected = GroupMatrix.apply(self.gates) if learning else group_matrix(self.gates)
        size = len(connected)
        if self.in_channels == self.out_channels == size:
            return connected
        shape = (size, self.out_channels // size, size, self.in_channels // size)
        return connected[:, None, :, None].expand(shape).reshape(self.out_channels, self.in_channels)

    def masked_weight(self) -> Tensor:
        """Return the weight of the equivalent dense convolution, shape (C_out, C_in, k, k) (Eq. 3)."""
        return self.weight if self.gates is None else self.weight * self.relationship()[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        check_input('DGConv', x, self.in_channels)
        return self._conv_forward(x, self.masked_weight(), self.bias)


def gated_layers(model: nn.Module) -> dict[str, DGConv]:
    """Return the `DGConv` layers with gates by name, in the model's order.

    Example:
        >>> list(gated_layers(nn.Sequential(DGConv(3, 8, 1), DGConv(8, 16, 1))))
        ['1']
    """
    return {name: module for name, module in model.named_modules() if isinstance(module, DGConv) and module.gates is not None}


def group_numbers(model: nn.Module) -> dict[str, int]:
    """Return the current number of groups of each `DGConv` with gates, by name.

    Example:
        >>> layer = DGConv(8, 8, 1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., -1., -1.]))
        >>> group_numbers(nn.Sequential(layer))
        {'0': 4}
    """
    return {name: layer.group_number for name, layer in gated_layers(model).items()}


def grouped_multiply_adds(model: nn.Module, size: int = 224) -> int:
    """Count the multiply-adds of the 3x3 convolutions of a network's ResNeXt blocks, for one image ("GConv FLOPs", Table 3).

    A `DGConv` counts with its current groups, so a network can be counted during and after training. The paper prints the ratio
    to ResNeXt-32x4d, ``GResNeXt(depth, groups=32)``. The convolutions of a deep stem are excluded.

    A copy of the network runs on torch's meta device, so nothing is computed.

    Example:
        >>> from mmtied.backbones import GResNeXt
        >>> with torch.device('meta'):
        ...     all_64, all_32 = (grouped_multiply_adds(GResNeXt(50, groups=groups)) for groups in (64, 32))
        >>> all_64 / all_32
        0.5
    """
    shapes = deepcopy(model).to('meta')
    shapes.eval()  # mmpretrain's networks return None here
    counts = []
    for name, conv in shapes.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and not name.startswith('stem'):
            layer = model.get_submodule(name)
            weights = conv.weight.numel() // (layer.group_number if isinstance(layer, DGConv) else 1)
            conv.register_forward_hook(lambda _, __, out, weights=weights: counts.append(weights * out.shape[-2:].numel()))
    with torch.no_grad():
        shapes(torch.zeros(1, 3, size, size, device='meta'))
    return sum(counts)


class GroupMatrix(Function):
    """U of a square convolution from real gates (Eq. 4 to 7), with a straight-through gradient of the sign function.

    Eq. 7 is linear in each binary gate. Its derivative with respect to gate k is what opening the gate adds to U: the channel
    pairs that differ in its bit, and otherwise only in bits of open gates. All K derivatives need only the sums of U's gradient
    over the pairs (i, i XOR d), for each d.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor) -> Tensor:
        """Map (K,) to (2**K, 2**K)."""
        ctx.save_for_backward(gates)
        return group_matrix(gates)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """Map (2**K, 2**K) to (K,)."""
        gates, = ctx.saved_tensors
        bits = gate_bits(gates)
        channels = torch.arange(len(gradient), device=gates.device)
        by_difference = gradient.gather(1, channels[:, None] ^ channels).sum(0)
        others_closed = closed_bits(gates) & ~bits
        added = (channels[:, None] & bits).ne(0) & (channels[:, None] & others_closed).eq(0)
        return by_difference @ added.to(gradient.dtype)


def is_open(gates: Tensor) -> Tensor:
    """Return the binary gates by sign (Eq. 6): 0 is open, and -0, which -1e-8 becomes in float16, is closed."""
    return (gates > 0) | (gates.reciprocal() == torch.inf)  # not signbit, in operators of ONNX


def gate_bits(gates: Tensor) -> Tensor:
    """Return each gate's bit in the channel index, shape (K,): 2**(K - 1), ..., 2, 1."""
    return 1 << torch.arange(len(gates) - 1, -1, -1, device=gates.device)


def closed_bits(gates: Tensor) -> Tensor:
    """Return the bits of all closed gates as one integer scalar."""
    return (gate_bits(gates) * ~is_open(gates)).sum()


def group_matrix(gates: Tensor) -> Tensor:
    """Compute U (Eq. 7), shape (2**K, 2**K), without a gradient.

    Example:
        >>> group_matrix(torch.tensor([-1., 1.])).int().tolist()  # I x 1
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    labels = torch.arange(2**len(gates), device=gates.device) & closed_bits(gates)
    return (labels[:, None] == labels).to(gates.dtype)


def common_twos(first: int, second: int) -> int:
    """Count the common factors of 2.

    Example:
        >>> common_twos(96, 64), common_twos(64, 256), common_twos(3, 64)
        (5, 6, 0)
    """
    both = first | second
    return (both & -both).bit_length() - 1
