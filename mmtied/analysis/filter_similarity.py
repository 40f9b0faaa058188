"""Similarity of the filters of a layer: of the image patterns they respond to, and of their weights.

Wang & Yu, "Tied Block Convolution", AAAI 2021, Figures 1 and 9: a filter's pattern is the gradient of its response with respect
to the image by guided backpropagation (Springenberg et al., "Striving for Simplicity", 2015), averaged over images. The
similarity of two filters is the cosine of their patterns.
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

#: Activation functions whose gradients are guided. Sigmoids and similar functions are gates and pass all gradients.
_ACTIVATIONS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu_, F.relu6, F.hardtanh, F.hardtanh_,
                F.leaky_relu, F.leaky_relu_, F.silu, F.hardswish, F.gelu, F.elu, F.elu_, F.celu, torch.celu_, F.selu, torch.selu_,
                F.mish, F.prelu, Tensor.prelu, F.rrelu, torch.rrelu_, F.softplus, F.threshold, torch.threshold_}
#: Activations composed of other functions, by class name in mmcv, mmdet, mmpretrain and timm.
_ACTIVATION_CLASSES = {'Swish', 'SwishMe', 'SiLU', 'Mish', 'MishMe', 'HSwish', 'HardSwish', 'HardSwishMe', 'HardMish',
                       'HardMishMe', 'GELU', 'GELUTanh', 'QuickGELU', 'PReLU', 'Clamp', 'FusedBiasLeakyReLU'}
_GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softmax)
#: Quantities that can be averaged over images.
AVERAGES = ('patterns', 'similarities')


class Layer(NamedTuple):
    """A layer of a network: a convolution, or parallel ones with concatenated outputs such as the splits of a tied bottleneck."""

    name: str
    modules: tuple[nn.Module, ...]


class _Reached(Exception):  # noqa: N818
    """Stops a forward pass after the layer."""


class _GuidedMode(TorchFunctionMode):
    """Let only positive gradients enter the backward pass of activations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        output = func(*args, **(kwargs or {}))
        if func in _ACTIVATIONS and output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


@contextmanager
def guided_backprop(activations: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Guide gradients of computations in the block: a ReLU passes a gradient only if it and the input are positive.

    `activations` are modules to treat as activations, in addition to those of PyTorch, mmcv and timm.

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
    """Return the guided gradient of the sum of a channel's positive outputs, for each image and channel.

    Args:
        model: A network, left in evaluation mode. If it has `extract_feat` (mmdet, mmpretrain), only that runs.
        layer: The layer; each of its modules must run and return (N, C, H, W).
        images: Normalized images, shape (N, 3, H, W).
        channels: Output channels of the layer. Default: all.

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
    """Return a layer's number of output channels; arguments and errors as for `guided_patterns`."""
    with torch.no_grad():
        return sum(output.shape[1] for output in _outputs(model.eval(), layer, images[:1]))


def guided_similarity(model: nn.Module, layer: Layer, batches: Iterable[Tensor], channels: Sequence[int] | None = None,
                      average: str = 'patterns') -> Tensor:
    """Return the pairwise cosines of the channels' patterns, shape (channels, channels).

    A channel that no image activates gives NaN; with 'similarities', so does a pair that no image activates together.

    Args:
        model: The network.
        layer: The layer.
        batches: Normalized images, each of shape (N, 3, H, W), all of one size if patterns are averaged.
        channels: Output channels. Default: all.
        average: 'patterns' averages patterns over all images and compares the averages, as in the paper; 'similarities'
            compares patterns image by image and averages the cosines over the images that activate both channels.
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
    """Return the pairwise cosines of rows; NaN for a row of zeros.

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
    """Return the pairwise cosines of the weights within each bank of filters that see the same channels.

    The filters of a `TBC` form one bank, since all of them see every block. A grouped convolution, a `TGC` and a `DGConv` (with
    its current groups) have one bank per group. A bank of one filter has no pairs.
    """
    if layer.transposed:
        raise ValueError(f'filter similarity: {type(layer).__name__} is a transposed convolution, which is not supported')
    if hasattr(layer, 'masked_weight'):  # a DGConv
        weight, seen = layer.masked_weight(), layer.relationship()
        banks = [weight[(seen == channels).all(dim=1)] for channels in seen.unique(dim=0)]
    else:
        banks = _used_weight(layer).chunk(1 if isinstance(layer, TBC) else layer.groups)
    return [pairs_of(cosine_matrix(bank.detach().flatten(1))) for bank in banks]


def find_layers(model: nn.Module, patterns: Sequence[str]) -> list[Layer]:
    """Return the layers of a network that match patterns with wildcards, in the network's order."""
    modules = dict(model.named_modules())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in modules):
            near = [layer.name for layer in spatial_layers(model)]
            raise ValueError(f'{type(model).__name__}: no layer named {pattern!r}; its spatial convolutions are '
                             f'{", ".join([*near[:3], "..."] if len(near) > 4 else near)}')
    return _joined(model, [name for name in modules if any(fnmatchcase(name, pattern) for pattern in patterns)])


