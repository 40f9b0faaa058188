"""The filters that layers with a shared basis combine.

Kang & Kim, "Deeply Shared Filter Bases for Parameter-Efficient Convolutional Neural Networks", NeurIPS 2021,
https://arxiv.org/abs/2006.05066.
"""

import torch
from torch import Tensor, nn

from .blocks import check_positive, check_size

_Size = int | tuple[int, int]


class FilterBasis(nn.Conv2d):
    """The R elements of a filter basis, W_basis: a convolution's weight without a bias, shape (R, C_in, k, k).

    It is a Conv2d, so that initialisers that go by that name reach it; layers that share it convolve with its weight and with a
    stride, padding and dilation of their own.

    Args:
        in_channels: C_in, S in the paper.
        num_elements: R.
        kernel_size: Height and width of the filters.
        device: Where to create the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: Channels, elements or a kernel size that are no positive integers.

    Example:
        >>> basis = FilterBasis(64, 32, kernel_size=3)
        >>> basis.weight.shape
        torch.Size([32, 64, 3, 3])
    """

    def __init__(self,
                 in_channels: int,
                 num_elements: int,
                 kernel_size: _Size,
                 device: torch.device | None = None,
                 dtype: torch.dtype | None = None) -> None:
        check_positive('FilterBasis', in_channels=in_channels, num_elements=num_elements)
        check_size('FilterBasis', kernel_size=kernel_size)
        super().__init__(in_channels, num_elements, kernel_size, bias=False, device=device, dtype=dtype)

    def deviation(self) -> Tensor:
        """How far the elements are from orthonormal: ``||W'W - I||^2`` (Eq. 7), W of shape (k * k * C_in, R).

        A scalar of at least 0, in float32 (float64 for a float64 basis). Where R is more than k * k * C_in not all elements can
        be orthogonal, and R - k * k * C_in is the least.

        Example:
            >>> basis = FilterBasis(4, 2, kernel_size=1)
            >>> _ = basis.weight.data.copy_(torch.eye(4)[:2, :, None, None])
            >>> basis.deviation().item()
            0.0
        """
        rows = self.weight.flatten(1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).square().sum()
