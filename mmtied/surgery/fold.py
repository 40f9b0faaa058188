"""Fold BatchNorm, in evaluation mode a constant scale and shift of each channel, into the convolution before it.

The graph of a module that calls both layers must show that the convolution's output goes to the normalization and nowhere else.
In between, channels may be concatenated with those of other convolutions, or permuted.
"""

from copy import deepcopy

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from .modules import has_one_graph, is_altered, replace_modules, trace

#: Layers whose output is linear in weight and bias. nn.Linear is missing: its features are in the last dimension, but BatchNorm1d
#: normalizes the second one.
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Subclasses whose own forward is linear too: they only pad, or handle empty inputs.
_ALSO_LINEAR = ('mmcv.cnn.bricks.conv2d_adaptive_padding.Conv2dAdaptivePadding', 'mmcv.cnn.bricks.wrappers.Conv2d',
                'mmcv.cnn.bricks.wrappers.ConvTranspose2d')
#: Containers without a forward.
_LISTS = (nn.ModuleList, nn.ModuleDict)


def is_foldable_norm(module: nn.Module) -> bool:
    """Return True for a BatchNorm or SyncBatchNorm in evaluation mode, with running statistics.

    Subclasses with their own forward are excluded: they may do more than normalize, as timm's BatchNormAct2d does.
    """
    return (isinstance(module, _BatchNorm) and type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
            and not module.training and module.running_mean is not None and not is_altered(module))


def is_foldable(module: nn.Module) -> bool:
    """Return True for a convolution that can absorb a scale of each output channel.

    Convolutions that standardize or compute their weight (spectral norm), or have hooks or their own forward, cannot.
    """
    kind = type(module)
    if is_altered(module) or not isinstance(module, _LINEAR) or not isinstance(module._parameters.get('weight'), nn.Parameter):
        return False
    parent = next(base for base in _LINEAR if isinstance(module, base))
    same = all(getattr(kind, name, None) is getattr(parent, name, None) for name in ('forward', '_conv_forward'))
    return same or f'{kind.__module__}.{kind.__qualname__}' in _ALSO_LINEAR


