"""Convert a trained model for inference: BatchNorm folded, tied layers replaced by plain convolutions.

Four steps change a copy of the model:

1. Layers of this package become layers of torch.nn (`plain_layers`).
2. Backbones, and other classes of this package, become graphs of torch.nn layers, which run without their classes. Each
   BatchNorm is folded into the convolution before it in the graph (`fold`).
3. Each mmcv ConvModule becomes its folded convolution and its activation.
4. All other modules keep their classes; in them an Identity replaces each folded BatchNorm.

Unlike mmcv's fuse_conv_bn, which follows the order of registration, this follows the order of execution.
"""

import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.layers import DGConv

from .fold import as_folded_graph, fold_in_place
from .freeze_groups import freeze_groups
from .modules import copy_model, is_channels_last, is_plain, packages, replace_modules
from .plain_layers import plain_layer

_LOGGER = logging.getLogger(__name__)


@torch.no_grad()
def deploy(model: nn.Module) -> nn.Module:
    """Return a copy of a model for inference, with the same outputs.

    The copy folds each BatchNorm (or SyncBatchNorm) into the convolution before it, and replaces layers of this package by
    torch.nn layers. Its backbone is a graph that runs, compiles, exports and pickles without this package; necks and heads keep
    their classes. GroupNorm and LayerNorm stay.

    Tied convolutions become grouped ones, so a deployed model can have more weights than the tied one. Tied linear layers stay
    tied, and filters combined from a basis stay two convolutions if that takes fewer multiply-adds. The model computes in the
    memory format of its weights; on CPUs channels_last is faster: ``deploy(model).to(memory_format=torch.channels_last)``.

    The current groups of each `DGConv` are frozen, as by `freeze_groups`.

    Args:
        model: A detector, classifier, backbone or any other module, in training or evaluation mode. It is not changed.

    Returns:
        The copy, in evaluation mode and without gradients. Its backbone has the same outputs as the model's but none of its
        methods and settings. A warning in the log names modules that could not be folded or replaced.

    Raises:
        ValueError: The argument is not a module.

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
    holder = nn.Sequential(copy_model(model))  # so that replace_modules can replace the model itself too
    holder.eval()
    holder.requires_grad_(False)
    channels_last = any(is_channels_last(parameter) for parameter in holder.parameters())
    for module in holder.modules():
        if getattr(module, 'with_cp', False):
            module.with_cp = False  # it reads requires_grad of inputs, which cannot be traced
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            module.efficient_conv_bn_eval_forward = None  # it hides mmcv's normalization from the graph
        if _is_ours(module) and getattr(module, 'memory_format', None) is not None:
            module.memory_format = None  # the graph follows the format of its weights
    if any(isinstance(module, DGConv) for module in holder.modules()):
        freeze_groups(holder)
    for replacement in (plain_layer, _as_plain_graph, _without_norm):
        replace_modules(holder, replacement)
    deployed = holder[0]
    fold_in_place(deployed)
    deployed.eval()
    deployed.requires_grad_(False)
    if channels_last:
        deployed.to(memory_format=torch.channels_last)
    left = left_over(deployed)
    if left:
        _LOGGER.warning('deploy: left as they are: %s', ', '.join(left))
    return deployed


def left_over(model: nn.Module) -> list[str]:
    """Return the BatchNorm layers and the modules of this package in a deployed model, by name and class.

    Example:
        >>> left_over(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
        ['1 (BatchNorm2d)']
    """
    return [f'{name or "the model"} ({type(module).__name__})' for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) or 'BatchNorm' in type(module).__name__  # by name: mmcv and mmdet have others
            or 'mmtied' in packages(module)]


def _as_plain_graph(module: nn.Module) -> nn.Module | None:
    """Return a backbone, or a module of this package, as a folded graph; None for other modules and untraceable ones.

    Also None for another package's backbone whose graph would still need that package.
    """
    if not _is_ours(module) and '.models.backbones.' not in type(module).__module__:
        return None
    graph = as_folded_graph(module)
    return graph if graph is not None and (_is_ours(module) or is_plain(graph)) else None


def _without_norm(module: nn.Module) -> nn.Module | None:
    """Return the convolution and activation of an mmcv ConvModule with its normalization folded, or None if that fails.

    Callers that ask the ConvModule to skip its normalization or activation then get an error instead of a different result.
    """
    kind = type(module)
    if f'{kind.__module__}.{kind.__name__}' != 'mmcv.cnn.bricks.conv_module.ConvModule' or module.norm is None:
        return None
    graph = as_folded_graph(nn.Sequential(module))  # called with one input, as in networks
    if graph is None or any(layer is module.norm for layer in graph.modules()):
        return None
    start, *calls, _ = graph.graph.nodes
    inputs = [start, *calls]
    if not all(node.op == 'call_module' and node.args == (before, ) for node, before in zip(calls, inputs, strict=False)):
        return graph
    layers = [graph.get_submodule(node.target) for node in calls]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.partition('.')[0] == 'mmtied'
