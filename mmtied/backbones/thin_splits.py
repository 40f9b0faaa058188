"""Where the compiled library convolves the splits of a tied bottleneck, and where PyTorch does."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmtied.layers import TBC, TGC
from mmtied.native import library
from mmtied.native.thin_convolution import Splits, can_convolve

from .watched import is_watched


class ThinSplits(NamedTuple):
    """What the library needs to know: a weight for each group of each split, and the rest."""

    weights: list[Tensor]
    splits: Splits


def find_thin_splits(x: Tensor, convs: Iterable[nn.Module]) -> ThinSplits | None:
    """What the library needs to convolve the splits of x, or None where PyTorch shall do it."""
    convs = list(convs)
    if library() is None or not all(map(_is_usual, convs)) or len({_geometry(conv) for conv in convs}) > 1:
        return None
    (groups, stride, dilation), = {_geometry(conv) for conv in convs}
    weights = [part for conv in convs for part in (conv.weight.chunk(groups) if groups > 1 else [conv.weight])]
    splits = Splits(tuple(conv.num_blocks for conv in convs for _ in range(groups)), stride, dilation)
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights))
    return ThinSplits(weights, splits) if _is_faster(x, splits, trains) and can_convolve(x, weights, splits) else None


def _is_usual(conv: nn.Module) -> bool:
    """Whether it is a 3x3 TBC or TGC as `TiedSplits` makes it, left to the package."""
    return (type(conv) in (TBC, TGC) and 'forward' not in vars(conv) and not is_watched(conv) and conv.way == 'auto'
            and conv.kernel_size == (3, 3) and conv.padding_mode == 'zeros' and conv.bias is None
            and conv.padding == conv.dilation == (conv.dilation[0], ) * 2 and conv.stride == (conv.stride[0], ) * 2)


def _geometry(conv: nn.Module) -> tuple[int, int, int]:
    return conv.groups, conv.stride[0], conv.dilation[0]


def _is_faster(x: Tensor, splits: Splits, trains: bool) -> bool:
    """Whether the library won where both were measured: one thread, AVX-512 and AVX2, maps of 7 x 7 to 200 x 336.

    TiedSplits with its normalisation, batches of 1 to 4, against PyTorch: 18 to 144 channels with B = 1, 2, 2, 3 are 1.1 to 2.2
    times as fast in inference and 1.1 to 2 times in training, with 144 channels 1.0 to 1.2 times. Blocks of 16, 32 and more
    channels fill PyTorch's vectors too: 32 to 256 channels with B = 1, 2, 4, 8 are 1.0 to 1.6 times as fast in inference and 0.8
    to 1.2 times in training. With 4 and 8 groups, which count as splits of their own here: 1.0 to 1.4 and 1.1 to 1.6.
    """
    width = x.size(1) // len(splits.blocks)
    if min(x.shape[2:]) < 4 * splits.dilation:  # more padding than pixels
        return False
    thin = any(width // blocks % 16 for blocks in splits.blocks)
    small = x.size(2) * x.size(3) <= (28 * splits.stride)**2
    if trains:
        return thin and width <= (144 if small else 72)
    return width <= (256 if small else 144 if thin else 0)
