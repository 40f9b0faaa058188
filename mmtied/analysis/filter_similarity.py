"""Similarity of the filters of a layer: of what they respond to in images, and of their weights.

Wang & Yu, "Tied Block Convolution", AAAI 2021, Figures 1 and 9: the pattern of a filter is the gradient of its response with
respect to the image by guided backpropagation (Springenberg et al., "Striving for Simplicity", 2015), averaged over images;
two filters are as alike as the cosine of their patterns.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from mmtied.layers import TBC

#: Functions that networks call for their activations. Sigmoids and their like are gates, through which all gradients pass.
_ACTIVATIONS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_,
                F.leaky_relu, F.leaky_relu_, F.silu, F.hardswish, F.gelu, F.elu, F.elu_, F.celu, torch.celu_, F.selu, torch.selu_,
                F.mish, F.prelu, Tensor.prelu, F.rrelu, torch.rrelu_, F.softplus, F.threshold, torch.threshold_}
#: Activations that compute with other functions, by the names of their classes in mmcv, mmdet, mmpretrain and timm.
_ACTIVATION_CLASSES = {'Swish', 'SwishMe', 'SiLU', 'Mish', 'MishMe', 'HSwish', 'HardSwish', 'HardSwishMe', 'HardMish',
                       'HardMishMe', 'GELU', 'GELUTanh', 'QuickGELU', 'PReLU', 'Clamp', 'FusedBiasLeakyReLU'}
_GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softmax)
#: What is averaged over images.
AVERAGES = ('patterns', 'similarities')


class Layer(NamedTuple):
    """A layer of a network: one convolution, or parallel ones whose outputs are joined, as the splits of a tied bottleneck."""

    name: str
    modules: tuple[nn.Module, ...]


class _Reached(Exception):  # noqa: N818
    """Ends a forward pass behind the layer."""


class _GuidedMode(TorchFunctionMode):
    """Let only positive gradients enter the backward pass of activations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        output = func(*args, **(kwargs or {}))
        if func in _ACTIVATIONS and output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


