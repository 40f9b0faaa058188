#!/usr/bin/env python
"""Write one HTML page from the reports of one or more runs, side by side as in Figure 7 of the paper.

    mmtied report compared.html work_dirs/r50/occlusion work_dirs/tied/occlusion --names R50 TiedR50
    mmtied report compared.html --a r50/seed0 r50/seed1 r50/seed2 --b tied/seed0 tied/seed1 tied/seed2 --names R50 TiedR50

Each folder contains a report.json from OcclusionEvalHook or `mmtied eval`, and the records.npz needed for paired differences
from the first run. --a and --b take several runs per side with different seeds; the page shows their means.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='HTML file to write')
    parser.add_argument('folders', nargs='*', metavar='FOLDER',
                        help='report.json files or their folders; the first is the baseline')
    parser.add_argument('--a', nargs='+', metavar='RUN', help='baseline runs with different seeds, instead of folders')
    parser.add_argument('--b', nargs='+', metavar='RUN', help='runs to compare with --a, with different seeds')
    parser.add_argument('--names', nargs='+', help='name of each run or side (default: its saved --name, or one from its folder)')
    parser.add_argument('--format', choices=FORMATS, help="also write the page's curves as files beside it, such as "
                        'compared_bbox_AP.pdf')
    parser.add_argument('--hide-empty', action='store_true', help='hide buckets without instances')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the reports, write the page."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        require(['matplotlib', 'jinja2'], 'The report page')
        if not args.out.lower().endswith(('.html', '.htm')):
            raise ValueError(f'{args.out}: expected a file name that ends in .html')
        if bool(args.a) != bool(args.b) or bool(args.a) == bool(args.folders):
            raise ValueError('give folders, the baseline first, or both --a RUN ... and --b RUN ...')
        check_can_write(args.out, 'the page')
        from mmtied.evaluation.inputs.faults import naming
        from mmtied.evaluation.reporting.page import write_curves, write_page
        from mmtied.evaluation.reporting.runs import read_sides
        from mmtied.evaluation.summary import without_empty_buckets

        sides = [args.a, args.b] if args.a else [[folder] for folder in args.folders]
        with naming(', '.join(folder for side in sides for folder in side)):  # values are checked where they are shown
            runs, comparison = read_sides(sides, args.names)
            if args.hide_empty:
                runs = [run._replace(report=without_empty_buckets(run.report)) for run in runs]
            curves = write_curves(args.out, runs, args.format) if args.format else ()
            for path in (write_page(args.out, runs, comparison=comparison), *curves):
                print(f'wrote {path}')


if __name__ == '__main__':
    main()
