"""Command-line options that several tools share. Importing them is quick, and so is --help."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis.example_images import Choice


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument for a config."""
    parser.add_argument('config', help='config file, or package::folder/file.py for one that a package ships (mmdet::...)')


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add the argument for several networks, and names for them."""
    parser.add_argument('networks', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='config and checkpoint of each network; configs as package::folder/file.py too')
    parser.add_argument('--names', nargs='+', help='name of each network in the figure')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device on which networks run."""
    parser.add_argument('--device', help='such as cuda:1 (a GPU where there is one)')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add options of tools that read a config and a checkpoint."""
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help="override settings of the config, for example model.backbone.depth=101 'data.list=[a,b]'")
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option for checkpoints that could run code."""
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that hold more than tensors and plain values, which runs code that is in them')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the options for distributed runs; a launcher gives the rank."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_choice(parser: argparse.ArgumentParser, count: int) -> None:
    """Add the options that choose images by their occlusion, and say how annotations are read."""
    from .evaluation.options import add_ratio_options, add_reading_options
    parser.add_argument('--bucket', nargs=2, type=float, default=(.8, .9), metavar=('LOW', 'HIGH'),
                        help='images with LOW <= r < HIGH (default: 0.8 0.9); 0 0 for those without occlusion')
    parser.add_argument('--num', type=int, default=count, help=f'number of images ({count})')
    parser.add_argument('--seed', type=int, default=0, help='chooses the images (0)')
    parser.add_argument('--skip-missing', action='store_true', help='skip images whose files are missing')
    add_ratio_options(parser)
    add_reading_options(parser)


def choice_of(args: argparse.Namespace) -> 'Choice':
    """Return the choice that the options of `add_choice` state; raise a ValueError for one that holds no images."""
    from .analysis.example_images import Choice
    from .evaluation.buckets import bucket_between
    check_sampling(args.num, args.seed)
    return Choice(bucket_between(*args.bucket), args.num, args.definition, args.same_category, args.seed, args.skip_missing)


def check_sampling(num: int, seed: int) -> None:
    """Raise a ValueError for values of --num and --seed with which no images can be chosen."""
    if num < 1:
        raise ValueError(f'--num {num}: at least 1 is needed')
    if seed < 0:
        raise ValueError(f'--seed {seed}: 0 or more is needed')