@contextmanager
def guided_backprop(activations: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Make the gradients of what is computed in the block guided: a ReLU passes a gradient where it and its input are positive.

    Other modules can be named as activations too, beside those of PyTorch, mmcv and timm.

    Example:
        >>> x = torch.tensor([1., 2., -3.], requires_grad=True)
        >>> with guided_backprop():
        ...     (torch.relu(x) * torch.tensor([5., -5., 5.])).sum().backward()
        >>> x.grad
        tensor([5., 0., 0.])
    """
    others = set(activations)

    def guide(module: nn.Module, _: object, output: object) -> None:
        known = module in others or type(module).__name__ in _ACTIVATION_CLASSES
        if known and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))

    with nn.modules.module.register_module_forward_hook(guide), _GuidedMode():
        yield


def guided_patterns(model: nn.Module, layer: Layer, images: Tensor, channels: Sequence[int] | None = None) -> Tensor:
    """Return a guided gradient for each image and channel: that of the sum of the channel's positive outputs.

    Args:
        model: A network, which is left in evaluation mode; of one with `extract_feat` (mmdet, mmpretrain) only that runs.
        layer: The layer; each of its modules has to run, and to return (N, C, H, W).
        images: Normalized images, shape (N, 3, H, W).
        channels: Which of the layer's output channels, all by default.

    Returns:
        Shape (N, channels, 3, H, W).
    """
    images = images.detach().requires_grad_(True)
    patterns = []
    with torch.enable_grad(), guided_backprop(_conv_activations(model)):
        outputs = _outputs(model.eval(), layer, images)
        places = [(output, channel) for output in outputs for channel in range(output.shape[1])]
        for number in range(len(places)) if channels is None else channels:
            output, channel = places[number]
            patterns += torch.autograd.grad(output[:, channel].relu().sum(), images, retain_graph=True)
    return torch.stack(patterns, dim=1)


def count_channels(model: nn.Module, layer: Layer, images: Tensor) -> int:
    """Return the number of a layer's output channels; arguments and errors as for `guided_patterns`."""
    with torch.no_grad():
        return sum(output.shape[1] for output in _outputs(model.eval(), layer, images[:1]))


def guided_similarity(model: nn.Module, layer: Layer, batches: Iterable[Tensor], channels: Sequence[int] | None = None,
                      average: str = 'patterns') -> Tensor:
    """Return the cosine of the patterns of each two channels, shape (channels, channels).

    A channel without a pattern, which no image activates, has NaN; so have, with 'similarities', two that no image activates
    both.

    Args:
        model: The network.
        layer: The layer.
        batches: Normalized images, each of shape (N, 3, H, W); of one size where patterns are averaged.
        channels: Which output channels, all by default.
        average: 'patterns' averages the patterns over all images before they are compared, as the paper does;
            'similarities' compares them on each image and averages the cosines over the images that activate both channels.
    """
    if average not in AVERAGES:
        raise ValueError(f'filter similarity: average {average!r}, expected one of {", ".join(AVERAGES)}')
    total, count = 0., 0.
    for images in batches:
        patterns = guided_patterns(model, layer, images, channels)
        if average == 'patterns':
            total = total + patterns.sum(dim=0)
        else:
            cosines = torch.stack([cosine_matrix(one.flatten(1)) for one in patterns])
            total, count = total + cosines.nansum(dim=0), count + cosines.isfinite().sum(dim=0)
    return cosine_matrix(total.flatten(1)) if average == 'patterns' else total / count


def cosine_matrix(rows: Tensor) -> Tensor:
    """Return the cosine of each two rows; NaN for a row of zeros.

    Example:
        >>> round(cosine_matrix(torch.tensor([[2., 0.], [3., 3.]]))[0, 1].item(), 4)
        0.7071
    """
    unit = rows / rows.norm(dim=1, keepdim=True)
    return unit @ unit.T


def pairs_of(matrix: Tensor) -> Tensor:
    """Return the entries above the diagonal of a square matrix, one for each pair, without NaN.

    Example:
        >>> pairs_of(torch.tensor([[1., .2, .3], [.2, 1., float('nan')], [.3, float('nan'), 1.]])).tolist()
        [0.20000000298023224, 0.30000001192092896]
    """
    first, second = torch.triu_indices(len(matrix), len(matrix), 1)
    values = matrix[first, second]
    return values[~values.isnan()]


def weight_similarities(layer: nn.Conv2d) -> list[Tensor]:
    """Return the cosines of the weights of each two filters that see the same channels, for each bank of such filters.

    The filters of a `TBC` are one bank, as all of them see every block; those of a grouped convolution or of a `TGC` are one
    for each group, and so are those of a `DGConv` with its current groups. A bank of one filter has no pairs.
    """
    if layer.transposed:
        raise ValueError(f'filter similarity: {type(layer).__name__} is a transposed convolution, whose weights are not compared')
    if hasattr(layer, 'masked_weight'):  # a DGConv
        weight, seen = layer.masked_weight(), layer.relationship()
        banks = [weight[(seen == channels).all(dim=1)] for channels in seen.unique(dim=0)]
    else:
        banks = _used_weight(layer).chunk(1 if isinstance(layer, TBC) else layer.groups)
    return [pairs_of(cosine_matrix(bank.detach().flatten(1))) for bank in banks]


def find_layers(model: nn.Module, patterns: Sequence[str]) -> list[Layer]:
    """Return the layers of a network whose names fit a pattern with wildcards, in the network's order; see `Layer`."""
    modules = dict(model.named_modules())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in modules):
            near = [layer.name for layer in spatial_layers(model)]
            raise ValueError(f'{type(model).__name__}: no layer named {pattern!r}; its spatial convolutions are '
                             f'{", ".join([*near[:3], "..."] if len(near) > 4 else near)}')
    return _joined(model, [name for name in modules if any(fnmatchcase(name, pattern) for pattern in patterns)])


