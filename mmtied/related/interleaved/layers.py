"""Interleaved group convolution (IGC), a dense convolution from two sparse ones (Eq. 1 to 7), and summation fusion."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.layers.blocks import check_geometry, check_input, check_positive, divisors

from .partitions import Partitions, leanest_partitions

_Size = int | tuple[int, int]
#: Multiply-adds with zeros per output value up to which a dense 1x1 convolution beats shuffling in channels_last; lower for
#: two-byte dtypes, which shuffle in half the time (measured with benchmarks/related_layers.py).
CHEAP_ZEROS, _CHEAP_ZEROS_OF_TWO_BYTES = 128, 64


@suggest_arguments
class IGC(nn.Module):
    """Interleaved group convolution (Eq. 5): x' = P W_s P' W_p x.

    The primary convolution is spatial and acts on L partitions of the channels, with M outputs each. The secondary one is 1x1 and
    acts on M partitions of L channels; partition m contains output m of every primary partition. So every output depends on every
    input. There is no activation in between.

    The variants of Section 4 are options: spatial filters in the secondary convolution, an activation in between, and a dense
    secondary convolution. The paper prefers the layer without them.

    The weights are those of two ordinary grouped convolutions, `primary` with L groups and `secondary` with M, in the paper's
    order: weight rows and bias of `secondary` are sorted by secondary partition.

    L and M, with C_out = L M outputs, follow from the arguments:

    - ``num_primary``: fixed L, M = C_out / L, for networks that double M, such as L24M2.
    - ``num_secondary``: fixed M, L = C_out / M, for networks that double L, such as L100M2.
    - neither: the pair that divides the channels with the fewest parameters, `leanest_partitions`; fits any layer.

    Not a subclass of Conv2d: folding a normalization into it would need both weights.

    Args:
        in_channels: C_in, divisible by L.
        out_channels: C_out.
        kernel_size, stride, padding, dilation, padding_mode: Of the primary convolution, as in Conv2d.
        groups: Must be 1; mmcv passes it to every convolution.
        bias: Add a bias to the secondary convolution.
        num_primary: L.
        num_secondary: M.
        indivisible: If L or M does not divide the channels, 'raise' an error or fall back to the 'leanest' partitions. The latter
            suits a conv_cfg for a whole network, with its 3-channel input.
        spatial: The convolution that kernel_size, stride and so on apply to, 'primary' or 'secondary'; the other one is 1x1.
        activation: Add a ReLU after the primary convolution.
        dense_secondary: Make the secondary convolution an ordinary one of all channels, without permutations.
        device, dtype: Of the parameters.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W), any memory format; N may be 0.
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: L or M does not divide the channels, their product is not C_out, groups is not 1, or an input has the wrong
            number of channels.

    Example:
        >>> layer = IGC(48, 48, kernel_size=3, padding=1, bias=False, num_primary=24)
        >>> layer.primary.weight.shape, layer.secondary.weight.shape
        (torch.Size([48, 2, 3, 3]), torch.Size([48, 24, 1, 1]))
        >>> layer(torch.rand(2, 48, 8, 8)).shape
        torch.Size([2, 48, 8, 8])
        >>> layer.composed_weight().shape
        torch.Size([48, 48, 3, 3])
    """

    transposed = False
    output_padding = (0, 0)

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: _Size,
                 stride: _Size = 1,
                 padding: _Size | str = 0,
                 dilation: _Size = 1,
                 groups: int = 1,
                 bias: bool = True,
                 num_primary: int | None = None,
                 num_secondary: int | None = None,
                 padding_mode: str = 'zeros',
                 indivisible: str = 'raise',
                 spatial: str = 'primary',
                 activation: bool = False,
                 dense_secondary: bool = False,
                 device: torch.device | None = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        check_positive('IGC', in_channels=in_channels, out_channels=out_channels)
        check_geometry('IGC', kernel_size, stride, padding, dilation, padding_mode)
        if groups != 1:
            raise ValueError(f'IGC: groups={groups}, expected 1; num_primary sets the number of groups')
        if indivisible not in ('raise', 'leanest'):
            raise ValueError(f"IGC: indivisible={indivisible!r}, expected 'raise' or 'leanest'")
        if spatial not in ('primary', 'secondary'):
            raise ValueError(f"IGC: spatial={spatial!r}, expected 'primary' or 'secondary'")
        area = kernel_size**2 if isinstance(kernel_size, int) else kernel_size[0] * kernel_size[1]
        self.partitions = _choose(in_channels, out_channels, area, num_primary, num_secondary, indivisible == 'leanest')
        options = {'device': device, 'dtype': dtype}
        filters = {'kernel_size': kernel_size, 'stride': stride, 'padding': padding, 'dilation': dilation,
                   'padding_mode': padding_mode}
        first, second = (filters, {'kernel_size': 1}) if spatial == 'primary' else ({'kernel_size': 1}, filters)
        self.primary = nn.Conv2d(in_channels, out_channels, groups=self.num_primary, bias=False, **first, **options)
        self.activate = nn.ReLU() if activation else nn.Identity()
        kind, groups_of_second = (nn.Conv2d, 1) if dense_secondary else (Secondary, self.num_secondary)
        self.secondary = kind(out_channels, out_channels, groups=groups_of_second, bias=bias, **second, **options)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.spatial = spatial
        for name in filters:
            setattr(self, name, getattr(getattr(self, spatial), name))

    @property
    def num_primary(self) -> int:
        """Number of primary partitions, L."""
        return self.partitions.num_primary

    @property
    def num_secondary(self) -> int:
        """Number of secondary partitions, M."""
        return self.partitions.num_secondary

    def composed_weight(self) -> Tensor:
        """Return the dense kernel W = P W_s P' W_p (Eq. 6), shape (C_out, C_in, k, k); differentiable.

        A Conv2d with this weight and `composed_bias` is equivalent to the layer.

        Raises:
            ValueError: The layer has an activation, so no single convolution is equivalent to it.
        """
        if not isinstance(self.activate, nn.Identity):
            raise ValueError('IGC: activation=True, so no single convolution is equivalent to the layer')
        primary = self.primary.weight.unflatten(0, self.partitions)  # (L, M, C_in / L, k, k), the secondary's (M, L, L, k, k)
        if isinstance(self.secondary, Secondary):
            secondary = self.secondary.weight.unflatten(0, (self.num_secondary, self.num_primary))
            composed = torch.einsum('molab,lmikj->omlikajb', secondary, primary).flatten(0, 1)
        else:
            composed = torch.einsum('clmab,lmikj->clikajb', self.secondary.weight.unflatten(1, self.partitions), primary)
        return composed.flatten(5, 6).flatten(3, 4).flatten(1, 2)  # one of the two kernels is 1x1

    def composed_bias(self) -> Tensor | None:
        """Return the bias in the order of the outputs, shape (C_out,), or None."""
        return self.secondary.permuted_bias() if isinstance(self.secondary, Secondary) else self.secondary.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        check_input('IGC', x, self.in_channels)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        return self.secondary(self.activate(self.primary(x)))

    def extra_repr(self) -> str:
        """Describe the partitions."""
        return f'num_primary={self.num_primary}, num_secondary={self.num_secondary}'


class Secondary(nn.Conv2d):
    """Secondary convolution of IGC with the permutations before and after it, P W_s P' (Eq. 3 and 4).

    A convolution of C to C channels with M groups, usually 1x1. Weight and bias are sorted by secondary partition, input and
    output by primary partition.

    There are three algorithms for a 1x1 convolution. In contiguous NCHW it is one batched matrix product, L x L by L x (N H W)
    for each of the M partitions. In channels_last, if a dense 1x1 convolution is cheap, the small weight is permuted and padded
    with zeros, and no channel moves. Otherwise the channels are shuffled before and after a grouped convolution, as they always
    are for larger kernels and in ONNX export, where the other algorithms would fix the batch size.

    Shape:
        - Input: (N, C, H, W), any memory format.
        - Output: (N, C, H', W').
    """

    @property
    def num_primary(self) -> int:
        """Number of primary partitions, L."""
        return self.out_channels // self.groups

    def matrices(self) -> Tensor:
        """Return W_s of each secondary partition of a 1x1 convolution, shape (M, L, L)."""
        return self.weight.view(self.groups, self.num_primary, self.num_primary)

    def permuted_weight(self) -> Tensor:
        """Return P W_s P' as a dense 1x1 convolution, shape (C, C, 1, 1)."""
        blocks = torch.diag_embed(self.matrices().permute(1, 2, 0))  # (L, L, M, M)
        return blocks.transpose(1, 2).reshape(self.out_channels, self.out_channels, 1, 1)

    def permuted_bias(self) -> Tensor | None:
        """Return the bias in the order of the outputs, shape (C,), or None."""
        return None if self.bias is None else self.bias.view(self.groups, self.num_primary).T.flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Permute, convolve, and permute back."""
        if torch.onnx.is_in_onnx_export() or self.kernel_size != (1, 1):
            return _shuffle(super().forward(_shuffle(x, self.num_primary)), self.groups)
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return self._multiply(x)
        cheap = _CHEAP_ZEROS_OF_TWO_BYTES if x.element_size() == 2 else CHEAP_ZEROS
        if self.num_primary * (self.groups - 1) <= cheap:
            return F.conv2d(x, self.permuted_weight(), self.permuted_bias())
        return _shuffle(super().forward(_shuffle(x, self.num_primary)), self.groups)

    def _multiply(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.reshape(-1, self.num_primary, self.groups, height * width).permute(2, 1, 0, 3)  # (M, L, N, H W)
        x = torch.bmm(self.matrices(), x.flatten(2)).unflatten(2, (-1, height * width))
        if self.bias is not None:
            x = x + self.bias.view(self.groups, self.num_primary, 1, 1).to(x.dtype)
        return x.permute(2, 1, 0, 3).reshape(-1, self.out_channels, height, width)


@suggest_arguments
class SumFusion(nn.Conv2d):
    """Summation fusion (Eq. 21): the sum of L convolutions of the same input; an IGC whose secondary weights are all 1 (Eq. 22).

    By linearity, the layer computes one convolution with the sum of the L filters, which takes L times fewer multiply-adds than
    separate branches. The weight has shape (L * C_out, C_in, k, k), branch after branch, so initializers see the fan-in of a
    branch.

    Args:
        in_channels: C_in.
        out_channels: C_out, of each branch and of the sum.
        kernel_size: Height and width of the filters.
        stride, padding, dilation: As in Conv2d.
        groups: Must be 1; mmcv passes it to every convolution.
        bias: Add a bias to the sum.
        num_branches: L.
        device, dtype: Of the parameters.

    Raises:
        ValueError: groups is not 1, num_branches is not positive, or an input has the wrong number of channels.

    Example:
        >>> layer = SumFusion(8, 16, kernel_size=3, padding=1, num_branches=4)
        >>> layer.weight.shape
        torch.Size([64, 8, 3, 3])
        >>> layer(torch.rand(2, 8, 6, 6)).shape
        torch.Size([2, 16, 6, 6])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size = 1, padding: _Size | str = 0,
                 dilation: _Size = 1, groups: int = 1, bias: bool = True, num_branches: int = 4,
                 device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        check_positive('SumFusion', in_channels=in_channels, out_channels=out_channels, num_branches=num_branches)
        check_geometry('SumFusion', kernel_size, stride, padding, dilation)
        if groups != 1:
            raise ValueError(f'SumFusion: groups={groups}, expected 1')
        options = {'device': device, 'dtype': dtype}
        super().__init__(in_channels, num_branches * out_channels, kernel_size, stride, padding, dilation, bias=False, **options)
        self.out_channels = out_channels
        self.num_branches = num_branches
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels, **options))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        check_input('SumFusion', x, self.in_channels)
        return self._conv_forward(x, self.weight.unflatten(0, (self.num_branches, -1)).sum(0), self.bias)

    def extra_repr(self) -> str:
        """Append num_branches to Conv2d's description."""
        return f'{super().extra_repr()}, num_branches={self.num_branches}'


