"""Checks that the layers share, of arguments, inputs, state_dicts and BatchNorm fusion; each error suggests a fix."""

import functools
import importlib
from collections.abc import Callable
from numbers import Integral

from torch import Tensor, nn
from torch.fx import Proxy

#: Padding modes of Conv2d.
PADDING_MODES = ('zeros', 'reflect', 'replicate', 'circular')


def check_positive(layer: str, **counts: int) -> None:
    """Raise a ValueError for the first count that is not a positive integer."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f'{layer}: {name}={count!r}, expected a positive integer')


def check_not_negative(layer: str, **counts: int) -> None:
    """Raise a ValueError for the first count that is neither 0 nor a positive integer."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
            raise ValueError(f'{layer}: {name}={count!r}, expected 0 or a positive integer')


def check_size(layer: str, least: int = 1, **sizes: int | tuple[int, int]) -> None:
    """Raise a ValueError for the first size that is neither an integer >= `least` nor a pair of them.

    Example:
        >>> check_size('IGC', kernel_size=(3, 1))
        >>> check_size('IGC', kernel_size='3')
        Traceback (most recent call last):
        ValueError: IGC: kernel_size='3', expected a positive integer, or two for height and width
    """
    for name, size in sizes.items():
        values = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, )
        if any(isinstance(value, bool) or not isinstance(value, Integral) or value < least for value in values):
            kind = 'a positive integer' if least else '0 or a positive integer'
            raise ValueError(f'{layer}: {name}={size!r}, expected {kind}, or two for height and width')


def check_geometry(layer: str, kernel_size: object, stride: object = 1, padding: object = 0, dilation: object = 1,
                   padding_mode: str = 'zeros') -> None:
    """Raise a ValueError for the first setting that Conv2d rejects, whether in its constructor or only in its forward.

    Example:
        >>> check_geometry('TBC', 3, stride=2, padding='same')
        Traceback (most recent call last):
        ValueError: TBC: padding='same' with stride=2, expected stride=1; give the padding as numbers
    """
    check_size(layer, kernel_size=kernel_size, stride=stride, dilation=dilation)
    if not isinstance(padding, str):
        check_size(layer, least=0, padding=padding)
    elif padding not in ('same', 'valid'):
        raise ValueError(f"{layer}: padding={padding!r}, expected 'same', 'valid', or numbers")
    elif padding == 'same' and stride not in (1, (1, 1), [1, 1]):
        raise ValueError(f"{layer}: padding='same' with stride={stride}, expected stride=1; give the padding as numbers")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f'{layer}: padding_mode={padding_mode!r}, expected one of {", ".join(PADDING_MODES)}')


def check_input(layer: str, x: Tensor, in_channels: int) -> None:
    """Raise a ValueError for an input that is neither (N, in_channels, H, W) nor (in_channels, H, W)."""
    check_tensor(layer, x)
    if x.dim() not in (3, 4) or x.size(-3) != in_channels:
        raise ValueError(f'{layer}: expected input of shape (N, {in_channels}, H, W) or ({in_channels}, H, W), '
                         f'got {tuple(x.shape)}')


def check_tensor(layer: str, x: object) -> None:
    """Raise a TypeError for an input that is not a tensor, such as an array or a list of feature maps."""
    if isinstance(x, Tensor):
        return
    if isinstance(x, Proxy):
        raise TypeError(f'{layer}: torch.fx.symbolic_trace cannot trace it, because its algorithm depends on the input; use '
                        'torch.export or torch.jit.trace, or a Tracer whose is_leaf_module names it')
    raise TypeError(f'{layer}: expected a tensor, got {type(x).__name__}')


def check_sequence(layer: str, name: str, values: object) -> None:
    """Raise a ValueError for a setting that is neither a tuple nor a list."""
    if not isinstance(values, (tuple, list)):
        raise ValueError(f'{layer}: {name}={values!r}, expected a tuple or a list, for example ({values!r}, )')


