#!/usr/bin/env python
"""Draw two figures of the paper on shared filter bases: gradients of the bases, and similarity of the coefficients.

    mmtied bases gradients WORK_DIR [WORK_DIR ...] --out gradients.png        (Figure 3)
    mmtied bases coefficients CHECKPOINT [CHECKPOINT ...] --out cosines.png   (Figure 4)

Gradients require training with custom_hooks = [dict(type='mmtied.BasisGradientHook')] in the config.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_trust

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    gradients = commands.add_parser('gradients', help='maximum, mean and norm of the gradients of each basis')
    gradients.add_argument('inputs', nargs='+', metavar='WORK_DIR', help='work_dir of a run, or its basis_gradients.csv')
    gradients.add_argument('--iterations', nargs=2, type=int, default=(0, None), metavar=('FIRST', 'LAST'),
                           help='range of iterations to draw, such as one epoch (default: all)')
    coefficients = commands.add_parser('coefficients', help='absolute cosines between all coefficients of a stage')
    coefficients.add_argument('inputs', nargs='+', metavar='CHECKPOINT', help='checkpoint of a network with shared bases')
    coefficients.add_argument('--stages', nargs='+', type=int, metavar='N', help='numbers of the stages (default: all)')
    add_trust(coefficients)
    for command in (gradients, coefficients):
        command.add_argument('--names', nargs='+', metavar='NAME', help='name of each input in the figure')
        command.add_argument('--out', required=True, metavar='FILE', help='figure to write: .png, .jpg, .pdf or .svg')
    return parser.parse_args()


def main() -> None:
    """Read, print a line for each input, draw."""
    args = parse_args()
    from mmtied.cli import user_errors
    from mmtied.compat import require
    from mmtied.plotting import check_figure_path, write_figure
    with user_errors():
        require('matplotlib', 'Drawing')
        check_figure_path(args.out)
        names = args.names or [Path(given).stem for given in args.inputs]
        if len(names) != len(args.inputs):
            raise ValueError(f'--names: {len(names)} names for {len(args.inputs)} inputs')
        if len(set(names)) != len(names):
            raise ValueError('two inputs have the same name; give --names')
        draw = draw_gradients if args.command == 'gradients' else draw_coefficients
        write_figure(draw(args, names), args.out)
        print(f'wrote {args.out}')


def draw_gradients(args: argparse.Namespace, names: Sequence[str]):
    """Draw Figure 3."""
    from mmtied.related.shared_bases import figures
    runs = {name: figures.read_gradients(Path(given)) for name, given in zip(names, args.inputs, strict=True)}
    for name, bases in runs.items():
        for basis, records in bases.items():
            print(f'{name} {basis}: {len(records)} records, mean {records[:, 1].mean():.3g}, largest {records[:, 2].max():.3g}, '
                  f'norm {records[:, 3].mean():.3g}')
    return figures.draw_gradients(runs, *args.iterations)


def draw_coefficients(args: argparse.Namespace, names: Sequence[str]):
    """Draw Figure 4."""
    from mmtied.launch.checkpoints import read_state_dict
    from mmtied.related.shared_bases import figures
    from mmtied.related.shared_bases.released import convert_released, is_released
    from mmtied.unpickling import safe_loading
    networks = {}
    with safe_loading(args.trust_checkpoint):
        for name, given in zip(names, args.inputs, strict=True):
            weights = read_state_dict(given)
            try:
                coefficients = figures.find_coefficients(convert_released(weights)[1] if is_released(weights) else weights)
            except ValueError as error:
                raise ValueError(f'checkpoint {given}: {error}') from None
            stages = []
            for stage in [f'layer{number}' for number in args.stages] if args.stages else coefficients:
                chosen = [key for key in coefficients if stage in (key, key.split()[0])]
                if not chosen:
                    raise ValueError(f'--stages: {given} has coefficients in {", ".join(coefficients)}, not in {stage}')
                stages += chosen
            networks[name] = {stage: figures.coefficient_similarity(coefficients[stage]) for stage in stages}
            for stage, matrix in networks[name].items():
                print(f'{name} {stage}: {len(matrix)} coefficients, mean similarity {figures.mean_similarity(matrix):.4f}')
    stages = list(next(iter(networks.values())))
    for name, matrices in networks.items():
        if list(matrices) != stages:
            raise ValueError(f'{name} has coefficients in {", ".join(matrices)}, and {names[0]} in {", ".join(stages)}; give '
                             '--stages')
    return figures.draw_similarity(networks, stages)


if __name__ == '__main__':
    main()
