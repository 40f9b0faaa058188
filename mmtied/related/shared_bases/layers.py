"""Filter bases shared by several layers, and the layers that use them.

A `FilterBasis` owns the filters. A `SharedBasisConv` combines them, and a few of its own, with coefficients (Eq. 1, 2 and 8); a
`SharedConv2d` uses them directly, in blocks whose other convolutions act as coefficients. Both only refer to the basis. Their
common parent (a stage of a network) registers it, so it appears once in ``parameters()`` and in the state_dict, under the
parent's key, and copying, pickling or converting the parent keeps it shared.

Every weight is used inside the forward of the module that owns it, as pruning, weight normalization, hooks and FSDP require.
"""

from collections.abc import Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.layers.blocks import check_geometry, check_input, check_not_negative, check_positive

_Size = int | tuple[int, int]
#: Weights per input channel and pixel above which two convolutions are faster than concatenating their weights.
_JOINED_WEIGHTS = 16


@suggest_arguments
class FilterBasis(nn.Conv2d):
    """Filter basis W_basis of R elements: the weight of a convolution without bias, shape (R, C_in, k, k).

    A Conv2d, so that initializers that select layers by name reach it. Layers that share it call it with their own stride,
    padding and dilation.

    Args:
        in_channels: C_in, S in the paper.
        num_elements: R.
        kernel_size: Height and width of the filters.
        groups: Number of groups; each element sees ``C_in / groups`` channels.
        device, dtype: Of the parameters.

    Raises:
        ValueError: Channels, elements, groups or kernel size are not positive integers, or groups does not divide channels and
            elements.

    Example:
        >>> basis = FilterBasis(64, 32, kernel_size=3)
        >>> basis.weight.shape
        torch.Size([32, 64, 3, 3])
    """

    def __init__(self, in_channels: int, num_elements: int, kernel_size: _Size, device: torch.device | None = None,
                 dtype: torch.dtype | None = None, *, groups: int = 1) -> None:
        check_positive('FilterBasis', in_channels=in_channels, num_elements=num_elements, groups=groups)
        check_geometry('FilterBasis', kernel_size)
        _check_groups('FilterBasis', groups, in_channels=in_channels, num_elements=num_elements)
        super().__init__(in_channels, num_elements, kernel_size, bias=False, groups=groups, device=device, dtype=dtype)

    def forward(self, x: Tensor, stride: _Size, padding: _Size | str, dilation: _Size, more: Tensor | None) -> Tensor:
        """Convolve with the elements and, without groups, with U more elements `more`, shape (U, C_in, k, k), or None.

        Returns:
            (N, R + U, H', W'), or (R + U, H', W') for an input without batch dimension.
        """
        weight = self.weight if more is None else torch.cat([self.weight, more])
        return F.conv2d(x, weight, None, stride, padding, dilation, self.groups)

    def deviation(self) -> Tensor:
        """Compute the distance from an orthonormal basis, ``||W'W - I||^2`` (Eq. 7), with W of shape (k * k * C_in, R).

        If R exceeds k * k * C_in, not all elements can be orthogonal, and the minimum is R - k * k * C_in.

        Returns:
            A scalar >= 0, float32 (float64 for a float64 basis).

        Example:
            >>> basis = FilterBasis(4, 2, kernel_size=1)
            >>> _ = basis.weight.data.copy_(torch.eye(4)[:2, :, None, None])
            >>> basis.deviation().item()
            0.0
        """
        rows = filter_rows(self)
        return squared_deviation(rows, rows)


