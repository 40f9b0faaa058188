"""Subclasses of mmpretrain's networks, whose layers are replaced after construction.

mmpretrain is slow to import, so it is imported, and the class created, when a network is built or unpickled.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from torch import nn

from mmtied.arguments import reject_unknown
from mmtied.compat import require

from .checkpoint import StrictCheckpoint
from .resnet_base import UNSUPPORTED

#: Classes of this module and their base classes in mmpretrain.
BASES = {'TiedEfficientNet': 'EfficientNet', 'SharedMobileNetV2': 'MobileNetV2'}


@cache
def network_class(name: str) -> type[nn.Module]:
    """Return a class of `BASES`, with strict checkpoints, and with train() and eval() that return the network as in PyTorch.

    Raises:
        ImportError: mmpretrain is not installed.
    """
    require('mmpretrain', name)

    class Network(StrictCheckpoint, getattr(import_module('mmpretrain.models.backbones'), BASES[name])):

        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            return self

    Network.__name__ = Network.__qualname__ = name
    return Network


def check_settings(builder: Callable, parent: type[nn.Module], settings: Mapping[str, object]) -> None:
    """Raise a TypeError for settings that neither the builder nor its network from `network_class` takes."""
    if 'pretrained' in settings:
        raise TypeError(f'{parent.__name__}: pretrained is not supported; {UNSUPPORTED["pretrained"]}')
    reject_unknown(parent.__name__, settings, builder, parent.__init__)


def __getattr__(name: str) -> object:
    """Create the class when pickle looks it up."""
    if name in BASES:
        return network_class(name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
