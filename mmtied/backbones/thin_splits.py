"""Where the compiled library convolves the splits of a tied bottleneck, and where PyTorch does."""

from collections.abc import Iterable

from torch import Tensor, nn

from mmtied.layers import TBC
from mmtied.native.thin_convolution import Splits, can_convolve

from .watched import is_watched

#: Measured on one thread of a Xeon with AVX-512.
WIDEST = 144


def find_thin_splits(x: Tensor, convs: Iterable[nn.Module]) -> Splits | None:
    """What the library needs to know to convolve the splits of x, or None where PyTorch shall do it."""
    convs = list(convs)
    if not all(map(_is_plain, convs)):
        return None
    (stride, ), (dilation, ) = {conv.stride[0] for conv in convs}, {conv.dilation[0] for conv in convs}
    splits = Splits(tuple(conv.num_blocks for conv in convs), stride, dilation)
    return splits if _is_faster(x, convs) and can_convolve(x, [conv.weight for conv in convs], splits) else None


def _is_plain(conv: nn.Module) -> bool:
    """Whether it is a 3x3 TBC as the splits make it, left to the package."""
    return (type(conv) is TBC and 'forward' not in vars(conv) and not is_watched(conv) and conv.way == 'auto'
            and conv.kernel_size == (3, 3) and conv.padding_mode == 'zeros' and conv.padding == conv.dilation
            and conv.bias is None)


def _is_faster(x: Tensor, convs: list[nn.Module]) -> bool:
    return x.size(1) <= WIDEST * len(convs)
