"""Time TBC: Figure 3 of the paper, or the tied layers of TiedResNet-50 and -50-S.

``figure3`` varies B at a fixed number of multiply-adds. Wang & Yu (https://arxiv.org/abs/2009.12021) use a 56 x 56 x 2048 input
and fix the cost "by changing the total filter number"; with f filters per block there are f * B output channels, and f = 64
reaches 2048 at B = 32. ``shapes`` times every layer of both networks at its input size for 224 x 224 and 800 x 1344 images;
``networks`` adds these times up.

TBC with its automatic choice runs against each of its algorithms and against an untied grouped convolution (G = B). The authors'
code is the algorithm ``fold`` on contiguous tensors.

    python benchmarks/layers.py figure3 --csv docs/benchmarks/figure3_cpu.csv
    python benchmarks/layers.py networks --csv docs/benchmarks/network_layers_cpu.csv
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from reporting import DTYPES, FORMATS, add_timing_options, apply_options, report
from timing import Times, time_in_turns
from torch import nn

from mmtied.cli import user_errors
from mmtied.layers import TBC
from mmtied.layers.algorithms import ALGORITHMS

OURS, UNTIED, STANDARD = 'TBC', 'untied grouped', 'standard'
PASSES = ('forward', 'forward + backward')
#: Base width of each network, and (images, (height, width)) of the inputs.
NETWORKS = {'TiedResNet-50': 32, 'TiedResNet-50-S': 18}
INPUTS = ((4, (224, 224)), (1, (800, 1344)))


@dataclass(frozen=True)
class TiedShape:
    """A square "same" TBC without bias, and its input size."""

    images: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel: int
    stride: int
    num_blocks: int

    def contenders(self) -> dict[str, nn.Module]:
        """Build TBC with its automatic choice, with each algorithm, and the untied convolution.

        Example:
            >>> list(TiedShape(1, 8, 8, 4, 4, kernel=3, stride=1, num_blocks=2).contenders())
            ['TBC', 'fold', 'grouped', 'dense', 'conv3d', 'untied grouped']
        """
        sizes = (self.in_channels, self.out_channels, self.kernel, self.stride, self.kernel // 2)
        names = [name for name in ALGORITHMS if name != 'matmul' or self.kernel == 1]
        return {OURS: TBC(*sizes, bias=False, num_blocks=self.num_blocks),
                **{name: TBC(*sizes, bias=False, num_blocks=self.num_blocks, algorithm=name) for name in names},
                UNTIED: nn.Conv2d(*sizes, groups=self.num_blocks, bias=False)}

    def input_shape(self) -> tuple[int, int, int, int]:
        """Return (N, C_in, H, W)."""
        return self.images, self.in_channels, self.height, self.width


def main() -> None:
    """Run the benchmark."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        rows = {'figure3': figure3, 'shapes': shapes, 'networks': networks}[args.part](args)
        report(args, f'TBC, {args.part}: medians of {args.repeats} turns, {args.dtype}.', rows)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('part', choices=('figure3', 'shapes', 'networks'))
    add_timing_options(parser)
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32', help='dtype of weights and inputs, without autocast')
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument('--batch', type=int, default=1,
                        help='batch size for figure3; shapes uses four times and once this number')
    figure = parser.add_argument_group('figure3')
    figure.add_argument('--blocks', nargs='+', type=int, default=[1, 2, 4, 8, 16, 32], metavar='B')
    figure.add_argument('--kernels', nargs='+', type=int, default=[1, 3], metavar='K')
    figure.add_argument('--filters', type=int, default=64, help='f, the filters per block')
    figure.add_argument('--input', nargs=3, type=int, default=[56, 56, 2048], metavar=('H', 'W', 'C'))
    return parser.parse_args()


