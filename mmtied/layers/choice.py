"""Which way a tied convolution is computed: a rule fitted to measurements, or a measurement that is kept.

'auto' follows the rule of `rule_for`, which reads the layer, the map's size, the memory format and whether gradients are needed,
so that the same network always takes the same ways. On a CUDA device, where cuDNN may measure too
(``torch.backends.cudnn.benchmark = True``), 'auto' measures. 'measured' times each way once for every kind of call and keeps the
fastest, on any device. A name of `WAYS` fixes the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .tied_ways import WAYS, Geometry, is_channels_last, is_pointwise, possible_ways
from .way_timing import can_measure, fastest_way

#: What `tied_convolution_way` and the layers' `way` may be.
CHOICES = ('auto', 'measured', *WAYS)

_choice = 'auto'


@contextmanager
def tied_convolution_way(choice: str) -> Iterator[None]:
    """Within the block, compute tied convolutions this way, unless a layer's own `way` says another.

    Any choice but 'auto' also turns off what backbones do for speed around the layers, so with a way's name it is the plain
    network. The choice holds for the whole process, threads included. A block with `with_cp` runs a second time in the backward
    pass, which then belongs into the same ``with``.

    Args:
        choice: 'auto', 'measured', 'fold', 'grouped', 'matmul' or 'dense'. A layer that cannot be computed in the named way
            follows the rule: 'matmul' with a 3x3 filter, 'fold' with groups.

    Raises:
        ValueError: Another choice.

    Example:
        >>> from mmtied.layers import TBC
        >>> layer, x = TBC(8, 8, 1), torch.rand(1, 8, 4, 4)
        >>> with tied_convolution_way('grouped'):
        ...     layer.explain(x)
        'grouped: asked for'
    """
    global _choice
    check_choice('tied_convolution_way', choice)
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before


def is_automatic() -> bool:
    """Whether the way is left to the package; then backbones may rewrite blocks for speed too."""
    return _choice == 'auto'


def check_choice(name: str, choice: str) -> None:
    """Raise a ValueError for a choice that is none of `CHOICES`."""
    if choice not in CHOICES:
        raise ValueError(f'{name}: way={choice!r}, expected one of {", ".join(map(repr, CHOICES))}')


def choose_way(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, own_choice: str = 'auto') -> tuple[str, str]:
    """The name of the way for this call, and why.

    Args:
        x: Input of shape (N, C_in, H, W).
        weight: The thin weight.
        bias: The tied bias or None.
        geometry: The rest of the layer.
        own_choice: The layer's own choice; 'auto' leaves it to `tied_convolution_way`.

    Raises:
        ValueError: A choice that is none of `CHOICES`, as a layer's attribute may be set to.
    """
    choice = own_choice if own_choice != 'auto' else _choice
    if choice not in CHOICES:
        check_choice('tied convolution', choice)
    exports = is_exporting()
    if choice not in WAYS:
        return _automatic_way(x, weight, bias, geometry, choice, exports)
    if choice in possible_ways(weight, geometry) and not (exports and choice == 'dense'):
        return choice, 'asked for'
    way, why = _automatic_way(x, weight, bias, geometry, 'auto', exports)
    return way, f'not {choice} as asked for, which cannot compute this layer; {why}'


def _automatic_way(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, choice: str,
                   exports: bool) -> tuple[str, str]:
    """The way by rule or by measurement; `choice` is 'auto' or 'measured'."""
    if exports:
        return rule_for_export(x, geometry)
    if torch.compiler.is_compiling():
        return rule_for_compilation(x, weight, geometry)
    if can_measure(x) and (choice == 'measured' or (x.is_cuda and torch.backends.cudnn.benchmark)):
        return fastest_way(x, weight, bias, geometry) or rule_for(x, weight, geometry)
    return rule_for(x, weight, geometry)


def rule_for(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[str, str]:
    """The way that won most measurements of its kind, and why (docs/performance.md)."""
    channels = weight.size(1)
    if is_channels_last(x):
        if is_pointwise(weight, geometry):
            return 'matmul', 'a 1x1 filter in channels_last is one matrix product without copies'
        if geometry.groups == 1 and channels >= 64 and x.size(2) * x.size(3) <= 196 and x.device.type == 'cpu':
            return 'fold', 'blocks of many channels on a small map are worth the copies that folding makes in channels_last'
        return 'grouped', 'in channels_last, folding would copy the input and the output; the weight is small'
    if geometry.groups > 1:
        return 'grouped', 'with groups, the blocks of a group cannot be folded'
    if x.device.type == 'cpu':
        trains = is_training(x, weight)
        strided = geometry.stride != (1, 1)
        if trains and strided and is_pointwise(weight, geometry):
            return 'matmul', 'with a stride, the backward pass of a matrix product writes fewer pixels than that of a convolution'
        thin = (4, 8, 16) if strided else (4, 8)
        if weight.size(2) > 1 and channels in thin and (trains or not strided):
            return 'grouped', 'thin blocks fit the vector registers only as groups; the weight is small'
    return 'fold', 'in contiguous NCHW, folding is a view and the weight stays thin'


def rule_for_compilation(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[str, str]:
    """The way in graphs of torch.compile: the rule's, but for training what inductor can compile for images of any size.

    torch 2.13 fails on the gradient of a folded batch, and of strided products, when height and width are symbols.
    """
    way, why = rule_for(x, weight, geometry)
    if is_training(x, weight) and (way == 'fold' or geometry.stride != (1, 1)):
        return 'grouped', 'compiled for training, where sizes may change'
    return way, why


def is_training(x: Tensor, weight: Tensor) -> bool:
    """Whether autograd records what is computed from these."""
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def rule_for_export(x: Tensor, geometry: Geometry) -> tuple[str, str]:
    """The way in traces and exported graphs: always convolutions, which other runtimes fuse best.

    Never 'dense', whose weight is made by a copy into a diagonal, which ONNX exporters leave out or refuse.
    """
    if x.is_contiguous() and geometry.groups == 1:
        return 'fold', 'exported as one convolution with the thin weight'
    return 'grouped', 'exported as one grouped convolution'


def is_exporting() -> bool:
    """Whether torch.jit.trace (also for ONNX) or torch.export is recording."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()