def scale_and_shift(norm: _BatchNorm) -> Tensor:
    """Return the scale and shift of a BatchNorm in evaluation mode, shape (2, C), float64.

    Example:
        >>> norm = nn.BatchNorm2d(1, eps=0).eval()
        >>> _ = norm.running_mean.fill_(3), norm.running_var.fill_(4)
        >>> scale_and_shift(norm).flatten().tolist()
        [0.5, -1.5]
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return torch.stack([scale, shift if norm.bias is None else shift + norm.bias.detach().double()])


def fold(layer: nn.Module, norm: _BatchNorm | Tensor) -> nn.Module:
    """Return a convolution equal to a layer followed by a normalization, given as a module or as its scale and shift.

    Example:
        >>> conv, norm = nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8).eval()
        >>> _ = norm.running_mean.normal_()
        >>> x = torch.rand(1, 4, 5, 5)
        >>> torch.allclose(fold(conv, norm)(x), norm(conv(x)), atol=1e-6)
        True
    """
    scale, shift = norm if isinstance(norm, Tensor) else scale_and_shift(norm)
    folded = deepcopy(layer)
    weight, bias = layer.weight.detach(), layer.bias
    shape = [-1] + [1] * (weight.dim() - 1)
    if isinstance(layer, _ConvTransposeNd):  # (C_in, C_out / groups, ...): the groups of C_out lie along C_in
        by_group = weight.double().unflatten(0, (layer.groups, -1))
        new = (by_group * scale.view(layer.groups, 1, -1, *shape[2:])).flatten(0, 1)
    else:
        new = weight.double() * scale.view(shape)
    if bias is not None:
        shift = shift + scale * bias.detach().double()
    folded.weight = nn.Parameter(torch.empty_like(weight).copy_(new), requires_grad=False)
    folded.bias = nn.Parameter(shift.to(weight), requires_grad=False)
    return folded


def as_folded_graph(module: nn.Module) -> fx.GraphModule | None:
    """Return a module as a graph of its layers with normalizations folded, or None if it has no single graph.

    Layers keep their names, except folded convolutions that the graph also uses elsewhere.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> [name for name, _ in as_folded_graph(net).named_children()]
        ['0', '2']
    """
    graph = trace(module) if has_one_graph(module) else None
    if graph is None:
        return None
    result = fx.GraphModule(module, graph)
    for norm, convs in _find_folds(result.graph, result):
        for node, folded in convs.items():
            node.target = _own_name(result, node)
            result.add_submodule(node.target, folded)
        norm.replace_all_uses_with(norm.args[0])
        result.graph.erase_node(norm)
    result.delete_all_unused_submodules()
    result.recompile()
    return result


def fold_in_place(model: nn.Module) -> None:
    """Fold normalizations in modules that keep their class; an Identity replaces each folded one.

    Two layers are folded if the graph of one module shows every call of both.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> fold_in_place(net)
        >>> net[1]
        Identity()
    """
    for module in list(model.modules()):
        if isinstance(module, (fx.GraphModule, *_LISTS)) or not any(isinstance(part, _BatchNorm) for part in module.modules()):
            continue
        graph = _trace_alone(module)
        if graph is None:
            continue
        originals = {}
        for norm, convs in _find_folds(graph, module):
            targets = [norm.target, *(node.target for node in convs)]
            if all(_count_uses(graph, target) == 1 for target in targets) and _is_only_caller(module, graph, targets, model):
                new = {module.get_submodule(node.target): folded for node, folded in convs.items()}
                new[module.get_submodule(norm.target)] = nn.Identity()
                replace_modules(module, new.get)
                originals.update((after, before) for before, after in new.items())
        if _calls_of(_trace_alone(module)) != _calls_of(graph):  # it calls a replaced layer by another reference
            replace_modules(module, originals.get)


def _find_folds(graph: fx.Graph, root: nn.Module) -> list[tuple[fx.Node, dict[fx.Node, nn.Module]]]:
    """Return each normalization of a graph that can be folded, with the folded convolutions that replace those before it.

    `root` contains the layers that the graph calls.
    """
    folds = []
    for node in graph.nodes:
        norm = _layer(node, root)
        if norm is not None and is_foldable_norm(norm) and node.args and isinstance(node.args[0], fx.Node):
            convs = _push(scale_and_shift(norm), node.args[0], root)
            if convs is not None:
                folds.append((node, convs))
    return folds


def _push(affine: Tensor, node: fx.Node, root: nn.Module) -> dict[fx.Node, nn.Module] | None:
    """Fold a scale and shift (2, C) of a node's channels into the convolutions that produce it; None if impossible."""
    if len(node.users) != 1:
        return None
    layer = _layer(node, root)
    if layer is not None:
        return {node: fold(layer, affine)} if is_foldable(layer) and layer.out_channels == affine.size(1) else None
    order = _order(node, root)
    if order is not None:
        return _push(affine[:, order.argsort()], node.args[0], root)
    parts = _joined(node, root)
    if parts is None or sum(parts.values()) != affine.size(1):
        return None
    folded = {}
    for part, channels in zip(parts, affine.split(list(parts.values()), dim=1), strict=True):
        convs = _push(channels, part, root)
        if convs is None:
            return None
        folded.update(convs)
    return folded


def _layer(node: fx.Node, root: nn.Module) -> nn.Module | None:
    return root.get_submodule(node.target) if node.op == 'call_module' else None


def _order(node: fx.Node, root: nn.Module) -> Tensor | None:
    """Return the indices of an index_select that permutes the channels."""
    if node.op != 'call_method' or node.target != 'index_select' or len(node.args) != 3 or node.args[1] != -3:
        return None
    if not isinstance(node.args[2], fx.Node) or node.args[2].op != 'get_attr':
        return None
    holder, _, name = node.args[2].target.rpartition('.')
    order = getattr(root.get_submodule(holder), name)
    return order if torch.equal(order.sort()[0], torch.arange(len(order), device=order.device)) else None


