"""Where the compiled library convolves the splits of a tied bottleneck, and where PyTorch does."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmtied.layers import TBC
from mmtied.native import library
from mmtied.native.thin_convolution import Splits, can_convolve

from .watched import is_watched


def find_thin_splits(x: Tensor, convs: Iterable[nn.Module]) -> Splits | None:
    """What the library needs to know to convolve the splits of x, or None where PyTorch shall do it."""
    convs = list(convs)
    if library() is None or not all(map(_is_plain, convs)) or len({(conv.stride, conv.dilation) for conv in convs}) > 1:
        return None
    weights, splits = [conv.weight for conv in convs], Splits.of(convs)
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights))
    return splits if _is_faster(x, splits, trains) and can_convolve(x, weights, splits) else None


def _is_plain(conv: nn.Module) -> bool:
    """Whether it is a 3x3 TBC as `TiedSplits` makes it, left to the package."""
    return (type(conv) is TBC and 'forward' not in vars(conv) and not is_watched(conv) and conv.way == 'auto'
            and conv.kernel_size == (3, 3) and conv.padding_mode == 'zeros' and conv.bias is None
            and conv.padding == conv.dilation == (conv.dilation[0], ) * 2 and conv.stride == (conv.stride[0], ) * 2)


def _is_faster(x: Tensor, splits: Splits, trains: bool) -> bool:
    """Whether the library won where both were measured: one thread, AVX-512 and AVX2, maps of 7 x 7 to 200 x 336.

    TiedSplits with its normalisation, batches of 1 to 4, against PyTorch: 18 to 144 channels with B = 1, 2, 2, 3 are 1.1 to 2.2
    times as fast in inference and 1.1 to 2 times in training, with 144 channels 1.0 to 1.2 times. Blocks of 16, 32 and more
    channels fill PyTorch's vectors too: 32 to 256 channels with B = 1, 2, 4, 8 are 1.0 to 1.6 times as fast in inference and 0.8
    to 1.2 times in training.
    """
    width = x.size(1) // len(splits.blocks)
    if min(x.shape[2:]) < 4 * splits.dilation:  # more padding than pixels
        return False
    thin = any(width // blocks % 16 for blocks in splits.blocks)
    small = x.size(2) * x.size(3) <= (28 * splits.stride)**2
    if trains:
        return thin and width <= (144 if small else 72)
    return width <= (256 if small else 144 if thin else 0)
