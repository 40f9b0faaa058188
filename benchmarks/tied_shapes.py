"""The tied layers of a network as it meets them: their settings and the sizes of their inputs, each with its number.

A forward pass with hooks finds the sizes. A network may run a layer without calling it (several splits as one convolution, say),
so a layer that was not called gets the height and width that came to the nearest module around it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from interleaved import Times
from layer_timing import PASSES
from plain_ways import OURS, PLAIN_WAYS, UNTIED
from report_section import markdown_table
from torch import nn

from mmtied.layers import TBC

#: A ratio above this is listed: our layer took that much more time than another way.
LIMIT = 1.05


@dataclass(frozen=True)
class TiedShape:
    """A tied block convolution without bias and its input; all sizes are those of one network at one image size."""

    images: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel: int
    stride: int
    num_blocks: int

    def make_layer(self) -> TBC:
        """The layer, with new weights."""
        return TBC(self.in_channels, self.out_channels, self.kernel, self.stride, self.kernel // 2, bias=False,
                   num_blocks=self.num_blocks)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C_in, H, W)."""
        return self.images, self.in_channels, self.height, self.width

    def __str__(self) -> str:
        stride = f' / {self.stride}' if self.stride > 1 else ''
        return (f'{self.kernel}x{self.kernel}{stride}, {self.in_channels} to {self.out_channels} at '
                f'{self.images} x {self.height} x {self.width}, B = {self.num_blocks}')


def tied_shapes(network: nn.Module, images: int, size: tuple[int, int]) -> Counter[TiedShape]:
    """Every tied layer of a network on `images` images of `size` (height, width); those with B = 1 are left out.

    Raises:
        ValueError: A layer that `TiedShape` cannot describe.
    """
    sizes: dict[str, tuple[int, int]] = {}

    def remember(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].dim() == 4:
                sizes[name] = tuple(inputs[0].shape[2:])
        return hook

    hooks = [module.register_forward_pre_hook(remember(name)) for name, module in network.named_modules()]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    shapes = Counter()
    for name, layer in network.named_modules():
        if isinstance(layer, TBC) and layer.num_blocks > 1:
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            plain = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.bias, layer.padding_mode)
            if plain != ((kernel, ) * 2, (stride, ) * 2, (kernel // 2, ) * 2, (1, 1), None, 'zeros'):
                raise ValueError(f'{name}: {layer} is not a square convolution with "same" padding and without bias')
            height, width = _nearest(sizes, name)
            shapes[TiedShape(images, layer.in_channels, layer.out_channels, height, width, kernel, stride,
                             layer.num_blocks)] += 1
    return shapes


def _nearest(sizes: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int]:
    while name not in sizes:
        name = name.rpartition('.')[0]
    return sizes[name]


#: What was measured for a shape in a memory format and a pass.
Results = Mapping[tuple[TiedShape, str, str], Times]


def sums(networks: Mapping[str, Counter[TiedShape]], results: Results, formats: Sequence[str]) -> str:
    """Milliseconds of all layers of a network with one kernel size, way by way, as Markdown."""
    ways = [OURS, *PLAIN_WAYS, UNTIED]
    rows = []
    for network, shapes in networks.items():
        for kernel in sorted({shape.kernel for shape in shapes}):
            chosen = {shape: count for shape, count in shapes.items() if shape.kernel == kernel}
            for name in formats:
                for which in PASSES:
                    of = {shape: results[shape, name, which] for shape in chosen}
                    totals = [sum(count * of[shape].spread(way).median for shape, count in chosen.items()) * 1e3
                              if all(way in times.seconds for times in of.values()) else None for way in ways]
                    rows.append([f'{network}, {kernel}x{kernel} ({sum(chosen.values())}), {name}, {which}',
                                 *('-' if total is None else f'{total:.2f}' for total in totals)])
    return markdown_table(['network, kernel (layers), format, pass', *ways], rows)


def worst(results: Results, formats: Sequence[str]) -> tuple[str, list[str]]:
    """The worst of our ratios over all shapes as Markdown, and a line for each measurement beyond `LIMIT`.

    A ratio is our time over that of the untied grouped convolution, or of the plain way that was fastest for that shape.
    """
    rows, beyond = [], []
    for name in formats:
        for which in PASSES:
            of = {shape: times for (shape, *rest), times in results.items() if rest == [name, which]}
            for title, other in (('untied grouped', _untied), ('fastest plain way', _fastest_plain)):
                ratios = {shape: times.ratio(OURS, to=other(times)) for shape, times in of.items()}
                shape = max(ratios, key=lambda shape: ratios[shape].median)  # noqa: B023
                above = {shape: ratio for shape, ratio in ratios.items() if ratio.median > LIMIT}
                rows.append([f'{name}, {which}', title, ratios[shape].text(), str(shape), f'{len(above)} of {len(ratios)}'])
                beyond += [f'- {ratio.text()} times the {title} ({other(of[shape])}), {name}, {which}: {shape}'
                           for shape, ratio in sorted(above.items(), key=lambda item: -item[1].median)]
    return markdown_table(['format, pass', 'TBC against', 'worst ratio', 'at', f'shapes beyond {LIMIT}'], rows), beyond


def _untied(times: Times) -> str:
    return UNTIED


def _fastest_plain(times: Times) -> str:
    return times.fastest(name for name in times.seconds if name in PLAIN_WAYS)
