"""Tied block convolution: one thin filter shared by B equal blocks of channels.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021,
https://arxiv.org/abs/2009.12021. TBC is Eq. 3, TGC is Eq. 4. Several algorithms compute the same output; see `algorithms`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments

from .algorithms import ALGORITHMS, Geometry, check_algorithm, choose_algorithm, repeat_blocks
from .blocks import BlockMetadata, check_blocks, check_geometry, check_input, check_positive


class _TiedConv2d(BlockMetadata, nn.Conv2d):
    """Base class of TBC and TGC: a Conv2d that holds the thin weight and reports the full channel counts.

    The parent is built with the thin sizes, so PyTorch's default initialization, and any other that reads the weight's shape
    (Kaiming, Xavier), sees the tied fan-in: each output value sums over ``in_channels / (num_blocks * groups) * k * k`` inputs.
    """

    #: Algorithm of the forward pass; a class attribute too, for layers pickled by older versions.
    algorithm: str = 'auto'

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, num_blocks,
                 padding_mode, indivisible, algorithm, way, device, dtype) -> None:
        name = type(self).__name__
        if indivisible not in ('raise', 'untie'):
            raise ValueError(f"{name}: indivisible={indivisible!r}, expected 'raise' or 'untie'")
        if way is not None:
            check_algorithm(name, way)
            raise TypeError(f'{name}: way={way!r} is now called algorithm; use algorithm={way!r}')
        check_algorithm(name, algorithm)
        check_positive(name, num_blocks=num_blocks, groups=groups)
        check_geometry(name, kernel_size, stride, padding, dilation, padding_mode)
        if indivisible == 'untie' and (in_channels % (num_blocks * groups) or out_channels % (num_blocks * groups)):
            num_blocks = 1
        untie = "; in a conv_cfg, indivisible='untie' leaves such layers untied"
        check_blocks(name, 'in_channels', in_channels, num_blocks, groups, untie)
        check_blocks(name, 'out_channels', out_channels, num_blocks, groups, untie)
        super().__init__(in_channels // num_blocks, out_channels // num_blocks, kernel_size, stride, padding, dilation, groups,
                         bias, padding_mode, device, dtype)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_blocks = num_blocks
        self.algorithm = algorithm

    @property
    def geometry(self) -> Geometry:
        """Convolution hyperparameters."""
        return Geometry(self.stride, self.padding, self.dilation, self.groups, self.num_blocks)

    def expanded_weight(self) -> Tensor:
        """Return the weight of the equivalent convolution with ``groups * num_blocks`` groups; differentiable.

        Shape: (out_channels, in_channels / (groups * num_blocks), k, k).
        """
        return repeat_blocks(self.weight, self.geometry)

    def expanded_bias(self) -> Tensor | None:
        """Return the bias of each output channel, shape (out_channels,), or None."""
        return None if self.bias is None else repeat_blocks(self.bias, self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) to (N, C_out, H', W') or (C_out, H', W')."""
        check_input(type(self).__name__, x, self.in_channels)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if self.num_blocks == 1:
            return super().forward(x)
        x, geometry = self._pad(x)
        name, _ = choose_algorithm(x, self.weight, geometry, self.algorithm)
        return ALGORITHMS[name](x, self.weight, self.bias, geometry)

    def describe_dispatch(self, x: Tensor) -> str:
        """Return the algorithm that `forward` uses for an input, and the reason; see `tied_conv_algorithm`."""
        check_input(type(self).__name__, x, self.in_channels)
        if self.num_blocks == 1:
            return 'Conv2d: one block is an ordinary convolution'
        x, geometry = self._pad(x if x.dim() == 4 else x.unsqueeze(0))
        return ': '.join(choose_algorithm(x, self.weight, geometry, self.algorithm))

    #: Former name of `describe_dispatch`.
    explain = describe_dispatch

    def _pad(self, x: Tensor) -> tuple[Tensor, Geometry]:
        """Apply any padding mode but 'zeros'; return the input and the remaining hyperparameters."""
        if self.padding_mode == 'zeros':
            return x, self.geometry
        x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return x, self.geometry._replace(padding=(0, 0))

    def __setattr__(self, name: str, value: object) -> None:
        if name in ('weight', 'bias') and isinstance(value, Tensor) and 'num_blocks' in self.__dict__:
            thin = self.out_channels // self.num_blocks
            if value.dim() and value.size(0) != thin and self.num_blocks > 1:
                raise ValueError(f'{type(self).__name__}: {name} of shape {tuple(value.shape)}, expected {thin} filters; to '
                                 'fold a normalization into tied layers use mmtied.surgery.deploy instead of fuse_conv_bn')
        super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the equivalent grouped convolution, which `torch.jit.script` compiles."""
        if self.training:
            raise ValueError(f'{type(self).__name__}: torch.jit.script unties layers, so it is for inference only (call '
                             'model.eval() first); for training use torch.compile, for export torch.jit.trace or torch.export')
        layer = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation,
                          self.groups * self.num_blocks, self.bias is not None, self.padding_mode, self.weight.device,
                          self.weight.dtype).eval()
        layer.weight = nn.Parameter(self.expanded_weight().detach(), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.expanded_bias().detach(), requires_grad=False)
        return layer

    def extra_repr(self) -> str:
        """Append num_blocks to Conv2d's description."""
        return f'{super().extra_repr()}, num_blocks={self.num_blocks}'


