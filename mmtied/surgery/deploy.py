"""A trained model in the form it should run in: normalisations folded, tied layers as plain convolutions.

Three things happen to a copy of the model. Layers of this package become modules of torch.nn (see `plain_layers`, also for
what stays tied). Backbones, and all other classes of this package, become graphs of torch's own operations (see `flatten`), which
need none of their classes to run. And each BatchNorm is folded into the convolution before it, where the graph of the module that
holds both shows which one that is (see `fold_graph`); mmcv's fuse_conv_bn goes by the order in which layers were registered.
"""

import logging
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.layers import DGConv

from .flatten import UnreadableError, flatten, is_plain, packages
from .fold_children import fold_children
from .fold_graph import fold_graph
from .freeze_groups import freeze_groups
from .plain_layers import plain_layer

_LOGGER = logging.getLogger(__name__)


@torch.no_grad()
def deploy(model: nn.Module) -> nn.Module:
    """A copy of a model for inference, with the same outputs.

    In the copy each convolution and the BatchNorm (SyncBatchNorm too) after it are one convolution with a bias, and layers of
    this package are plain ones of torch. A backbone is a graph that runs, compiles, exports and pickles without this package;
    necks and heads keep their classes. GroupNorm and LayerNorm stay.

    `mmtied.surgery.plain_layers` has the rules: tied convolutions become grouped ones, tied linear layers stay tied, and filters
    combined from a basis stay two convolutions where that takes fewer multiply-adds. So a deployed model can hold more weights
    than the tied one. On a CPU it is faster in channels_last: ``deploy(model).to(memory_format=torch.channels_last)``.

    The groups of a `DGConv` are frozen as they are now, as `freeze_groups` does.

    Args:
        model: A detector, a classifier, a backbone, or any other module, in training mode or not. It is left as it is.

    Returns:
        The copy, in evaluation mode and without gradients. Its backbone returns what the model's returns, but has none of its
        methods and settings. What could not be folded or made plain is named in one line of the log.

    Raises:
        ValueError: No module.

    Example:
        >>> from mmtied.layers import TBC
        >>> deploy(nn.Sequential(TBC(64, 64, 1, bias=False, num_blocks=2), nn.BatchNorm2d(64), nn.ReLU()))
        Sequential(
          (0): Conv2d(64, 64, kernel_size=(1, 1), stride=(1, 1), groups=2)
          (1): Identity()
          (2): ReLU()
        )
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f'deploy: expected a torch.nn.Module, got {type(model).__name__}')
    holder = nn.Sequential(deepcopy(model))  # so that the model itself can be replaced like any other part
    holder.eval()
    holder.requires_grad_(False)
    channels_last = any(_is_channels_last(parameter) for parameter in holder.parameters())
    for module in holder.modules():
        if getattr(module, 'with_cp', False):
            module.with_cp = False  # it asks inputs for their gradients, which a graph cannot answer
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            module.efficient_conv_bn_eval_forward = None  # mmcv's ConvModule would hide its normalisation from the graph
    if any(isinstance(module, DGConv) for module in holder.modules()):
        freeze_groups(holder)
    _replace(holder, plain_layer)
    _replace(holder, _as_graph)
    _replace(holder, _without_norm)
    fold_children(holder)
    holder.eval()
    holder.requires_grad_(False)
    if channels_last:
        holder.to(memory_format=torch.channels_last)
    left = left_over(holder[0])
    if left:
        _LOGGER.warning('deploy: left as they are: %s', ', '.join(left))
    return holder[0]


def left_over(model: nn.Module) -> list[str]:
    """What a deployed model still has of BatchNorm and of this package: the modules' names with their classes.

    Example:
        >>> left_over(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
        ['1 (BatchNorm2d)']
    """
    return [f'{name or "the model"} ({type(module).__name__})' for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) or 'BatchNorm' in type(module).__name__  # by name: mmcv and mmdet have others
            or 'mmtied' in packages(module)]


def _replace(parent: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace every module below a parent for which `make` gives another one, the outermost first; shared ones stay shared."""
    made: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> None:
        for name, child in module._modules.items():
            if child is None:
                continue
            if child not in made:
                new = make(child)
                made[child] = child if new is None else new
                if new is None:
                    visit(child)
            module._modules[name] = made[child]

    visit(parent)


def _as_graph(module: nn.Module) -> nn.Module | None:
    """A backbone, or another module of a class of this package, as a folded graph; None for others, and where that fails."""
    if not _is_ours(module) and '.models.backbones.' not in type(module).__module__:
        return None
    try:
        graph = fold_graph(flatten(module))
    except UnreadableError:
        return None
    return graph if _is_ours(module) or is_plain(graph) else None


def _without_norm(module: nn.Module) -> nn.Module | None:
    """A ConvModule of mmcv with a normalisation as convolution and activation; None for others, and where it would stay.

    A caller that asks the ConvModule to leave out its normalisation or activation gets an error, not another result.
    """
    kind = type(module)
    if f'{kind.__module__}.{kind.__name__}' != 'mmcv.cnn.bricks.conv_module.ConvModule' or module.norm is None:
        return None
    graph = fold_graph(flatten(nn.Sequential(module)))  # a Sequential calls it with one input, as networks do
    if any(layer is module.norm for layer in graph.modules()):
        return None
    start, *calls, end = graph.graph.nodes
    chained = all(node.op == 'call_module' and node.args == (before, )
                  for node, before in zip(calls, (start, *calls), strict=False)) and end.args == (calls[-1], )
    layers = [graph.get_submodule(node.target) for node in calls if node.op == 'call_module']
    if not chained:
        return graph
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.split('.')[0] == 'mmtied'


def _is_channels_last(parameter: nn.Parameter) -> bool:
    return (parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
            and not parameter.is_contiguous())