def _choose(in_channels: int, out_channels: int, area: int, num_primary: int | None, num_secondary: int | None,
            lenient: bool) -> Partitions:
    """Derive L and M from the given arguments, or raise a ValueError that lists the divisors."""
    if num_primary is None and num_secondary is None:
        return leanest_partitions(in_channels, out_channels, area)
    given = {name: value for name, value in (('num_primary', num_primary), ('num_secondary', num_secondary)) if value is not None}
    check_positive('IGC', **given)
    if len(given) == 2 and num_primary * num_secondary != out_channels:
        raise ValueError(f'IGC: num_primary={num_primary} times num_secondary={num_secondary} is {num_primary * num_secondary}, '
                         f'not out_channels={out_channels}; give one of the two, and the other follows')
    name, value = next(iter(given.items()))
    number, problem = out_channels, f'out_channels={out_channels} is not divisible by {name}={value}'
    if out_channels % value == 0:
        chosen = Partitions(value, out_channels // value) if num_primary else Partitions(out_channels // value, value)
        if in_channels % chosen.num_primary == 0:
            return chosen
        number, problem = in_channels, f'in_channels={in_channels} is not divisible by {chosen.num_primary} primary partitions'
        if not num_primary:
            problem += f' (out_channels={out_channels} by num_secondary={num_secondary})'
    if lenient:
        return leanest_partitions(in_channels, out_channels, area)
    raise ValueError(f'IGC: {problem}; use one of {", ".join(map(str, divisors(number)))}. Without num_primary and num_secondary '
                     "every layer chooses partitions that fit; with indivisible='leanest' only layers like this one do, such as "
                     'the first of a network')


def _shuffle(x: Tensor, groups: int) -> Tensor:
    """Compute F.channel_shuffle in channels_last, which torch 2.1 cannot differentiate and its ONNX exporter cannot export."""
    channels, height, width = x.shape[1:]
    x = x.permute(0, 2, 3, 1).reshape(-1, height, width, groups, channels // groups).transpose(3, 4)
    return x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)  # -1 keeps the batch size of an exported graph dynamic
