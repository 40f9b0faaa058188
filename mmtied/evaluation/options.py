"""Command-line options shared by the tools: reading annotations, the occlusion ratio, and buckets."""

import argparse
from typing import TYPE_CHECKING

from .occlusion import OCCLUSION_RATIOS
from .protocol import BOX_FORMATS, DEFAULT_EDGES, UNITS

if TYPE_CHECKING:
    from .buckets import Evaluation

#: Options of `add_reading_options`, by the argument of `read_ground_truth` that they set.
_READING = {'annotation_format': 'box_format', **{name: name for name in (
    'ignore_key', 'ignore_categories', 'skip_invalid', 'drop_duplicates', 'swap_sizes', 'protocol')}}


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add options of `read_ground_truth`."""
    parser.add_argument('--annotation-format', choices=BOX_FORMATS, default='xywh',
                        help="format of the annotations' boxes (xywh); a final n means normalized by the image size")
    parser.add_argument('--ignore-key', nargs='+', default=(), metavar='KEY',
                        help='annotations in which this key is true are ignore regions: detections inside them are ignored, and '
                        'they occlude nothing')
    parser.add_argument('--ignore-categories', nargs='+', default=(), metavar='NAME',
                        help='annotations of these categories are ignore regions for detections of every category')
    parser.add_argument('--swap-sizes', action='store_true', help='swap width and height of every image')
    parser.add_argument('--skip-invalid', action='store_true', help='skip and count invalid entries')
    parser.add_argument('--drop-duplicates', action='store_true',
                        help='keep only one of several annotations with the same image, category and box')


def reading_options(args: argparse.Namespace) -> dict:
    """Return the arguments of `read_ground_truth` set by the options of `add_reading_options`."""
    return {name: getattr(args, option) for option, name in _READING.items() if hasattr(args, option)}


def add_ratio_options(parser: argparse.ArgumentParser, also: str = '') -> None:
    """Add the options for the occlusion ratio; `also` describes additional definitions."""
    parser.add_argument('--definition', default='covered',
                        help=f'occlusion ratio: {", ".join(OCCLUSION_RATIOS)} (covered){also}')
    parser.add_argument('--same-category', action='store_true', help='only instances of one category occlude each other')


def add_bucket_options(parser: argparse.ArgumentParser, unit: str = 'unit to bucket') -> None:
    """Add the options for the buckets; `unit` describes the unit in the help."""
    parser.add_argument('--edges', nargs='+', type=float, default=DEFAULT_EDGES, help='bucket edges (default: 0 0.1 ... 1)')
    parser.add_argument('--cumulative', action='store_true', help='buckets r >= t for every edge instead of disjoint ones')
    parser.add_argument('--unit', default='image', help=f'{unit}: {" or ".join(UNITS)} (image)')


def evaluation_of(args: argparse.Namespace) -> 'Evaluation':
    """Build the evaluation from the options of `add_ratio_options` and `add_bucket_options`."""
    from .buckets import Evaluation
    return Evaluation(args.definition, args.edges, args.unit, args.cumulative, args.same_category, getattr(args, 'levels', None))