@suggest_arguments
class TBC(_TiedConv2d, nn.Conv2d):
    """Tied block convolution (Eq. 3): the same filters map each of B blocks of input channels to one block of output channels.

    The weight has shape (C_out / B, C_in / B, k, k): B * B times fewer parameters and B times fewer multiply-adds than a
    standard convolution. A bias is tied too and has C_out / B values. With ``num_blocks=1`` this is exactly `torch.nn.Conv2d`.

    A direct subclass of Conv2d, so initializers that select layers by class name reach it. mmcv's fuse_conv_bn, which expects a
    weight of C_out rows, raises an error; use `mmtied.surgery.deploy`.

    Args:
        in_channels, out_channels: C_in and C_out, divisible by num_blocks.
        kernel_size, stride, padding, dilation, padding_mode, device, dtype: As in Conv2d.
        bias: Add a (tied) bias.
        num_blocks: B.
        groups: 1, or any number with ``indivisible='untie'``; to tie blocks within each group use `TGC`.
        indivisible: For a layer with groups, or with channels that num_blocks does not divide, 'raise' an error or 'untie' it
            (B = 1). 'untie' suits a conv_cfg for a whole network, with its 3-channel input and perhaps depthwise convolutions.
        algorithm: 'fold', 'grouped', 'matmul', 'dense', 'conv3d', or 'auto' for the rule of `mmtied.layers.algorithms`.
        way: Former name of `algorithm`; raises a TypeError.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W), any memory format; N may be 0.
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: num_blocks does not divide the channels, groups is not 1, the algorithm is unknown, or an input has the wrong
            number of channels.

    Example:
        >>> layer = TBC(64, 128, kernel_size=3, padding=1, num_blocks=4)
        >>> layer.weight.shape
        torch.Size([32, 16, 3, 3])
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 128, 8, 8])
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1,
                 padding: int | tuple[int, int] | str = 0,
                 dilation: int | tuple[int, int] = 1,
                 bias: bool = True,
                 num_blocks: int = 2,
                 padding_mode: str = 'zeros',
                 groups: int = 1,
                 indivisible: str = 'raise',
                 algorithm: str = 'auto',
                 way: None = None,
                 device: torch.device | None = None,
                 dtype: torch.dtype | None = None) -> None:
        if groups != 1 and indivisible == 'untie':
            num_blocks = 1
        elif groups != 1:
            raise ValueError(f'TBC: groups={groups}, expected 1; to tie blocks within each group use TGC (conv_cfg type TGC), to '
                             "leave grouped convolutions as they are add indivisible='untie'")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, num_blocks,
                         padding_mode, indivisible, algorithm, way, device, dtype)


@suggest_arguments
class TGC(_TiedConv2d, nn.Conv2d):
    """Tied block group convolution (Eq. 4): G groups, each a tied block convolution of B blocks.

    The weight has shape (C_out / B, C_in / (B * G), k, k): C_out / (B * G) thin filters for each of the G groups. The channel
    order is group-major: X_11 .. X_1B, ..., X_G1 .. X_GB. A bias is tied too and has C_out / B values.
    With ``num_blocks=1`` this is exactly a grouped `torch.nn.Conv2d`, with ``groups=1`` it is `TBC`.

    Args:
        in_channels, out_channels: C_in and C_out, divisible by num_blocks * groups.
        kernel_size, stride, padding, dilation, padding_mode, device, dtype: As in Conv2d.
        groups: G.
        bias: Add a (tied) bias.
        num_blocks: B.
        algorithm, way: As in `TBC`.
        indivisible: If num_blocks * groups does not divide the channels, as in depthwise convolutions, 'raise' an error or
            'untie' the layer (B = 1).

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W), any memory format; N may be 0.
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: num_blocks * groups does not divide the channels, the algorithm is unknown, or an input has the wrong number
            of channels.

    Example:
        >>> layer = TGC(64, 64, kernel_size=3, padding=1, groups=4, num_blocks=2)
        >>> layer.weight.shape
        torch.Size([32, 8, 3, 3])
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1,
                 padding: int | tuple[int, int] | str = 0,
                 dilation: int | tuple[int, int] = 1,
                 groups: int = 1,
                 bias: bool = True,
                 num_blocks: int = 2,
                 padding_mode: str = 'zeros',
                 algorithm: str = 'auto',
                 way: None = None,
                 device: torch.device | None = None,
                 dtype: torch.dtype | None = None,
                 indivisible: str = 'raise') -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, num_blocks,
                         padding_mode, indivisible, algorithm, way, device, dtype)