def check_blocks(layer: str, name: str, channels: int, num_blocks: int, groups: int = 1, more: str = '') -> None:
    """Raise a ValueError with the divisors, and more advice, unless groups * num_blocks divides a layer's channels.

    Example:
        >>> check_blocks('TBC', 'in_channels', 22, 4)
        Traceback (most recent call last):
        ValueError: TBC: in_channels=22 is not divisible by num_blocks=4; use one of 1, 2, 11, 22
    """
    check_positive(layer, **{name: channels})
    if channels % (num_blocks * groups):
        factors = {'groups': groups, 'num_blocks': num_blocks}
        product = ' times '.join(f'{factor}={value}' for factor, value in factors.items() if value > 1)
        advice = 'a product that is one of' if min(groups, num_blocks) > 1 else 'one of'
        raise ValueError(f'{layer}: {name}={channels} is not divisible by {product}; use {advice} '
                         f'{", ".join(map(str, divisors(channels)))}{more}')


class BlockMetadata:
    """Mixin of tied layers that stores num_blocks in the metadata of a state_dict and checks it on loading.

    Weights with another num_blocks but the same thin shape raise a ValueError. Older state_dicts lack the entry.
    """

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, '_metadata', None)
        if metadata is not None and prefix[:-1] in metadata:
            metadata[prefix[:-1]]['num_blocks'] = self.num_blocks

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: object) -> None:
        saved, weight = local_metadata.get('num_blocks', self.num_blocks), state_dict.get(f'{prefix}weight')
        if saved != self.num_blocks and weight is not None and weight.shape == self.weight.shape:
            layer = f'{type(self).__name__} {prefix[:-1]}'.rstrip()
            raise ValueError(f'{layer}: the weights are from a layer with num_blocks={saved}, but this one has {self.num_blocks}')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def refuse_fusion(module: str, *names: str) -> None:
    """Wrap functions of a module that fold a normalization into a layer, so that they reject tied layers; idempotent.

    torch's `fuse_conv_bn_eval` and mmcv's `fuse_conv_bn` scale the weight by one factor per output channel. On tied layers that
    fails with a message about tensor sizes before the layer is involved, so the functions themselves are wrapped. A weight of
    one filter would broadcast instead; `TBC.__setattr__` rejects the result.

    Functions that the module lacks are skipped: torch 2.1 has `fuse_linear_bn_eval` only in ``torch.nn.utils.fusion``.
    `torch.ao.quantization.fuse_modules` rejects tied layers itself.
    """
    place = importlib.import_module(module)
    for name in names:
        function = getattr(place, name, None)
        if function is not None and not hasattr(function, '_refuses'):
            setattr(place, name, _refusing(function))


def _refusing(function: Callable) -> Callable:
    @functools.wraps(function)
    def checked(layer: nn.Module, *args: object, **settings: object) -> nn.Module:
        if not hasattr(layer, 'weight'):
            raise ValueError(f'{type(layer).__name__}: has no weight of its own to fold a normalization into; use '
                             'mmtied.surgery.deploy instead of fuse_conv_bn')
        outputs = getattr(layer, 'out_channels', getattr(layer, 'out_features', None))
        filters = getattr(layer.weight, 'shape', ())[:1]
        if filters and isinstance(layer, nn.Conv2d | nn.Linear) and filters[0] != outputs:
            raise ValueError(f'{type(layer).__name__}: weight of shape {tuple(layer.weight.shape)} has {filters[0]} filters for '
                             f'{outputs} outputs; to fold a normalization into it use mmtied.surgery.deploy instead of '
                             'fuse_conv_bn')
        return function(layer, *args, **settings)

    checked._refuses = True
    return checked


def divisors(number: int) -> list[int]:
    """Return all divisors in increasing order.

    Example:
        >>> divisors(18)
        [1, 2, 3, 6, 9, 18]
    """
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]
