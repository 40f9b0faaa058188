"""Normalisations are folded in modules that keep their class, where the module alone calls the two layers.

The order is read from the forward of the module that calls both. The layers must be nobody else's: not also in a module whose
inside that order does not show, and not called by a module further up beside the one that holds them.
"""

from collections.abc import Iterator

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .flatten import UnreadableError, is_see_through, read_order
from .fold_graph import count_uses, find_folds

#: Modules that hold others for someone else to call.
_LISTS = (nn.ModuleList, nn.ModuleDict)


def fold_children(holder: nn.Module) -> None:
    """Fold what can be folded in every module of a model: an Identity takes the place of the normalisation.

    Layers that are called more than once are left alone, since the calls could not be told apart.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> fold_children(net)
        >>> net[1]
        Identity()
    """
    orders: dict[nn.Module, fx.Graph | None] = {}
    for module in list(holder.modules()):
        if isinstance(module, (fx.GraphModule, *_LISTS)) or not any(isinstance(part, _BatchNorm) for part in _called_by(module)):
            continue
        graph = _order(module, whole=True)
        if graph is None:
            continue
        before = dict(module.named_modules(remove_duplicate=False))
        for norm, convs in find_folds(graph, module):
            targets = [norm.target, *(node.target for node in convs)]
            if all(count_uses(graph, target) == 1 for target in targets) and _alone(module, targets, holder, orders):
                new = {module.get_submodule(node.target): folded for node, folded in convs.items()}
                _exchange(module, {**new, module.get_submodule(norm.target): nn.Identity()})
        if _order(module, whole=True) is None:  # it calls a layer by another way than its children, such as a list of Python
            for name, child in module.named_modules(remove_duplicate=False):
                if child is not before[name]:
                    module.set_submodule(name, before[name])


def _alone(module: nn.Module, targets: list[str], holder: nn.Module, orders: dict[nn.Module, fx.Graph | None]) -> bool:
    """Whether no module but this one can call some of its layers, as far as the forwards above it show."""
    layers = {module.get_submodule(target) for target in targets}
    named = dict(holder.named_modules(remove_duplicate=False))
    above = set()
    for name in (name for name, part in named.items() if part in layers):
        owners = [named[owner] for owner in _owners(name)]
        if module not in owners:
            return False
        place = owners.index(module)
        if not all(isinstance(owner, _LISTS) or is_see_through(owner) for owner in owners[:place]):
            return False
        above.update(owners[place + 1:])
    for other in above - {module}:
        if other not in orders:
            orders[other] = _order(other, whole=False)
        if orders[other] is not None and any(_uses(node, other, layers) and not _through(node, other, module)
                                             for node in orders[other].nodes):
            return False
    return True


def _owners(name: str) -> Iterator[str]:
    """The names of what holds a module, the closest first, and the whole last."""
    while name:
        name = name.rpartition('.')[0]
        yield name


def _uses(node: fx.Node, root: nn.Module, layers: set[nn.Module]) -> bool:
    """Whether a node calls one of the layers, or reads a weight of it."""
    if node.op == 'get_attr':
        return root.get_submodule(node.target.rpartition('.')[0]) in layers
    return node.op == 'call_module' and root.get_submodule(node.target) in layers


def _through(node: fx.Node, root: nn.Module, module: nn.Module) -> bool:
    """Whether a node was read inside a module."""
    return any(root.get_submodule(name) is module for name, _ in node.meta.get('nn_module_stack', {}).values())


def _order(module: nn.Module, whole: bool) -> fx.Graph | None:
    try:
        return read_order(module, whole)
    except UnreadableError:
        return None


def _exchange(module: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    for name, part in list(module.named_modules(remove_duplicate=False)):  # under all its names
        if part in new:
            module.set_submodule(name, new[part])


def _called_by(module: nn.Module) -> Iterator[nn.Module]:
    """A module's children, and those of lists among them."""
    for child in module.children():
        if isinstance(child, _LISTS):
            yield from _called_by(child)
        else:
            yield child
