#!/usr/bin/env python
"""Is one run better than another, and at which occlusion? Differences of AP with paired bootstrap intervals.

    python tools/compare_runs.py work_dirs/r50/occlusion work_dirs/tied_r50/occlusion --out comparison/

Each run is a folder with the records.npz that an evaluation by mmtied writes beside report.json, or such a file. With more than
two, each is compared with the first. Prints a table for each IoU type and statistic and, with --out, writes comparison.json and
comparison.csv.
"""

import argparse
import os
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.protocol import IOU_TYPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', help='folders with records.npz, or such files; the first is the baseline')
    parser.add_argument('--labels', nargs='+', help='a name for each run (default: from the paths)')
    parser.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='default: what all runs have')
    parser.add_argument('--replicates', type=int, default=1000, help='bootstrap replicates (1000)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draws (0)')
    parser.add_argument('--level', type=float, default=.95, help='share of the replicates inside an interval (0.95)')
    parser.add_argument('--out', help='folder for comparison.json and comparison.csv')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print, write."""
    args = parse_args(argv)
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        require('rich', 'The comparison')
        from mmtied.evaluation import Bootstrap, compare
        from mmtied.evaluation.records import name_runs
        from mmtied.evaluation.reporting.tables import format_comparison

        comparison = compare(*args.runs, names=args.labels or name_runs(args.runs), iou_types=args.iou_type,
                             bootstrap=Bootstrap(args.replicates, args.seed, args.level))
        print(format_comparison(comparison.report))
        for path in comparison.save(args.out) if args.out else ():
            print(f'wrote {path}')


if __name__ == '__main__':
    os.environ.setdefault('MMTIED_REGISTER', '0')  # the models and their dependencies are not needed
    main()
