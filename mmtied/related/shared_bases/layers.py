"""Convolutions whose filters are combined from a basis that several layers share.

Kang & Kim, "Deeply Shared Filter Bases for Parameter-Efficient Convolutional Neural Networks", NeurIPS 2021,
https://arxiv.org/abs/2006.05066.

A `FilterBasis` holds filters once. A `SharedBasisConv` combines them, and a few of its own, with coefficients (Eq. 1, 2 and 8);
a `SharedConv2d` takes them as they are, for blocks whose other convolutions are the coefficients. Both only refer to the basis:
whatever holds them (a stage of a network) registers it, so it is one entry in ``parameters()`` and in the state_dict, under the
key of its holder, and copying, pickling or converting the holder keeps it shared.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.layers.blocks import check_not_negative, check_padding, check_positive, check_size

_Size = int | tuple[int, int]
#: How many weights of each input channel a pixel of an image may cost before joining them takes longer than a second convolution.
_JOINED_WEIGHTS = 16


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


class _Sharing(nn.Module):
    """What both layers have in common: the geometry of a convolution, and filters that they refer to but do not own.

    Deliberately no Conv2d: functions that fold a normalisation into a convolution (mmcv's fuse_conv_bn) would change the filters
    for all the layers that share them.
    """

    transposed = False
    output_padding = (0, 0)
    #: What the filters have to be, for the message.
    _holder: tuple[type[nn.Conv2d], str] = (nn.Conv2d, 'a FilterBasis or another Conv2d')

    def __init__(self, filters: nn.Conv2d, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size,
                 padding: _Size | str, dilation: _Size, groups: int) -> None:
        super().__init__()
        name = type(self).__name__
        check_positive(name, in_channels=in_channels, out_channels=out_channels)
        if groups != 1:
            raise ValueError(f'{name}: groups={groups}, expected 1; bases of grouped filters are not supported')
        check_size(name, kernel_size=kernel_size, stride=stride, dilation=dilation)
        check_padding(name, padding, _pair(stride))
        kind, described = self._holder
        if not isinstance(filters, kind):
            raise ValueError(f'{name}: filters is of type {type(filters).__name__}, expected {described}, which the layers share')
        channels, *size = filters.weight.shape[1:]  # of a grouped convolution those of one group
        if (channels, tuple(size)) != (in_channels, _pair(kernel_size)):
            raise ValueError(f'{name}: filters for {channels} channels of size {tuple(size)} came, expected '
                             f'{in_channels} channels and size {_pair(kernel_size)}; layers that share must agree in both')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        object.__setattr__(self, 'filters', filters)  # past nn.Module's own, which would register it here as well

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.dim() not in (3, 4) or x.size(-3) != self.in_channels:
            raise ValueError(f'{type(self).__name__}: expected input of shape (N, {self.in_channels}, H, W) or '
                             f'({self.in_channels}, H, W), got {tuple(x.shape)}')
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        """The geometry as Conv2d prints it, and the shape of the shared filters."""
        return (f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
                f'padding={self.padding!r}, dilation={self.dilation}, filters={tuple(self.filters.weight.shape)}')


class SharedConv2d(_Sharing):
    """A convolution without bias whose filters are another module's.

    Args:
        in_channels: C_in, as the filters have.
        out_channels: C_out, the number of filters.
        kernel_size: As the filters have.
        stride: As in Conv2d.
        padding: As in Conv2d.
        dilation: As in Conv2d.
        groups: Only 1; mmcv passes it to every convolution that it builds.
        bias: Only False; mmcv passes it too.
        filters: Holds the weight: a `FilterBasis`, or any Conv2d. Register it where the layers that share it are held.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: Filters that are no convolution or of another shape, a bias, groups, or a size that Conv2d has no use for.

    Example:
        >>> basis = FilterBasis(16, 16, kernel_size=3)
        >>> blocks = [SharedConv2d(16, 16, 3, padding=1, filters=basis) for _ in range(4)]
        >>> stage = nn.Sequential(*blocks)
        >>> stage.register_module('basis', basis)  # the stage holds it, once
        >>> sum(p.numel() for p in stage.parameters()), list(stage.state_dict())
        (2304, ['basis.weight'])
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: _Size,
                 stride: _Size = 1,
                 padding: _Size | str = 0,
                 dilation: _Size = 1,
                 groups: int = 1,
                 bias: bool = False,
                 *,
                 filters: nn.Conv2d) -> None:
        super().__init__(filters, in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        if filters.out_channels != out_channels:
            raise ValueError(f'SharedConv2d: {filters.out_channels} filters came for out_channels={out_channels}; to combine '
                             'them to another number of channels use SharedBasisConv')
        if bias:
            raise ValueError('SharedConv2d: bias=True, expected False; the normalisation after it has one')

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        return self._convolve(x, self.filters.weight)


class SharedBasisConv(_Sharing):
    """A convolution with filters combined from a basis: W_t = sum_r alpha_t^r W_basis^r (Eq. 1).

    Computed in the order of Eq. 2: one convolution with the R basis elements, then a 1x1 convolution with the coefficients. The
    basis is the union of the shared elements and `num_unique` elements of the layer's own (Eq. 8), which are joined as weights,
    so that there is one convolution with both; where the image is so small that copying the weights would take longer, each has
    its convolution and their outputs are joined.

    Args:
        in_channels: C_in, S in the paper, as the basis has.
        out_channels: C_out, T in the paper.
        kernel_size: As the basis has.
        stride: As in Conv2d.
        padding: As in Conv2d.
        dilation: As in Conv2d.
        groups: Only 1; mmcv passes it to every convolution that it builds.
        bias: Whether the coefficients have a bias.
        filters: The shared elements. Register the basis where the layers that share it are held.
        num_unique: Number of elements of the layer's own.
        norm: A normalisation of R channels between basis and coefficients, or None. R is the number of shared and own elements.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: filters that are no FilterBasis or of another shape, groups, a negative num_unique, a norm that is no module
            or of another width, or a size that Conv2d has no use for.

    Example:
        >>> basis = FilterBasis(64, 32, kernel_size=3)
        >>> layer = SharedBasisConv(64, 64, 3, padding=1, bias=False, filters=basis, num_unique=1)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
        >>> sum(p.numel() for p in layer.parameters()) == 64 * 9 + 33 * 64  # its own element and the coefficients
        True
    """

    _holder = (FilterBasis, 'a FilterBasis')

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: _Size,
                 stride: _Size = 1,
                 padding: _Size | str = 0,
                 dilation: _Size = 1,
                 groups: int = 1,
                 bias: bool = True,
                 *,
                 filters: FilterBasis,
                 num_unique: int = 0,
                 norm: nn.Module | None = None) -> None:
        super().__init__(filters, in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        check_not_negative('SharedBasisConv', num_unique=num_unique)
        _check_norm(norm, filters.out_channels + num_unique)
        options = {'device': filters.weight.device, 'dtype': filters.weight.dtype}
        self.norm = norm  # first, as fuse_conv_bn would fold it into a convolution registered before it
        self.unique = nn.Conv2d(in_channels, num_unique, kernel_size, bias=False, **options) if num_unique else None
        self.coefficients = nn.Conv2d(filters.out_channels + num_unique, out_channels, 1, bias=bias, **options)

    def basis_weight(self) -> Tensor:
        """All R basis elements, shape (R, C_in, k, k): the shared ones, then the layer's own; differentiable."""
        shared = self.filters.weight
        return shared if self.unique is None else torch.cat([shared, self.unique.weight])

    def combined_weight(self) -> Tensor:
        """The filters W of Eq. 1, shape (C_out, C_in, k, k): a Conv2d with them computes the same; differentiable.

        Raises:
            ValueError: A normalisation stands between basis and coefficients.
        """
        if self.norm is not None:
            raise ValueError('SharedBasisConv: combined_weight needs a layer without norm; with one between basis and '
                             'coefficients, no single convolution computes the same')
        return torch.einsum('tr,rskl->tskl', self.coefficients.weight.flatten(1), self.basis_weight())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        elements = self.coefficients.in_channels * self.kernel_size[0] * self.kernel_size[1]
        if self.unique is None or elements <= _JOINED_WEIGHTS * prod(x.shape[-2:]):
            x = self._convolve(x, self.basis_weight())
        else:
            x = torch.cat([self._convolve(x, part.weight) for part in (self.filters, self.unique)], dim=-3)
        return self.coefficients(x if self.norm is None else self.norm(x))


def _check_norm(norm: nn.Module | None, elements: int) -> None:
    if norm is not None and not isinstance(norm, nn.Module):
        raise ValueError(f'SharedBasisConv: norm={norm!r}, expected None or a module, for example nn.BatchNorm2d({elements})')
    width = getattr(norm, 'num_features', 0) or elements  # a lazy one has 0 until it sees an input
    if width != elements:
        raise ValueError(f'SharedBasisConv: norm has {width} channels, expected {elements}, one for each shared and own element')


def _pair(value: _Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
