"""Reject misspelt arguments with a TypeError that names the class and the nearest valid name."""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature


def reject_unknown(owner: str, settings: Mapping[str, object], *builders: Callable, without: Collection[str] = ()) -> None:
    """Raise a TypeError for a setting that no builder accepts, with the nearest accepted name.

    Names in `without` count as unknown.

    Example:
        >>> from mmtied.layers import TBC
        >>> reject_unknown('TBC', {'num_block': 2}, TBC.__init__)
        Traceback (most recent call last):
        TypeError: TBC: unexpected argument num_block; did you mean num_blocks?
    """
    known = [name for builder in builders for name in named_arguments(builder) if name not in without]
    for name in settings:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            raise TypeError(f'{owner}: unexpected argument {name}' + (f'; did you mean {nearest[0]}?' if nearest else ''))


def suggest_arguments(cls: type) -> type:
    """Decorate a class so that its constructor calls `reject_unknown`.

    Example:
        >>> @suggest_arguments
        ... class Layer:
        ...     def __init__(self, in_channels): ...
        >>> Layer(in_channel=3)
        Traceback (most recent call last):
        TypeError: Layer: unexpected argument in_channel; did you mean in_channels?
    """
    init = cls.__init__

    @wraps(init)
    def __init__(self: object, *args: object, **settings: object) -> None:  # noqa: N807
        reject_unknown(type(self).__name__, settings, init)
        init(self, *args, **settings)

    cls.__init__ = __init__
    return cls


def named_arguments(builder: Callable) -> list[str]:
    """Return the argument names of a constructor or function, without self and ``**kwargs``."""
    return [name for name, parameter in signature(builder).parameters.items()
            if parameter.kind is not Parameter.VAR_KEYWORD and name != 'self']