def spatial_layers(model: nn.Module) -> list[Layer]:
    """Return the convolutions larger than 1x1 in a network's backbone, or in the network if it has none."""
    own = 'backbone.' if isinstance(getattr(model, 'backbone', None), nn.Module) else ''
    shared = {part for module in model.modules() if _shares(module)
              for part in (module.filters, *module.children())}  # run inside the layers that share them
    return _joined(model, [name for name, module in model.named_modules() if name.startswith(own) and module not in shared
                           and (_is_conv(module) or _shares(module)) and max(module.kernel_size) > 1])


def check_depths(depths: Sequence[float]) -> None:
    """Raise a ValueError unless all depths are in (0, 1]."""
    wrong = [depth for depth in depths if not 0 < depth <= 1]
    if wrong:
        raise ValueError(f'filter similarity: depth {wrong[0]:g}, expected numbers above 0 and up to 1')


def layers_at(model: nn.Module, depths: Sequence[float]) -> list[Layer]:
    """Return the spatial layers at relative depths: 1 is the last of them, and 0.5 the last of the first half."""
    check_depths(depths)
    layers = spatial_layers(model)
    if not layers:
        raise ValueError(f'{type(model).__name__} has no convolution larger than 1x1; name its layers')
    return [layers[ceil(round(depth * len(layers), 6)) - 1] for depth in depths]


def _is_conv(module: nn.Module) -> bool:
    return isinstance(getattr(module, 'kernel_size', None), tuple) and isinstance(getattr(module, 'weight', None), Tensor)


def _shares(module: nn.Module) -> bool:
    """Return True for a layer that convolves with another module's filters, as in `mmtied.related.shared_bases`."""
    return isinstance(getattr(module, 'filters', None), nn.Conv2d)


def _used_weight(layer: nn.Conv2d) -> Tensor:
    """Return the weight after mmcv's standardization or the permutation of `freeze_groups`, if the layer applies one."""
    if type(layer).__name__ == 'ConvWS2d':
        return layer.weight - layer.weight.mean(dim=(1, 2, 3), keepdim=True)  # the scale does not change cosines
    if type(layer).__name__ == 'ConvAWS2d':
        return layer._get_weight(layer.weight)
    return layer.weight[layer.output_order] if hasattr(layer, 'output_order') else layer.weight


def _conv_activations(model: nn.Module) -> list[nn.Module]:
    """Return the activations of mmcv's ConvModules."""
    found = [getattr(module, 'activate', None) for module in model.modules()]
    return [module for module in found if isinstance(module, nn.Module) and not isinstance(module, _GATES)
            and type(module).__name__ != 'HSigmoid']


def _joined(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Return named modules as layers, joining the splits of a tied bottleneck."""
    layers: dict[str, list[nn.Module]] = {}
    for name in names:
        parent = name.rpartition('.')[0]
        owner = model.get_submodule(parent.rpartition('.')[0])
        is_split = _is_conv(model.get_submodule(name)) and isinstance(getattr(owner, 'splits', None), int) and (
            type(model.get_submodule(parent)) is nn.ModuleList)
        layers.setdefault(parent if is_split else name, []).append(model.get_submodule(name))
    return [Layer(name, tuple(modules)) for name, modules in layers.items()]


def _outputs(model: nn.Module, layer: Layer, images: Tensor) -> list[Tensor]:
    """Return the outputs of a layer's modules for a batch, from the first call of each."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise ValueError(f'layer {layer.name}: expected a module that returns feature maps (N, C, H, W), got '
                             f'{type(module).__name__}')
        found.setdefault(module, output.clone())  # later layers may modify it in place
        if len(found) == len(layer.modules):
            raise _Reached

    with ExitStack() as hooks, suppress(_Reached):
        for module in layer.modules:
            hooks.enter_context(module.register_forward_hook(keep))
        getattr(model, 'extract_feat', model)(images)
    if len(found) < len(layer.modules):
        raise ValueError(f'layer {layer.name} does not run during feature extraction; choose a layer of the backbone')
    return [found[module] for module in layer.modules]
