"""Command-line options that the tools share: how annotations are read, and which ratio and buckets are used."""

import argparse
from typing import TYPE_CHECKING

from .occlusion import OCCLUSION_RATIOS
from .protocol import BOX_FORMATS, DEFAULT_EDGES, UNITS

if TYPE_CHECKING:
    from .buckets import Evaluation

#: Options of `add_reading_options` that are arguments of `read_ground_truth`, by their name there.
_READING = {'annotation_format': 'box_format', **{name: name for name in (
    'ignore_key', 'ignore_categories', 'skip_invalid', 'drop_duplicates', 'swap_sizes', 'protocol')}}


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add options of `read_ground_truth`."""
    parser.add_argument('--annotation-format', choices=BOX_FORMATS, default='xywh',
                        help="format of the annotations' boxes (xywh); a final n means shares of the image")
    parser.add_argument('--ignore-key', nargs='+', default=(), metavar='KEY',
                        help='annotations where this key is true are ignored regions: detections inside count neither way, and '
                        'they occlude nothing')
    parser.add_argument('--ignore-categories', nargs='+', default=(), metavar='NAME',
                        help='annotations of these categories are regions where detections of every category are ignored')
    parser.add_argument('--swap-sizes', action='store_true', help='exchange width and height of every image')
    parser.add_argument('--skip-invalid', action='store_true', help='leave out entries that cannot be used, and count them')
    parser.add_argument('--drop-duplicates', action='store_true',
                        help='keep one of annotations with the same image, category and box')


def reading_options(args: argparse.Namespace) -> dict:
    """Return the arguments of `read_ground_truth` that the options of `add_reading_options` state."""
    return {name: getattr(args, option) for option, name in _READING.items() if hasattr(args, option)}


def add_ratio_options(parser: argparse.ArgumentParser, also: str = '') -> None:
    """Add the options that choose the occlusion ratio; `also` names further definitions."""
    parser.add_argument('--definition', default='covered',
                        help=f'occlusion ratio: {", ".join(OCCLUSION_RATIOS)} (covered){also}')
    parser.add_argument('--same-category', action='store_true', help='only instances of one category occlude each other')


def add_bucket_options(parser: argparse.ArgumentParser, unit: str = 'unit that is bucketed') -> None:
    """Add the options that choose the buckets; `unit` says what the unit decides."""
    parser.add_argument('--edges', nargs='+', type=float, default=DEFAULT_EDGES, help='bucket edges (default: 0 0.1 ... 1)')
    parser.add_argument('--cumulative', action='store_true', help='buckets r >= t for every edge instead of disjoint ones')
    parser.add_argument('--unit', default='image', help=f'{unit}: {" or ".join(UNITS)} (image)')


def evaluation_of(args: argparse.Namespace) -> 'Evaluation':
    """Return the evaluation that the options of `add_ratio_options` and `add_bucket_options` state."""
    from .buckets import Evaluation
    return Evaluation(args.definition, args.edges, args.unit, args.cumulative, args.same_category, getattr(args, 'levels', None))
