"""Normalisations that a graph shows to follow a convolution are folded into it.

A normalisation is folded where the graph proves that it takes the output of the convolution and that nothing else does. Between
the two the channels may be joined with those of other convolutions, or put into another order.
"""

from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from .fold_norm import Affine, affine_of, fold, is_foldable, is_foldable_norm


class Fold(NamedTuple):
    """A normalisation, and the convolutions that take it over: graph nodes, and what each becomes."""

    norm: fx.Node
    convs: dict[fx.Node, nn.Module]


def find_folds(graph: fx.Graph, root: nn.Module) -> list[Fold]:
    """Every normalisation of a graph that can be folded.

    Args:
        graph: What `flatten` or `read_order` read.
        root: The module that holds the layers that the graph calls.
    """
    folds = []
    for node in graph.nodes:
        norm = _calls(node, root)
        if norm is not None and is_foldable_norm(norm) and node.args and isinstance(node.args[0], fx.Node):
            convs = _push(affine_of(norm), node.args[0], root)
            if convs is not None:
                folds.append(Fold(node, convs))
    return folds


def fold_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Fold what can be folded in a graph, which is changed in place; each convolution keeps its name where it has one call.

    Example:
        >>> from mmtied.surgery.flatten import flatten
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> [name for name, _ in fold_graph(flatten(net)).named_children()]
        ['0', '2']
    """
    for norm, convs in find_folds(module.graph, module):
        for node, folded in convs.items():
            node.target = _free_name(module, node)
            module.set_submodule(node.target, folded)
        norm.replace_all_uses_with(norm.args[0])
        module.graph.erase_node(norm)
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _push(affine: Affine, node: fx.Node, root: nn.Module) -> dict[fx.Node, nn.Module] | None:
    """What the convolutions that a node's channels come from become when they take over a scale and shift of these channels."""
    if len(node.users) != 1:
        return None
    layer = _calls(node, root)
    if layer is not None:
        return {node: fold(layer, affine)} if is_foldable(layer) and layer.out_channels == len(affine.scale) else None
    if not node.args:
        return None
    order = _selected(node, root)
    if order is not None:
        return _push(affine.take(order.argsort()), node.args[0], root)
    parts = _joined(node, root)
    if parts is None or sum(parts.values()) != len(affine.scale):
        return None
    folded, start = {}, 0
    for part, channels in parts.items():
        convs = _push(affine.take(slice(start, start + channels)), part, root)
        if convs is None:
            return None
        folded.update(convs)
        start += channels
    return folded


def _calls(node: fx.Node, root: nn.Module) -> nn.Module | None:
    return root.get_submodule(node.target) if node.op == 'call_module' else None


def _selected(node: fx.Node, root: nn.Module) -> Tensor | None:
    """The order of an index_select that puts all channels into another order."""
    if node.op != 'call_method' or node.target != 'index_select' or len(node.args) != 3 or node.args[1] != -3:
        return None
    if not isinstance(node.args[2], fx.Node) or node.args[2].op != 'get_attr':
        return None
    holder, _, name = node.args[2].target.rpartition('.')
    order = getattr(root.get_submodule(holder), name)
    return order if torch.equal(order.sort()[0], torch.arange(len(order), device=order.device)) else None


def _joined(node: fx.Node, root: nn.Module) -> dict[fx.Node, int] | None:
    """The inputs of a torch.cat along the channels, and how many each has; None unless all are layers that fix it."""
    if node.op != 'call_function' or node.target is not torch.cat or node.kwargs.get('dim', (*node.args, 0)[1]) != 1:
        return None
    if not isinstance(node.args[0], (list, tuple)) or not all(isinstance(part, fx.Node) for part in node.args[0]):
        return None
    layers = {part: _calls(part, root) for part in node.args[0]}
    known = len(layers) == len(node.args[0]) and all(layer is not None and is_foldable(layer) for layer in layers.values())
    return {part: layer.out_channels for part, layer in layers.items()} if known else None


def count_uses(graph: fx.Graph, target: str) -> int:
    """How often a graph calls a layer, or reads a weight of it."""
    return sum((node.op == 'call_module' and node.target == target)
               or (node.op == 'get_attr' and node.target.startswith(f'{target}.')) for node in graph.nodes)


def _free_name(module: fx.GraphModule, node: fx.Node) -> str:
    """The layer's own name, or a new one where others call it too: the graph, or a module that is one step of the graph."""
    inside = any(other.op == 'call_module' and _lies_below(node.target, other.target) for other in module.graph.nodes)
    if not inside and count_uses(module.graph, node.target) == 1:
        return node.target
    names = {name for name, _ in module.named_modules()}
    stem = node.target.replace('.', '_') if inside else node.target
    return next(name for name in (f'{stem}_{index}' for index in range(1, len(names) + 2)) if name not in names)


def _lies_below(name: str, other: str) -> bool:
    return name.startswith(f'{other}.')
