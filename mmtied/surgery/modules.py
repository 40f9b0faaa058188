"""Read the forward of a module as a graph of calls with torch.fx, and copy a model or replace its modules.

The graph shows the order in which layers run, wherever they are registered, and runs without the classes it was traced from.
"""

import inspect
import operator
import sys
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, fx, nn

#: Errors of tracing: torch.fx's own, and those of Python code that receives a placeholder instead of a tensor.
_UNREADABLE = (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, AssertionError,
               IndexError, KeyError, NameError)


def trace(module: nn.Module, is_leaf: Callable[[nn.Module], bool] | None = None) -> fx.Graph | None:
    """Return the graph of calls in a module's forward, or None if it cannot be traced, for example if tensor values steer it.

    Each submodule that cannot be traced, is altered, is from torch.nn, or is chosen by `is_leaf` is one step of the graph.
    Optional arguments take their defaults.

    Example:
        >>> graph = trace(nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))
        >>> [str(node.target) for node in graph.nodes if node.op == 'call_module']
        ['0.0', '0.1']
    """
    try:
        graph = _Tracer(is_leaf).trace(module)
    except _UNREADABLE:
        return None
    graph._tracer_cls = None  # a pickled graph would need this package
    next(iter(reversed(graph.nodes))).type = None  # an annotation that TorchScript may not know: tuple[Tensor, ...]
    return graph


def has_one_graph(module: nn.Module) -> bool:
    """Return True if a module is not altered and its forward has no optional arguments, which could change the graph."""
    arguments = inspect.signature(type(module).forward).parameters.values()
    return not is_altered(module) and all(argument.default is argument.empty and argument.kind not in (
        argument.VAR_POSITIONAL, argument.VAR_KEYWORD) for argument in arguments)


def is_altered(module: nn.Module) -> bool:
    """Return True if a module may compute something other than its class does: it has hooks, computed weights or its own forward.

    Example:
        >>> is_altered(nn.Conv2d(1, 1, 1)), is_altered(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1)))
        (False, True)
    """
    return bool(module._forward_pre_hooks or module._forward_hooks or hasattr(module, 'parametrizations')
                or 'forward' in vars(module))


def is_plain(module: nn.Module) -> bool:
    """Return True if a module and all its submodules need only torch and the standard library.

    Example:
        >>> is_plain(nn.Sequential(nn.Conv2d(1, 1, 1)))
        True
    """
    return all(packages(part) <= {'torch', *sys.stdlib_module_names} for part in module.modules())


def packages(module: nn.Module) -> set[str]:
    """Return the packages of a module's class and base classes; the class of a parametrized layer is torch's, its base is not."""
    return {kind.__module__.partition('.')[0] for kind in type(module).__mro__}


def make_conv(weight: Tensor, bias: Tensor | None, like: nn.Module, groups: int = 1,
              kind: Callable[..., nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """Return a Conv2d with copies of the weight and bias, and the stride, padding and dilation of another convolution."""
    conv = kind(in_channels=weight.size(1) * groups, out_channels=weight.size(0), kernel_size=tuple(weight.shape[2:]),
                stride=like.stride, padding=like.padding, dilation=like.dilation, groups=groups, bias=bias is not None,
                padding_mode=getattr(like, 'padding_mode', 'zeros'), device='meta')
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def copy_model(model: nn.Module) -> nn.Module:
    """Copy a model, including weights that are computed from others (pruning, weight norm), which deepcopy rejects."""
    computed = [value for module in model.modules() for value in vars(module).values()
                if isinstance(value, torch.Tensor) and not value.is_leaf]
    return deepcopy(model, {id(value): value.detach().clone() for value in computed})


def replace_modules(parent: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace each module below a parent by `make(module)`, outermost first, unless that is None; shared modules stay shared.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
        >>> replace_modules(net, {net[0][0]: nn.Identity()}.get)
        >>> net[0][0], net[1]
        (Identity(), ReLU())
    """
    made: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> None:
        for name, child in module._modules.items():
            if child is None:
                continue
            if child not in made:
                new = make(child)
                made[child] = child if new is None else new
                if made[child] is child:
                    visit(child)
            if made[child] is not child:
                module._modules[name] = made[child]

    visit(parent)


def is_channels_last(parameter: nn.Parameter) -> bool:
    """Return whether a 4-dimensional weight is channels_last and not contiguous."""
    return (parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
            and not parameter.is_contiguous())


class _Tracer(fx.Tracer):
    """Trace into every module that is not torch's own, if possible."""

    def __init__(self, is_leaf: Callable[[nn.Module], bool] | None) -> None:
        super().__init__()
        self._is_leaf = is_leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_altered(m) or super().is_leaf_module(m, module_qualified_name) or bool(self._is_leaf and self._is_leaf(m))

    def create_proxy(self, kind: str, target: object, args: tuple, kwargs: dict, *more: object, **names: object) -> object:
        """Return ``x.shape[2:]`` as height and width, so that ``x.view(n, c, *x.shape[2:])`` works."""
        if target is operator.getitem and isinstance(args[0], fx.proxy.Attribute) and args[0].attr == 'shape' \
                and args[1] == slice(2, None):
            return args[0][2], args[0][3]
        return super().create_proxy(kind, target, args, kwargs, *more, **names)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        last, stack = next(iter(reversed(self.graph.nodes))), self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except _UNREADABLE:  # undo, and record the module as one step
            self.module_stack = stack
            while (node := next(iter(reversed(self.graph.nodes)))) is not last:
                self.graph.erase_node(node)
            return self.create_proxy('call_module', self.path_of_module(m), args, kwargs)
