#!/usr/bin/env python
"""Measure the occlusion in a data set by bucket, size and category, and its correlation with crowding.

    mmtied stats instances_val2017.json --out occlusion_stats/

Prints tables. --out also writes stats.json, stats.csv and stats.png.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_bucket_options, add_ratio_options, add_reading_options
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file')
    add_ratio_options(parser)
    add_bucket_options(parser)
    add_reading_options(parser)
    parser.add_argument('--images', help='image folder, for sizes missing from the annotations')
    parser.add_argument('--high', type=float, default=.5,
                        help='lowest ratio that counts as high occlusion (default: %(default)s)')
    parser.add_argument('--top', type=int, default=20,
                        help='categories to print and plot; the files list all (default: %(default)s)')
    parser.add_argument('--out', help='output folder for stats.json, stats.csv and stats.png')
    parser.add_argument('--format', choices=FORMATS, default='png', help='format of the plot (default: %(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compute, print, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        if args.out:
            require('matplotlib', 'The plot that --out writes')
            check_can_write(args.out, '--out', folder=True)
        if args.top < 1:
            raise ValueError(f'--top {args.top}: expected at least 1')
        from mmtied.analysis.occlusion_stats import format_stats, occlusion_stats, write_stats
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.options import evaluation_of, reading_options

        evaluation = evaluation_of(args)
        ground_truth = read_ground_truth(args.annotations, image_folder=args.images, **reading_options(args))
        stats = occlusion_stats(ground_truth, evaluation, args.high)
        print(format_stats(stats, args.top))
        for path in write_stats(stats, args.out, args.top, args.format) if args.out else ():
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
