#!/usr/bin/env python
"""Is one run better than another, and at which occlusion? Differences of AP with paired intervals.

    mmtied compare work_dirs/r50/occlusion work_dirs/tied_r50/occlusion --out comparison/
    mmtied compare --a r50/seed0 r50/seed1 r50/seed2 --b tied/seed0 tied/seed1 tied/seed2 --labels R50 TiedR50

Each run is a folder with the records.npz that an evaluation by mmtied writes beside report.json, or such a file. With more than
two, each is compared with the first. --a and --b take several runs a side that differ in their seed: their means are compared,
and the intervals cover images and seeds. Prints a table in percent for each IoU type and statistic and, with --out, writes
comparison.json and comparison.csv (fractions), comparison.tex (for LaTeX's booktabs), and plots of the differences over r.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.protocol import IOU_TYPES
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='*', help='folders with records.npz, or such files; the first is the baseline')
    parser.add_argument('--a', nargs='+', metavar='RUN', help='runs of the baseline that differ in their seed, instead of '
                        'positional runs')
    parser.add_argument('--b', nargs='+', metavar='RUN', help='runs of the other recipe with different seeds')
    parser.add_argument('--labels', '--names', nargs='+', help='a name for each run (default: as saved with --name, or from the '
                        'paths)')
    parser.add_argument('--statistics', nargs='+', metavar='NAME', help='statistics to compare, such as MR-2 (default: AP AP50 '
                        'AP75)')
    parser.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='default: what all runs have')
    parser.add_argument('--replicates', type=int, default=1000, help='random halves and quarters of the images, rounded up to '
                        'tens (1000)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draws (0)')
    parser.add_argument('--level', type=float, default=.95, help='share of data sets whose interval holds the expected '
                        'difference (0.95)')
    parser.add_argument('--out', help='folder for comparison.json, comparison.csv, comparison.tex and plots')
    parser.add_argument('--format', choices=FORMATS, default='png', help='format of the plots (png)')
    parser.add_argument('--hide-empty', action='store_true', help='show no buckets without a value; the JSON and CSV files have '
                        'them all')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        if bool(args.a) != bool(args.b) or (args.a and args.runs):
            raise ValueError('give runs, of which the first is the baseline, or both --a RUN ... and --b RUN ...')
        if args.out:
            require('matplotlib', 'The plots that --out writes')
            check_can_write(args.out, '--out', folder=True)
        from mmtied.evaluation import Bootstrap, compare, read_records
        from mmtied.evaluation.records import name_runs

        if args.a:
            runs, names = [list(map(read_records, side)) for side in (args.a, args.b)], ['a', 'b']
        else:
            runs = list(map(read_records, args.runs))
            names = name_runs(args.runs, [run.name for run in runs])
        comparison = compare(*runs, names=args.labels or names, iou_types=args.iou_type,
                             bootstrap=Bootstrap(args.replicates, args.seed, args.level, statistics=args.statistics))
        print(comparison.text(args.statistics, args.hide_empty))
        for path in comparison.save(args.out, args.statistics, args.format, args.hide_empty) if args.out else ():
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
