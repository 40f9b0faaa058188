"""A module as a graph of torch's own operations, read from its forward by torch.fx.

The graph says in which order layers run, whatever they are called and wherever they are registered, and it runs without the
classes that it was read from.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .fold_norm import is_altered

#: What reading a forward raises: torch.fx's own errors, and those of Python code that meets a placeholder for a tensor.
_UNREADABLE = (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, AssertionError,
               IndexError, KeyError, NameError)


class UnreadableError(ValueError):
    """A module whose forward torch.fx cannot read, for example because it decides by the values of a tensor."""


def flatten(module: nn.Module) -> fx.GraphModule:
    """The graph of a module, down to the layers of torch.nn; a submodule that cannot be read stays in it as it is.

    The names of the layers stay as they are, and so do the keys of the state_dict.

    Raises:
        UnreadableError: The module's own forward cannot be read.

    Example:
        >>> graph = flatten(nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))
        >>> [str(node.target) for node in graph.graph.nodes if node.op == 'call_module']
        ['0.0', '0.1']
    """
    _check_readable(module)
    graph = _trace(_Reader(), module)
    return fx.GraphModule(module, graph)


def read_order(module: nn.Module, whole: bool = True) -> fx.Graph:
    """In which order a module calls its children, and theirs where these are lists of modules.

    Args:
        module: Any module.
        whole: Whether all that the module may do must be in the graph; what it does for some arguments is enough otherwise.

    Raises:
        UnreadableError: The module's forward cannot be read.
    """
    if whole:
        _check_readable(module)
    return _trace(_ChildReader(), module)


def is_see_through(module: nn.Module) -> bool:
    """Whether a module only calls others as its own graph says, so that their order is that of the caller."""
    return type(module) is nn.Sequential or isinstance(module, fx.GraphModule)


def is_plain(module: nn.Module) -> bool:
    """Whether a module and all its submodules are torch's own.

    Example:
        >>> is_plain(nn.Sequential(nn.Conv2d(1, 1, 1)))
        True
    """
    return all(packages(part) <= {'torch', *sys.stdlib_module_names} for part in module.modules())


def packages(module: nn.Module) -> set[str]:
    """The packages of a module's class and of its parents: weight_norm gives a layer a class of torch, below the layer's own."""
    return {kind.__module__.partition('.')[0] for kind in type(module).__mro__}


def _check_readable(module: nn.Module) -> None:
    """An argument that may be left out has one graph with it and another without; what was altered is not in the class."""
    arguments = inspect.signature(type(module).forward).parameters.values()
    optional = [argument.name for argument in arguments
                if argument.default is not argument.empty or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)]
    if optional:
        raise UnreadableError(f'{type(module).__name__}: its forward has optional arguments: {", ".join(optional)}')
    if is_altered(module):
        raise UnreadableError(f'{type(module).__name__}: it has hooks, computed weights, or a forward of its own')


def _trace(reader: fx.Tracer, module: nn.Module) -> fx.Graph:
    try:
        graph = reader.trace(module)
    except _UNREADABLE as error:
        raise UnreadableError(f'{type(module).__name__}: torch.fx cannot read its forward: {error}') from error
    _erase_questions(graph)
    graph._tracer_cls = None  # pickles would name the reader's class, and need this package
    next(iter(reversed(graph.nodes))).type = None  # the forward's annotation, which TorchScript may not know: tuple[Tensor, ...]
    return graph


class _Reader(fx.Tracer):
    """Reads through every module that is not torch's own, where it can.

    Questions about where and how a tensor lies in memory choose between ways to compute the same, so any answer is right.
    """

    def to_bool(self, obj: fx.Proxy) -> bool:
        if obj.node.target in (operator.eq, operator.ne) and _is_layout(obj.node.args[0]):
            return False  # not on the CPU, and no other format than the one that the code expects
        return obj.node.target == 'is_contiguous' or super().to_bool(obj)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_altered(m) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        rewritten = _FORWARDS.get(f'{type(m).__module__}.{type(m).__qualname__}')
        before, stack = next(iter(reversed(self.graph.nodes))), self.module_stack.copy()
        try:
            return super().call_module(m, forward if rewritten is None else partial(rewritten, m), args, kwargs)
        except _UNREADABLE:  # as if it had not been entered
            self.module_stack = stack
            for node in _after(self.graph, before):
                self.graph.erase_node(node)
            return self.create_proxy('call_module', self.path_of_module(m), args, kwargs)


class _ChildReader(fx.Tracer):
    """Reads one forward, in which a module is a single step unless it only calls others in a row."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_altered(m) or not is_see_through(m)


def _is_layout(value: object) -> bool:
    """Whether a node is a tensor's device, the type of one, or a stride."""
    if not isinstance(value, fx.Node):
        return False
    return value.target == 'stride' or (value.target is getattr and value.args[1] in ('device', 'type'))


def _erase_questions(graph: fx.Graph) -> None:
    """Drop what was asked about layouts and is used no more, so that nobody but the next layer seems to need a tensor."""
    for node in reversed(list(graph.nodes)):
        asked = _is_layout(node) or node.target == 'is_contiguous' or (
            node.target in (operator.eq, operator.ne) and _is_layout(node.args[0]))
        if asked and not node.users:
            graph.erase_node(node)


def _after(graph: fx.Graph, last: fx.Node) -> Iterable[fx.Node]:
    """The nodes after one, last first."""
    nodes = []
    for node in reversed(graph.nodes):
        if node is last:
            break
        nodes.append(node)
    return nodes


def _splits(module: nn.Module, x: Tensor) -> Tensor:
    """`TiedSplits`, whose loop over the chunks of a tensor cannot be read."""
    parts = x.chunk(len(module.convs), 1)
    return module.activate(module.norm(torch.cat([conv(parts[index]) for index, conv in enumerate(module.convs)], 1)))


def _mixer(module: nn.Module, x: Tensor) -> Tensor:
    """`SplitMixer`, without shapes."""
    fused = x.unflatten(1, (module.splits, -1)).sum(1) if module.fusion == 'sum' else x
    return torch.cat([x, module.reduce(module.mix(fused))], 1)


def _add_back(module: nn.Module, x: Tensor) -> Tensor:
    """`AddBackMixer`, without shapes."""
    parts = x.unflatten(1, (module.splits, -1))
    return (parts + module.mix(parts.sum(1)).unsqueeze(1)).flatten(1, 2)


def _split_attention(module: nn.Module, x: Tensor) -> Tensor:
    """`SplitAttentionConv2d` of mmdet and mmpretrain, without shapes."""
    x = module.relu(module.norm0(module.conv(x)))
    splits = x.unflatten(1, (module.radix, -1))
    gap = module.relu(module.norm1(module.fc1(F.adaptive_avg_pool2d(splits.sum(1), 1))))
    attention = module.fc2(gap).flatten(1)
    if module.radix == 1:
        return torch.sigmoid(attention)[..., None, None] * x
    attention = attention.unflatten(1, (module.groups, module.radix, -1)).transpose(1, 2).softmax(1)
    return (splits * attention.flatten(2)[..., None, None]).sum(1)


#: Forwards that torch.fx cannot read, as it can; each computes the same as the one of the class.
_FORWARDS = {
    'mmtied.backbones.tied_bottleneck.TiedSplits': _splits,
    'mmtied.backbones.tied_bottleneck.SplitMixer': _mixer,
    'mmtied.backbones.tied_bottleneck.AddBackMixer': _add_back,
    'mmdet.models.backbones.resnest.SplitAttentionConv2d': _split_attention,
    'mmpretrain.models.backbones.resnest.SplitAttentionConv2d': _split_attention,
}
