"""The tied layer against plain ways: Figure 3 of the paper, and every tied layer of TiedResNet-50 and -50-S.

Figure 3 (see `figure3`) has TBC over B at a fixed number of multiply-adds. The layers of the networks are measured at their
sizes for images of 224 x 224 and 800 x 1344 (see `tied_shapes`), against the ways in `plain_ways`. All ways run in turns.
bfloat16 is that of weights and inputs, without autocast.

    python benchmarks/layers.py --docs docs/benchmarks.md
"""

import argparse
import sys

import figure3
from layer_timing import PASSES, Setting, time_layers
from plain_ways import all_ways
from speed_options import DTYPES, FORMATS, add_options, apply_options, picture_path, report
from tied_shapes import LIMIT, sums, tied_shapes, worst

from mmtied.cli import user_errors

#: The networks, by the base width of TiedResNet, and images of which number and size go through them.
NETWORKS = {'TiedResNet-50': 32, 'TiedResNet-50-S': 18}
INPUTS = ((4, (224, 224)), (1, (800, 1344)))


def main() -> None:
    """Run the benchmark, print its tables and write its section."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        settings = {name: Setting(args.device, DTYPES[args.dtype], FORMATS[name], args.repeats, args.least_ms / 1e3)
                    for name in args.formats}
        inputs = INPUTS
        if args.quick:
            inputs, args.input, args.filters = ((1, (32, 32)), ), [4, 4, 32], 4
            args.blocks = args.blocks[:2]
        parts = [f'Medians of {args.repeats} turns, lowest to highest in brackets; {args.dtype}. A ratio is that of two ways '
                 'within one turn.']
        has_figure = 'figure3' in args.parts
        if has_figure:
            parts += measure_figure(args, settings)
        if 'shapes' in args.parts:
            parts += measure_shapes(settings, inputs)
        text = 'Milliseconds over B for tied and grouped convolution at the same number of multiply-adds' if has_figure else ''
        report(args, 'layers', 'Layers', parts, text)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32')
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument('--parts', nargs='+', choices=('figure3', 'shapes'), default=['figure3', 'shapes'])
    figure = parser.add_argument_group('Figure 3')
    figure.add_argument('--blocks', nargs='+', type=int, default=[1, 2, 4, 8, 16, 32], metavar='B')
    figure.add_argument('--kernels', nargs='+', type=int, default=[1, 3], metavar='K')
    figure.add_argument('--filters', type=int, default=64, help='filters at B = 1, which is filters for each block at any B')
    figure.add_argument('--batch', type=int, default=1)
    figure.add_argument('--input', nargs=3, type=int, default=[56, 56, 2048], metavar=('H', 'W', 'C'))
    return parser.parse_args()


def measure_figure(args: argparse.Namespace, settings: dict[str, Setting]) -> list[str]:
    """Figure 3's paragraph and table; its plot is written where the section goes."""
    if min(args.kernels) < 1 or any(kernel % 2 == 0 for kernel in args.kernels):
        raise ValueError(f'--kernels {" ".join(map(str, args.kernels))}: expected odd sizes')
    if min(args.batch, args.filters, *args.input, *args.blocks) < 1:
        raise ValueError('--batch, --filters, --input and --blocks: expected 1 or more')
    height, width, channels = args.input
    blocks = sorted(set(args.blocks))
    results = {}
    for kernel in args.kernels:
        show(f'Figure 3, {kernel}x{kernel}')
        results |= figure3.measure((args.batch, channels, height, width), args.filters, kernel, blocks, settings)
    if args.docs:
        figure3.draw(results, blocks, picture_path(args, 'layers'))
    macs = ', '.join(f'{args.batch * height * width * channels * args.filters * kernel**2 / 1e6:.0f}M for {kernel}x{kernel}'
                     for kernel in args.kernels)
    return [f'Figure 3 of the paper: input {args.batch} x {height} x {width} x {channels}, multiply-adds fixed ({macs}) by '
            f'{args.filters} filters for each block, so {args.filters} B output channels from {args.filters * blocks[0]} to '
            f"{args.filters * blocks[-1]}. The standard convolution has {args.filters} filters. The authors' TBC folds the "
            'blocks into the batch with a reshape.',
            figure3.table(results, blocks)]


def measure_shapes(settings: dict[str, Setting], inputs: tuple[tuple[int, tuple[int, int]], ...]) -> list[str]:
    """The tables of the networks' layers; layers that networks share are measured once."""
    from mmtied.backbones import TiedResNet
    networks = {f'{name}, {images} x {size[0]} x {size[1]}': tied_shapes(TiedResNet(base_width=base_width), images, size)
                for images, size in inputs for name, base_width in NETWORKS.items()}
    shapes = list(dict.fromkeys(shape for found in networks.values() for shape in found))
    results = {}
    for number, shape in enumerate(shapes):
        show(f'{number + 1}/{len(shapes)} {shape}')
        for name, setting in settings.items():
            for which in PASSES:
                results[shape, name, which] = time_layers(all_ways(shape.make_layer()), shape.input_shape, which, setting)
    table, beyond = worst(results, list(settings))
    found = f'<details><summary>{len(beyond)} measurements beyond {LIMIT}</summary>\n\n' + '\n'.join(beyond) + '\n\n</details>'
    return [f'The tied layers of the networks, {len(shapes)} different ones, milliseconds of all together:',
            sums(networks, results, list(settings)), 'TBC against other ways, layer by layer:', table,
            found if beyond else f'No measurement is beyond {LIMIT}.']


def show(line: str) -> None:
    """How far it is, on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
