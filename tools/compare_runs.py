#!/usr/bin/env python
"""Compare the AP of runs by occlusion, with paired confidence intervals.

    mmtied compare work_dirs/r50/occlusion work_dirs/tied_r50/occlusion --out comparison/
    mmtied compare --a r50/seed0 r50/seed1 r50/seed2 --b tied/seed0 tied/seed1 tied/seed2 --labels R50 TiedR50

Each run is a records.npz, which evaluations by mmtied write beside report.json, or its folder. Every run is compared with the
first. --a and --b take several runs per side with different seeds and compare their means; the intervals then cover images and
seeds. Prints a table in percent for each IoU type and statistic. --out also writes comparison.json and comparison.csv (as
fractions), comparison.tex (for LaTeX's booktabs), and plots of the differences over r.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.protocol import IOU_TYPES
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='*', help='records.npz files or their folders; the first is the baseline')
    parser.add_argument('--a', nargs='+', metavar='RUN', help='baseline runs with different seeds, instead of positional runs')
    parser.add_argument('--b', nargs='+', metavar='RUN', help='runs to compare with --a, with different seeds')
    parser.add_argument('--labels', '--names', nargs='+',
                        help='label of each run (default: its saved --name, or one from its path)')
    parser.add_argument('--statistics', nargs='+', metavar='NAME',
                        help='statistics to compare, such as MR-2 (default: AP AP50 AP75)')
    parser.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='IoU types to compare (default: those in all runs)')
    parser.add_argument('--replicates', type=int, default=1000, help='random halves and quarters of the images behind the '
                        'intervals, rounded up to a multiple of ten (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of these samples (default: %(default)s)')
    parser.add_argument('--level', type=float, default=.95, help='confidence level of the intervals (default: %(default)s)')
    parser.add_argument('--out', help='output folder for comparison.json, comparison.csv, comparison.tex and plots')
    parser.add_argument('--format', choices=FORMATS, default='png', help='format of the plots (default: %(default)s)')
    parser.add_argument('--hide-empty', action='store_true',
                        help='hide buckets without a value; the JSON and CSV files keep them')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        if bool(args.a) != bool(args.b) or (args.a and args.runs):
            raise ValueError('give runs, the baseline first, or both --a RUN ... and --b RUN ...')
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