def figure3(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time all B in the same turns, beside a standard convolution with f filters."""
    if min(args.kernels) < 1 or any(kernel % 2 == 0 for kernel in args.kernels):
        raise ValueError(f'--kernels {" ".join(map(str, args.kernels))}: must be odd')
    if min(args.filters, *args.input, *args.blocks) < 1:
        raise ValueError('--filters, --input and --blocks: must be 1 or more')
    height, width, channels = [4, 4, 32] if args.quick else args.input
    filters, blocks = (4, args.blocks[:2]) if args.quick else (args.filters, sorted(set(args.blocks)))
    for kernel in args.kernels:
        shapes = {b: TiedShape(args.batch, channels, filters * b, height, width, kernel, 1, b) for b in blocks}
        calls: dict[str, nn.Module] = {STANDARD: nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)}
        for number, shape in shapes.items():
            calls |= {f'{name} {number}': layer for name, layer in shape.contenders().items()
                      if name not in ALGORITHMS or name == 'fold'}
        for layout in args.formats:
            for which in PASSES:
                progress(f'Figure 3, {kernel}x{kernel}, {layout}, {which}')
                times = time_layers(args, calls, shapes[blocks[0]].input_shape(), layout, which)
                for number in blocks:
                    names = {name: f'{name} {number}' for name in (OURS, 'fold', UNTIED)} | {STANDARD: STANDARD}
                    yield dict(kernel=kernel, format=layout, step=which, B=number, **milliseconds(times, names))


def shapes(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time every distinct tied layer; the last columns count it in each network."""
    from mmtied.backbones import TiedResNet
    inputs = ((1, (32, 32)), ) if args.quick else tuple((args.batch * images, size) for images, size in INPUTS)
    counts: dict[TiedShape, dict[str, int]] = {}
    names = [input_name(name, *of) for of in inputs for name in NETWORKS]
    for images, size in inputs:
        for name, base_width in NETWORKS.items():
            for shape, count in tied_shapes(TiedResNet(base_width=base_width), images, size).items():
                counts.setdefault(shape, dict.fromkeys(names, 0))[input_name(name, images, size)] = count
    for number, (shape, of) in enumerate(counts.items()):
        progress(f'{number + 1}/{len(counts)} {shape}')
        for layout in args.formats:
            for which in PASSES:
                layers = shape.contenders()
                times = time_layers(args, layers, shape.input_shape(), layout, which)
                columns = {name: name if name in layers else None for name in (OURS, *ALGORITHMS, UNTIED)}
                yield dict(**vars(shape), format=layout, step=which, **milliseconds(times, columns), **of)


def networks(args: argparse.Namespace) -> list[dict[str, object]]:
    """Add up the times of all tied layers of a network, by kernel size."""
    rows = list(shapes(args))
    names = [name for name in rows[0] if name.startswith('TiedResNet')]
    sums = []
    for name in names:
        for kernel in (1, 3):
            for layout in args.formats:
                for which in PASSES:
                    key = (kernel, layout, which)
                    of = [row for row in rows if (row['kernel'], row['format'], row['step']) == key and row[name]]
                    totals = {}
                    for column in (f'{contender}, ms' for contender in (OURS, *ALGORITHMS, UNTIED)):
                        measured = all(row[column] for row in of)
                        totals[column] = f'{sum(row[name] * float(row[column]) for row in of):.2f}' if measured else ''
                    sums.append(dict(network=name, kernel=f'{kernel}x{kernel}', layers=sum(row[name] for row in of),
                                     format=layout, step=which, **totals))
    return sums


def input_name(name: str, images: int, size: tuple[int, int]) -> str:
    """Name a network and its input."""
    return f'{name}, {images} x {size[0]} x {size[1]}'


def tied_shapes(network: nn.Module, images: int, size: tuple[int, int]) -> Counter[TiedShape]:
    """Count a network's tied layers with B > 1 by shape, from one forward pass on (height, width).

    Raises:
        ValueError: A layer that `TiedShape` cannot describe.
    """
    shapes = Counter()

    def count(name: str) -> Callable[[TBC, tuple[torch.Tensor, ...]], None]:
        def hook(layer: TBC, inputs: tuple[torch.Tensor, ...]) -> None:
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            found = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.bias, layer.padding_mode)
            if found != ((kernel, ) * 2, (stride, ) * 2, (kernel // 2, ) * 2, (1, 1), None, 'zeros'):
                raise ValueError(f'{name}: {layer} is not a square "same" convolution without bias')
            shapes[TiedShape(images, layer.in_channels, layer.out_channels, *inputs[0].shape[2:], kernel, stride,
                             layer.num_blocks)] += 1
        return hook

    hooks = [layer.register_forward_pre_hook(count(name)) for name, layer in network.named_modules()
             if isinstance(layer, TBC) and layer.num_blocks > 1]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return shapes


def time_layers(args: argparse.Namespace, layers: Mapping[str, nn.Module], shape: tuple[int, ...], layout: str,
                which: str) -> Times:
    """Time layers in turns on one random input."""
    x = torch.randn(shape, device=args.device, dtype=DTYPES[args.dtype]).to(memory_format=FORMATS[layout])
    x.requires_grad_(which != PASSES[0])
    calls = {name: _call(layer.to(x.device, x.dtype, memory_format=FORMATS[layout]), x) for name, layer in layers.items()}
    return time_in_turns(calls, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3)


def milliseconds(times: Times, names: Mapping[str, str | None]) -> dict[str, str]:
    """Return a column of median milliseconds per contender, and TBC's spread."""
    cells = {f'{column}, ms': '' if name is None else f'{times.spread(name, 1e3).median:.3f}' for column, name in names.items()}
    ours = times.spread(names[OURS], 1e3)
    return {**cells, 'TBC lowest, ms': f'{ours.lowest:.3f}', 'TBC highest, ms': f'{ours.highest:.3f}'}


def progress(line: str) -> None:
    """Report progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def _call(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    with torch.no_grad():
        gradient = torch.empty_like(layer(x)).normal_()
    if x.requires_grad:
        return lambda: torch.autograd.grad(layer(x), (x, *layer.parameters()), gradient)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return layer(x)

    return forward


if __name__ == '__main__':
    main()
