"""Summation fusion: the sum of several convolutions of the same input, a special case of interleaved group convolution.

Zhang et al., "Interleaved Group Convolutions for Deep Neural Networks", ICCV 2017, https://arxiv.org/abs/1707.02725, Section 4.
"""

import torch
from torch import Tensor, nn

from .blocks import check_positive, check_size

_Size = int | tuple[int, int]


class SumFusion(nn.Conv2d):
    """Summation fusion (Eq. 21): L convolutions of the same input, summed; an IGC whose secondary weights are all 1 (Eq. 22).

    Convolution and sum are linear, so one convolution with the sum of the L filters is what is computed: L times fewer
    multiply-adds than the branches one by one.

    The weight has shape (L * C_out, C_in, k, k), branch after branch, so initialisers see the fan-in of a branch.

    Args:
        in_channels: C_in.
        out_channels: C_out, of each branch and of the sum.
        kernel_size: Height and width of the filters.
        stride: As in Conv2d.
        padding: As in Conv2d.
        dilation: As in Conv2d.
        groups: Only 1; mmcv passes it to every convolution that it builds.
        bias: Whether to add a bias to the sum.
        num_branches: L.
        device: Where to create the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: groups other than 1, a number of branches that is none, or an input of another width.

    Example:
        >>> layer = SumFusion(8, 16, kernel_size=3, padding=1, num_branches=4)
        >>> layer.weight.shape
        torch.Size([64, 8, 3, 3])
        >>> layer(torch.rand(2, 8, 6, 6)).shape
        torch.Size([2, 16, 6, 6])
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: _Size,
                 stride: _Size = 1,
                 padding: _Size | str = 0,
                 dilation: _Size = 1,
                 groups: int = 1,
                 bias: bool = True,
                 num_branches: int = 4,
                 device: torch.device | None = None,
                 dtype: torch.dtype | None = None) -> None:
        check_positive('SumFusion', in_channels=in_channels, out_channels=out_channels, num_branches=num_branches)
        check_size('SumFusion', kernel_size=kernel_size)
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
        if x.dim() not in (3, 4) or x.size(-3) != self.in_channels:
            raise ValueError(f'SumFusion: expected input of shape (N, {self.in_channels}, H, W) or ({self.in_channels}, H, W), '
                             f'got {tuple(x.shape)}')
        return self._conv_forward(x, self.weight.unflatten(0, (self.num_branches, -1)).sum(0), self.bias)

    def extra_repr(self) -> str:
        """Conv2d's description, then num_branches."""
        return f'{super().extra_repr()}, num_branches={self.num_branches}'
