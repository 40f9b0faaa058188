"""Every tied backbone against its untied baseline: images per second and peak memory, in inference and in a training step.

A training step is forward, backward of the sum of all outputs, and a step of SGD with momentum; all weights train and BatchNorm
is in its usual mode. The networks of one baseline take turns with it, all memory formats in the same turns. Peak memory is that
of weights, gradients, momentum, activations and workspaces in PyTorch's allocator (see `peak_memory`), without the images.
With --dtype bfloat16 autocast is on. --deploy adds both sides after `mmtied.surgery.deploy`, in inference, and --compile both
sides deployed and compiled by torch's inductor, which then packs their weights.

    python benchmarks/backbones.py --docs docs/benchmarks.md
"""

import argparse
import sys
from collections.abc import Callable

import torch
from interleaved import Spread, Times, time_in_turns
from network_pairs import BASELINES, build
from network_timing import Runner
from peak_memory import MIB
from ratio_bars import draw_ratios
from report_section import markdown_table
from speed_options import DTYPES, FORMATS, add_options, apply_options, image_size, picture_path, report
from torch import nn

from mmtied.cli import user_errors
from mmtied.surgery import deploy

#: What the names of further forms of a network end with.
DEPLOYED, COMPILED = ', deployed', ', deployed and compiled'
_HEADER = ['network, format', 'images/s', 'times baseline', 'times its fastest', 'times it as it is', 'peak MiB',
           'of the baseline']


def main() -> None:
    """Run the benchmark, print its tables and write its section."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        if args.quick:
            args.size, args.batch = [32], 2
        height, width = image_size(args.size)
        batch = args.batch or (8 if torch.device(args.device).type == 'cpu' else 64)
        if batch < 2:
            raise ValueError(f'--batch {batch}: expected 2 or more, as BatchNorm on one value for each image and channel needs')
        forms = further_forms(args)
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0)).to(args.device)
        rows: dict[str, list[list[str]]] = {'inference': [], 'training': []}
        ratios: dict[str, dict[str, Spread]] = {}
        for baseline in dict.fromkeys(BASELINES[name] for name in args.networks):
            names = [baseline, *(name for name in args.networks if BASELINES[name] == baseline)]
            compare(args, names, images, forms, rows, ratios)
        if args.docs:
            draw_ratios(ratios, "times the baseline's images/s", picture_path(args, 'backbones'))
        text = (f'{batch} images of {height} x {width}, {args.dtype}. Medians of {args.repeats} turns, lowest to highest in '
                'brackets. A ratio is to the untied network above, in the same form and memory format, then in the format that '
                'is faster for it, and last to it as mmdet or mmpretrain run it, neither deployed nor compiled; memory is that '
                'of weights and of all that the step holds.')
        tables = [f'{step.capitalize()}:\n\n{markdown_table(_HEADER, found)}' for step, found in rows.items()]
        report(args, 'backbones', 'Backbones', [text, *tables],
               "Images per second of tied backbones as multiples of their baselines'")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument('--networks', nargs='+', choices=list(BASELINES), default=list(BASELINES), metavar='NAME',
                        help=f'tied ones, each of which brings its baseline along: {", ".join(BASELINES)}')
    parser.add_argument('--batch', type=int, help='images; 8 on a CPU and 64 on a GPU if left out')
    parser.add_argument('--size', nargs='+', type=int, default=[224], help='side of the images, or height and width')
    parser.add_argument('--format', nargs='+', choices=list(FORMATS), default=list(FORMATS), dest='formats')
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32')
    parser.add_argument('--deploy', action='store_true', help='also both sides as mmtied.surgery.deploy makes them')
    parser.add_argument('--compile', action='store_true', help='also both sides deployed and compiled; takes minutes more')
    return parser.parse_args()


def further_forms(args: argparse.Namespace) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """What makes each further form of a network that the options ask for, by what its name ends with."""
    forms = {}
    if args.deploy:
        forms[DEPLOYED] = deploy
    if args.compile:
        torch._inductor.config.freezing = True
        forms[COMPILED] = lambda network: torch.compile(deploy(network))
    return forms


def compare(args: argparse.Namespace, names: list[str], images: torch.Tensor, forms: dict[str, Callable[[nn.Module], nn.Module]],
            rows: dict[str, list[list[str]]], ratios: dict[str, dict[str, Spread]]) -> None:
    """Measure a baseline, the first of the names, and its tied networks; adds to the rows and to what is plotted."""
    runners: dict[tuple[str, str, str], Runner] = {}
    for name in names:
        for layout in args.formats:
            print(f'{name}, {layout}', file=sys.stderr, flush=True)
            network = build(name).to(args.device, memory_format=FORMATS[layout])
            runner = Runner(network, images.to(memory_format=FORMATS[layout]), DTYPES[args.dtype])
            runners[name, '', layout] = runner
            for form, make in forms.items():
                network.eval()
                made = make(network).to(args.device, memory_format=FORMATS[layout])
                runners[name, form, layout] = Runner(made, runner.images, runner.dtype)
    for step in rows:
        chosen = {key: runner for key, runner in runners.items() if step == 'inference' or not key[1]}
        peaks = {}
        for key, runner in chosen.items():
            peaks[key] = runner.peak(getattr(runner, step)())
            runner.network.zero_grad(set_to_none=True)
        calls = {label(*key): getattr(runner, step)() for key, runner in chosen.items()}
        times = time_in_turns(calls, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3)
        for (name, form, layout), runner in chosen.items():
            own, same = label(name, form, layout), label(names[0], form, layout)
            speedup = invert(times, own, same)
            fastest = times.fastest([label(names[0], form, other) for other in args.formats])
            peak = peaks[name, form, layout]
            plain = invert(times, own, label(names[0], '', layout))
            rows[step].append([own, times.rate(own, len(runner.images)).text(1), speedup.text(),
                               invert(times, own, fastest).text(), plain.text(), f'{peak / MIB:.0f}',
                               f'{peak / peaks[names[0], form, layout]:.2f}'])
            if name != names[0]:
                ratios.setdefault(name + form, {})[f'{step}, {layout}'] = speedup


def label(name: str, form: str, layout: str) -> str:
    """What a contender is called in the tables."""
    return f'{name}{form}, {layout}'


def invert(times: Times, name: str, baseline: str) -> Spread:
    """How many times a baseline's images per second a network handles."""
    return times.ratio(baseline, to=name)


if __name__ == '__main__':
    main()
