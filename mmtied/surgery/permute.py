"""Permute the channels between convolutions so that the blocks of a layer to be tied are more alike.

If every layer that touches the channels follows, as inside a residual branch, the outputs stay the same, but the distance of a
layer to the nearest tied one changes.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .modules import has_one_graph, is_altered, trace

_ELEMENTWISE = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish,
                nn.Sigmoid, nn.Tanh)
_FUNCTIONS = (F.relu, torch.relu, 'relu', 'relu_')
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Space(NamedTuple):
    """Channels that only these layers touch: the convolution before, per-channel layers between, and the convolutions after."""

    before: nn.Conv2d
    between: list[nn.Module]
    after: list[nn.Conv2d]

    def reorder(self, order: Tensor) -> None:
        """Permute the channels: channel i becomes the former channel ``order[i]``."""
        for layer in (self.before, *self.between):
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.dim() and len(tensor) == len(order):  # not num_batches_tracked or the gates of a DGConv
                    tensor.data.copy_(tensor.data[order.to(tensor.device)])
        for layer in self.after:
            layer.weight.data.copy_(layer.weight.data[:, order.to(layer.weight.device)])


@torch.no_grad()
def permute_alike(model: nn.Module, num_blocks: int, layers: Collection[nn.Module]) -> int:
    """Reorder channels inside a model, in place, so that the blocks of layers to be tied are more alike; outputs do not change.

    Three rounds visit each space of channels and apply the greedy order if it helps. Parts that cannot be traced are skipped.
    Returns the number of spaces next to a layer to be tied.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> x = torch.rand(1, 4, 5, 5)
        >>> before = model(x)
        >>> permute_alike(model, 2, [model[0], model[2]])
        1
        >>> torch.allclose(model(x), before, atol=1e-6)
        True
    """
    chosen = {id(layer) for layer in layers}
    spaces = [space for space in find_spaces(model) if space.before.out_channels % num_blocks == 0
              and chosen & {id(layer) for layer in (space.before, *space.after)}]
    for _ in range(3):
        for space in spaces:
            weights = [layer.weight if layer is space.before else layer.weight.transpose(0, 1)
                       for layer in (space.before, *space.after) if id(layer) in chosen]
            vectors = torch.cat([weight.double().unflatten(1, (num_blocks, -1)).flatten(2) for weight in weights], 2)
            order = _greedy_order(vectors)
            if _kept(vectors[order]) > _kept(vectors) * (1 + 1e-9):
                space.reorder(order)
    return len(spaces)


def find_spaces(model: nn.Module) -> Iterator[Space]:
    """Yield the channel spaces of a model that can be reordered."""
    owners = Counter(id(weight) for module in model.modules() for weight in module._parameters.values() if weight is not None)
    for module, graph in _graphs(model):
        called = {node: module.get_submodule(node.target) for node in graph.nodes if node.op == 'call_module'}
        calls = Counter(map(id, called.values()))
        single = {node: layer for node, layer in called.items() if isinstance(layer, _ELEMENTWISE) or calls[id(layer)] == 1
                  and all(owners[id(weight)] == 1 for weight in layer.parameters())}
        for node, layer in single.items():
            if _is_dense(layer):
                space = Space(layer, [], [])
                if _follow(node, single, space) and space.after:
                    yield space


def _graphs(module: nn.Module, is_root: bool = True) -> Iterator[tuple[nn.Module, fx.Graph]]:
    """Yield the outermost parts of a model with one graph, except inner containers, whose layers may be called separately."""
    whole = is_root or not isinstance(module, _CONTAINERS)
    graph = trace(module) if whole and has_one_graph(module) and next(module.children(), None) is not None else None
    if graph is not None:
        yield module, graph
    elif not is_altered(module):
        for child in module.children():
            yield from _graphs(child, is_root=False)


def _follow(node: fx.Node, single: dict[fx.Node, nn.Module], space: Space) -> bool:
    """Add the layers that use a node's output to a space; return False if anything else uses it."""
    for user in node.users:
        layer = single.get(user)
        if user.all_input_nodes != [node]:
            return False
        if layer is not None and _is_dense(layer):
            space.after.append(layer)
        elif user.target in _FUNCTIONS or isinstance(layer, _ELEMENTWISE) and not is_altered(layer):
            if not _follow(user, single, space):
                return False
        elif layer is not None and _is_per_channel(layer):
            space.between.append(layer)
            if not _follow(user, single, space):
                return False
        else:
            return False
    return True


def _is_dense(layer: nn.Module) -> bool:
    return is_plain_conv(layer) and layer.groups == 1 and not is_altered(layer)


def is_plain_conv(layer: nn.Module) -> bool:
    """Return whether a layer is torch's or mmcv's Conv2d itself; a subclass may do more."""
    kind = type(layer)
    return kind is nn.Conv2d or (kind.__name__, kind.__module__) == ('Conv2d', 'mmcv.cnn.bricks.wrappers')


def _is_per_channel(layer: nn.Module) -> bool:
    depthwise = is_plain_conv(layer) and layer.groups == layer.in_channels == layer.out_channels
    return not is_altered(layer) and (isinstance(layer, _BatchNorm) or depthwise)


def _kept(vectors: Tensor) -> float:
    """Compute the squared norm that tying preserves, times B, for channels (C, B, weights) split into B blocks in order."""
    count = vectors.shape[1]
    blocks = vectors.unflatten(0, (count, -1))  # (B, C / B, B, weights)
    return float(sum(blocks[block, :, block] for block in range(count)).square().sum())


def _greedy_order(vectors: Tensor) -> Tensor:
    """Order C channels (C, B, weights) greedily, so that those in the same place of each block have the largest summed norm."""
    channels, count, _ = vectors.shape
    if count == 1:
        return torch.arange(channels, device=vectors.device)
    places, squares = channels // count, vectors.square().sum(2)
    gains = squares[:, 0, None] + squares[:, 1] + 2 * vectors[:, 0] @ vectors[:, 1].T
    gains.fill_diagonal_(-torch.inf)
    order = torch.empty(count, places, dtype=torch.long, device=vectors.device)
    free = torch.ones(channels, dtype=torch.bool, device=vectors.device)
    for place in range(places):
        pair = list(divmod(int(gains.argmax()), channels))
        order[0, place], order[1, place] = pair
        gains[pair] = gains[:, pair] = -torch.inf
        free[pair] = False
    sums = vectors[order[0], 0] + vectors[order[1], 1]
    for block in range(2, count):
        gains = squares[:, block, None] + 2 * vectors[:, block] @ sums.T
        gains[~free] = -torch.inf
        for _ in range(places):
            channel, place = divmod(int(gains.argmax()), places)
            order[block, place] = channel
            gains[channel] = gains[:, place] = -torch.inf
            free[channel] = False
        sums = sums + vectors[order[block], block]
    return order.flatten()