def filter_rows(*convs: nn.Conv2d) -> Tensor:
    """Return the filters of convolutions as rows, in float32 or wider."""
    rows = torch.cat([conv.weight.flatten(1) for conv in convs])
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def squared_deviation(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of squared deviations of the row products from 0, or from the identity if both arguments are the same."""
    products = one @ other.T
    return (products - torch.eye(len(one), dtype=one.dtype, device=one.device) if one is other else products).square().sum()


class _UniqueElements(nn.Conv2d):
    """Elements that one layer adds to a shared basis."""

    def forward(self, x: Tensor, shared: FilterBasis, stride: _Size, padding: _Size | str, dilation: _Size) -> Tensor:
        """Convolve with the shared elements and these: (N, C_in, H, W) to (N, R, H', W'), batch dimension optional.

        Both are concatenated to one weight unless one is grouped, or on small maps, where two convolutions are faster than
        copying the weights.
        """
        elements = shared.out_channels + self.out_channels
        if self.groups == shared.groups == 1 and elements * prod(self.kernel_size) <= _JOINED_WEIGHTS * prod(x.shape[-2:]):
            return shared(x, stride, padding, dilation, self.weight)
        own = F.conv2d(x, self.weight, None, stride, padding, dilation, self.groups)
        return torch.cat([shared(x, stride, padding, dilation, None), own], dim=-3)


class _SharingConv(nn.Module):
    """Convolution that refers to the filters of another module.

    Not a subclass of Conv2d: functions that fold a normalization into a convolution (mmcv's fuse_conv_bn) would change the
    filters for all layers that share them.
    """

    transposed = False
    output_padding = (0, 0)
    #: Type of the filters, and its description in error messages.
    _filters_type: tuple[type[nn.Conv2d], str] = (nn.Conv2d, 'a FilterBasis or another Conv2d')

    def __init__(self, filters: nn.Conv2d, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size,
                 padding: _Size | str, dilation: _Size, groups: int) -> None:
        super().__init__()
        name = type(self).__name__
        check_positive(name, in_channels=in_channels, out_channels=out_channels)
        check_geometry(name, kernel_size, stride, padding, dilation)
        kind, described = self._filters_type
        if not isinstance(filters, kind):
            raise ValueError(f'{name}: filters is of type {type(filters).__name__}; use {described}, which the layers share')
        if groups != filters.groups:
            raise ValueError(f'{name}: groups={groups}, but the filters have {filters.groups}; layers that share filters '
                             'must agree')
        channels, *size = filters.in_channels, *filters.weight.shape[2:]
        if (channels, tuple(size)) != (in_channels, _pair(kernel_size)):
            raise ValueError(f'{name}: filters have {channels} input channels and size {tuple(size)}, but the layer has '
                             f'{in_channels} and {_pair(kernel_size)}; layers that share filters must agree in both')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.refer_to({'filters': filters}, 'filters')

    @property
    def filters(self) -> nn.Conv2d:
        """The shared filters."""
        return self._holder[self._key]

    def refer_to(self, holder: Mapping[str, nn.Module], key: str) -> None:
        """Look up the filters as ``holder[key]`` in each call, so that a wrapper installed there, such as FSDP, runs too."""
        object.__setattr__(self, '_holder', holder)  # bypasses nn.Module's registration
        self._key = key

    def extra_repr(self) -> str:
        """Return Conv2d's description with the shape of the shared filters."""
        return (f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
                f'padding={self.padding!r}, dilation={self.dilation}, filters={tuple(self.filters.weight.shape)}')


@suggest_arguments
class SharedConv2d(_SharingConv):
    """Convolution without bias that uses the filters of another module, and optionally a few of its own.

    Args:
        in_channels, kernel_size, groups: Those of the filters.
        out_channels: C_out, the number of filters, shared and own.
        stride, padding, dilation: As in Conv2d.
        bias: Must be False; mmcv passes it too.
        filters: Module with the shared weight: a `FilterBasis`, or a Conv2d without bias and with the layer's stride, padding and
            dilation. Register it in the parent of the layers.
        num_unique: Number of the layer's own filters, whose outputs come after the shared ones'; needs a FilterBasis.
        unique_groups: Groups of the layer's own filters.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: The filters are not a convolution or differ from the layer in shape, groups or other hyperparameters, or bias,
            num_unique, unique_groups or a size is not supported.

    Example:
        >>> basis = FilterBasis(16, 16, kernel_size=3)
        >>> blocks = [SharedConv2d(16, 16, 3, padding=1, filters=basis) for _ in range(4)]
        >>> stage = nn.Sequential(*blocks)
        >>> stage.register_module('basis', basis)  # registered once, in the stage
        >>> sum(p.numel() for p in stage.parameters()), list(stage.state_dict())
        (2304, ['basis.weight'])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size = 1, padding: _Size | str = 0,
                 dilation: _Size = 1, groups: int = 1, bias: bool = False, *, filters: nn.Conv2d, num_unique: int = 0,
                 unique_groups: int = 1) -> None:
        super().__init__(filters, in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        check_not_negative('SharedConv2d', num_unique=num_unique)
        number = filters.out_channels + num_unique
        if number != out_channels:
            raise ValueError(f'SharedConv2d: out_channels={out_channels}, but there are {number} filters; to combine them into '
                             'another number of channels use SharedBasisConv')
        if bias:
            raise ValueError('SharedConv2d: bias=True, expected False; use a normalization after the layer')
        self._shares_basis = isinstance(filters, FilterBasis)
        self.unique = None
        if num_unique:
            if not self._shares_basis:
                raise ValueError(f'SharedConv2d: num_unique={num_unique} with filters of type {type(filters).__name__}; use a '
                                 'FilterBasis')
            check_positive('SharedConv2d', unique_groups=unique_groups)
            _check_groups('SharedConv2d', unique_groups, in_channels=in_channels, num_unique=num_unique)
            self.unique = _UniqueElements(in_channels, num_unique, kernel_size, bias=False, groups=unique_groups,
                                          device=filters.weight.device, dtype=filters.weight.dtype)
        if self._shares_basis:
            return
        theirs, mine = ({name: getattr(conv, name) for name in ('stride', 'padding', 'dilation')} for conv in (filters, self))
        if theirs != mine or filters.bias is not None or filters.padding_mode != 'zeros':
            raise ValueError(f'SharedConv2d: filters are {filters}, which the layer calls as is, but the layer has '
                             f'{", ".join(f"{name}={value}" for name, value in mine.items())} and neither bias nor padding_mode; '
                             'make both agree, or use a FilterBasis')

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        check_input('SharedConv2d', x, self.in_channels)
        if self.unique is not None:
            return self.unique(x, self.filters, self.stride, self.padding, self.dilation)
        return self.filters(x, self.stride, self.padding, self.dilation, None) if self._shares_basis else self.filters(x)


@suggest_arguments
class SharedBasisConv(_SharingConv):
    """Convolution with filters combined from a basis: W_t = sum_r alpha_t^r W_basis^r (Eq. 1).

    The layer computes Eq. 2: a convolution with the R basis elements, then a 1x1 convolution with the coefficients. The basis is
    the union of the shared elements and `num_unique` elements of the layer itself (Eq. 8).

    Args:
        in_channels: C_in, S in the paper, as in the basis.
        out_channels: C_out, T in the paper.
        kernel_size: As in the basis.
        stride, padding, dilation: As in Conv2d.
        groups: Must be 1; mmcv passes it to every convolution.
        bias: Add a bias to the coefficients.
        filters: The shared elements. Register the basis in the parent of the layers.
        num_unique: Number of the layer's own elements.
        norm: Normalization between basis and coefficients, with R channels (shared and own elements), or None.

    Shape:
        - Input: (N, C_in, H, W) or (C_in, H, W).
        - Output: (N, C_out, H', W') or (C_out, H', W').

    Raises:
        ValueError: filters is not a FilterBasis or differs in shape, groups is not 1, num_unique is negative, norm is not a
            module or has the wrong width, or a size is not supported.

    Example:
        >>> basis = FilterBasis(64, 32, kernel_size=3)
        >>> layer = SharedBasisConv(64, 64, 3, padding=1, bias=False, filters=basis, num_unique=1)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
        >>> sum(p.numel() for p in layer.parameters()) == 64 * 9 + 33 * 64  # its own element and the coefficients
        True
    """

    _filters_type = (FilterBasis, 'a FilterBasis')

    def __init__(self, in_channels: int, out_channels: int, kernel_size: _Size, stride: _Size = 1, padding: _Size | str = 0,
                 dilation: _Size = 1, groups: int = 1, bias: bool = True, *, filters: FilterBasis, num_unique: int = 0,
                 norm: nn.Module | None = None) -> None:
        if groups != 1:
            raise ValueError(f'SharedBasisConv: groups={groups}, expected 1; SharedConv2d takes grouped filters')
        super().__init__(filters, in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        check_not_negative('SharedBasisConv', num_unique=num_unique)
        _check_norm(norm, filters.out_channels + num_unique)
        options = {'device': filters.weight.device, 'dtype': filters.weight.dtype}
        self.norm = norm  # registered first, or fuse_conv_bn would fold it into the convolution before it
        self.unique = _UniqueElements(in_channels, num_unique, kernel_size, bias=False, **options) if num_unique else None
        self.coefficients = nn.Conv2d(filters.out_channels + num_unique, out_channels, 1, bias=bias, **options)

    def basis_weight(self) -> Tensor:
        """Return all R basis elements, shape (R, C_in, k, k), the shared ones first; differentiable."""
        shared = self.filters.weight
        return shared if self.unique is None else torch.cat([shared, self.unique.weight])

    def combined_weight(self) -> Tensor:
        """Return the filters W of Eq. 1, the weight (C_out, C_in, k, k) of the equivalent Conv2d; differentiable.

        Raises:
            ValueError: The layer has a normalization between basis and coefficients.
        """
        if self.norm is not None:
            raise ValueError('SharedBasisConv: combined_weight needs a layer without norm; with a normalization between basis '
                             'and coefficients, no single convolution is equivalent')
        return torch.einsum('tr,rskl->tskl', self.coefficients.weight.flatten(1), self.basis_weight())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) or (C_in, H, W) and return (N, C_out, H', W') or (C_out, H', W')."""
        check_input('SharedBasisConv', x, self.in_channels)
        geometry = self.stride, self.padding, self.dilation
        x = self.filters(x, *geometry, None) if self.unique is None else self.unique(x, self.filters, *geometry)
        return self.coefficients(x if self.norm is None else self.norm(x))


def _check_groups(name: str, groups: int, **channels: int) -> None:
    for setting, number in channels.items():
        if number % groups:
            raise ValueError(f'{name}: {setting}={number} is not divisible by groups={groups}')


def _check_norm(norm: nn.Module | None, elements: int) -> None:
    if norm is not None and not isinstance(norm, nn.Module):
        raise ValueError(f'SharedBasisConv: norm={norm!r} is not a module; use None or, for example, nn.BatchNorm2d({elements})')
    width = getattr(norm, 'num_features', 0) or elements  # 0 in a lazy module until its first input
    if width != elements:
        raise ValueError(f'SharedBasisConv: norm has {width} channels; it needs {elements}, one for each shared and own element')


def _pair(value: _Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