def spatial_layers(model: nn.Module) -> list[Layer]:
    """Return the convolutions of a network's backbone, or of a network without one, whose filters are larger than 1x1."""
    own = 'backbone.' if isinstance(getattr(model, 'backbone', None), nn.Module) else ''
    shared = {part for module in model.modules() if _shares(module)
              for part in (module.filters, *module.children())}  # which run inside the layers that share them
    return _joined(model, [name for name, module in model.named_modules() if name.startswith(own) and module not in shared
                           and (_is_conv(module) or _shares(module)) and max(module.kernel_size) > 1])


def check_depths(depths: Sequence[float]) -> None:
    """Raise a ValueError unless all depths are in (0, 1]."""
    wrong = [depth for depth in depths if not 0 < depth <= 1]
    if wrong:
        raise ValueError(f'filter similarity: depth {wrong[0]:g}, expected numbers above 0 and up to 1')


def layers_at(model: nn.Module, depths: Sequence[float]) -> list[Layer]:
    """Return the spatial layers at some depths of a network: 1 is the last one, 0.5 the one half of them are before or at."""
    check_depths(depths)
    layers = spatial_layers(model)
    if not layers:
        raise ValueError(f'{type(model).__name__} has no convolution larger than 1x1; name its layers')
    return [layers[ceil(round(depth * len(layers), 6)) - 1] for depth in depths]


def _is_conv(module: nn.Module) -> bool:
    return isinstance(getattr(module, 'kernel_size', None), tuple) and isinstance(getattr(module, 'weight', None), Tensor)


def _shares(module: nn.Module) -> bool:
    """Return whether a layer convolves with the filters of another module, as those of `mmtied.related.shared_bases` do."""
    return isinstance(getattr(module, 'filters', None), nn.Conv2d)


def _used_weight(layer: nn.Conv2d) -> Tensor:
    """Return the weight that a convolution uses: mmcv's standardize theirs, and `freeze_groups` makes some that permute it."""
    if type(layer).__name__ == 'ConvWS2d':
        return layer.weight - layer.weight.mean(dim=(1, 2, 3), keepdim=True)  # their scale does not change cosines
    if type(layer).__name__ == 'ConvAWS2d':
        return layer._get_weight(layer.weight)
    return layer.weight[layer.output_order] if hasattr(layer, 'output_order') else layer.weight


def _conv_activations(model: nn.Module) -> list[nn.Module]:
    """Return the activations of mmcv's ConvModules, of any class."""
    found = [getattr(module, 'activate', None) for module in model.modules()]
    return [module for module in found if isinstance(module, nn.Module) and not isinstance(module, _GATES)
            and type(module).__name__ != 'HSigmoid']


def _joined(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Return modules by name as layers, the splits of a tied bottleneck together."""
    layers: dict[str, list[nn.Module]] = {}
    for name in names:
        parent = name.rpartition('.')[0]
        owner = model.get_submodule(parent.rpartition('.')[0])
        is_split = _is_conv(model.get_submodule(name)) and isinstance(getattr(owner, 'splits', None), int) and (
            type(model.get_submodule(parent)) is nn.ModuleList)
        layers.setdefault(parent if is_split else name, []).append(model.get_submodule(name))
    return [Layer(name, tuple(modules)) for name, modules in layers.items()]


def _outputs(model: nn.Module, layer: Layer, images: Tensor) -> list[Tensor]:
    """Return the outputs of a layer's modules, in the first of their calls, for some images."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise ValueError(f'layer {layer.name}: expected a module that returns feature maps (N, C, H, W); this one '
                             f'({type(module).__name__}) does not')
        found.setdefault(module, output.clone())  # what follows may change it in place
        if len(found) == len(layer.modules):
            raise _Reached

    with ExitStack() as hooks, suppress(_Reached):
        for module in layer.modules:
            hooks.enter_context(module.register_forward_hook(keep))
        getattr(model, 'extract_feat', model)(images)
    if len(found) < len(layer.modules):
        raise ValueError(f'layer {layer.name} does not run when features are extracted; layers of the backbone do')
    return [found[module] for module in layer.modules]