def _joined(node: fx.Node, root: nn.Module) -> dict[fx.Node, int] | None:
    """Return the inputs of a torch.cat along the channels, with the channels of each; None unless all are convolutions."""
    if node.op != 'call_function' or node.target is not torch.cat or node.kwargs.get('dim', (*node.args, 0)[1]) != 1:
        return None
    if not isinstance(node.args[0], (list, tuple)) or not all(isinstance(part, fx.Node) for part in node.args[0]):
        return None
    layers = {part: _layer(part, root) for part in node.args[0]}
    known = len(layers) == len(node.args[0]) and all(layer is not None and is_foldable(layer) for layer in layers.values())
    return {part: layer.out_channels for part, layer in layers.items()} if known else None


def _count_uses(graph: fx.Graph, target: str) -> int:
    """Return how often a graph calls a layer or reads one of its weights."""
    return sum((node.op == 'call_module' and node.target == target)
               or (node.op == 'get_attr' and node.target.startswith(f'{target}.')) for node in graph.nodes)


def _calls_of(graph: fx.Graph | None) -> list[tuple[str, object]]:
    return [] if graph is None else [(node.op, node.target) for node in graph.nodes]


def _is_inside_step(name: str, graph: fx.Graph) -> bool:
    """Return True if a layer is inside a module that is a single step of a graph."""
    return any(node.op == 'call_module' and name.startswith(f'{node.target}.') for node in graph.nodes)


def _own_name(module: fx.GraphModule, node: fx.Node) -> str:
    """Return the name of a node's layer, or a new name if the layer has other users."""
    if _count_uses(module.graph, node.target) == 1 and not _is_inside_step(node.target, module.graph):
        return node.target
    stem, names = node.target.replace('.', '_'), {name for name, _ in module.named_modules()}
    return next(name for name in (f'{stem}_{index}' for index in range(1, len(names) + 2)) if name not in names)


def _trace_alone(module: nn.Module) -> fx.Graph | None:
    """Trace a module, whose parts keep their classes; parts with optional arguments are leaves, as other callers may set them."""
    return trace(module, is_leaf=lambda part: not has_one_graph(part)) if has_one_graph(module) else None


def _is_only_caller(root: nn.Module, graph: fx.Graph, targets: list[str], model: nn.Module) -> bool:
    """Return True if, as far as graphs show, only the forward of `root` calls the targeted layers of a model."""
    layers = {root.get_submodule(target) for target in targets}
    named = dict(model.named_modules(remove_duplicate=False))
    for name in (name for name, part in named.items() if part in layers):
        owners = [owner for owner in _prefixes(name) if named[owner] is root]
        if not owners:
            return False
        inside = name.removeprefix(f'{owners[0]}.')
        between = [root.get_submodule(owner) for owner in _prefixes(inside) if owner]
        if _is_inside_step(inside, graph) or not (inside in targets or all(_only_holds(owner) for owner in between)):
            return False
    above = {named[owner] for name, part in named.items() if part is root for owner in _prefixes(name)} - {root}
    for module in above:
        calls = trace(module, is_leaf=lambda part: part is root or not _only_holds(part))
        if calls is not None and any(_used_by(node, module) in layers for node in calls.nodes):
            return False
    return True


def _only_holds(module: nn.Module) -> bool:
    """Return True for a container that cannot call its layers in another order."""
    return type(module) is nn.Sequential or isinstance(module, (fx.GraphModule, *_LISTS))


def _used_by(node: fx.Node, root: nn.Module) -> nn.Module | None:
    """Return the layer that a node calls or reads a weight of."""
    return root.get_submodule(node.target.rpartition('.')[0]) if node.op == 'get_attr' else _layer(node, root)


def _prefixes(name: str) -> list[str]:
    """Return the names of the modules that contain a module, the nearest first and '' last."""
    parts = name.split('.') if name else []
    return ['.'.join(parts[:count]) for count in reversed(range(len(parts)))]
