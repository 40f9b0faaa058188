"""Networks of mmpretrain whose layers are replaced after they are built.

mmpretrain is imported, and the class made, when a network is built or unpickled, because its import is slow.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from torch import nn

from mmtied.arguments import reject_unknown
from mmtied.compat import require

from .checkpoint import StrictCheckpoint
from .resnet_base import UNSUPPORTED

#: The classes of this module, and their base classes in mmpretrain.
BASES = {'TiedEfficientNet': 'EfficientNet', 'SharedMobileNetV2': 'MobileNetV2'}


@cache
def network_class(name: str) -> type[nn.Module]:
    """Return a class of `BASES`: train() and eval() return the network, as PyTorch's do, and it can check its checkpoints.

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
    """Raise a TypeError for settings that a network of `network_class` does not take; the builder's are known too."""
    if 'pretrained' in settings:
        raise TypeError(f'{parent.__name__}: pretrained is not supported; {UNSUPPORTED["pretrained"]}')
    reject_unknown(parent.__name__, settings, builder, parent.__init__)


def __getattr__(name: str) -> object:
    """Make the class when pickle looks for it."""
    if name in BASES:
        return network_class(name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
