"""Refuse, in one line, to fold a normalization into a layer whose weight has another number of filters than it has outputs.

torch's `fuse_conv_bn_eval` and mmcv's `fuse_conv_bn` multiply the weight by a factor for each output channel, and fail on tied
layers with a message about the sizes of tensors. The functions themselves have to refuse, as they do so before a layer could
notice; what they set is refused by the layer (`TBC.__setattr__`), which catches a weight of one filter, whose factors would
broadcast. `torch.ao.quantization.fuse_modules` names by itself the layers that it cannot fuse.
"""

import functools
import importlib
from collections.abc import Callable

from torch import nn


def refuse_fusion(module: str, *names: str) -> None:
    """Let functions of a module, which fold a normalization into a layer, refuse tied ones; a second call changes nothing.

    Functions that the module lacks are left out: torch 2.1 has ``torch.nn.utils.fusion.fuse_linear_bn_eval`` by this name alone.
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
