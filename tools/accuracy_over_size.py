#!/usr/bin/env python
"""Plot COCO AP over backbone size: the figures printed in the paper, and your own results.

    mmtied sizes --out sizes.png --add mine.csv --run CONFIG work_dirs/run/occlusion/report.json

CSV columns: detector (RetinaNet, Cascade R-CNN or Mask R-CNN), backbone, params (millions), box_ap and mask_ap (%).
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, help='figure to write: .png, .jpg, .pdf or .svg')
    parser.add_argument('--add', nargs='+', default=[], metavar='CSV', help='files with results to add')
    parser.add_argument('--run', nargs=2, action='append', default=[], metavar=('CONFIG', 'REPORT'),
                        help='detector to add: its config, for the number of parameters, and its report.json')
    parser.add_argument('--only-printed', action='store_true',
                        help="leave out the baselines from MMDetection's model zoo")
    return parser.parse_args()


def main() -> None:
    """Read, count, plot, write."""
    args = parse_args()
    from mmtied.cli import user_errors
    from mmtied.compat import require
    with user_errors():
        require('matplotlib', 'Plotting')
        from mmtied.analysis.accuracy_over_size import (
            plot_accuracy_over_size,
            printed_points,
            read_points,
            zoo_points,
        )
        from mmtied.plotting import check_figure_path, write_figure

        check_figure_path(args.out)
        points = printed_points() + ([] if args.only_printed else zoo_points())
        for path in args.add:
            points += read_points(path)
        if args.run:
            require(['mmengine', 'mmcv', 'mmdet'], 'Counting the backbone of a config')
            from mmtied.launch.networks import run_point
            points += [run_point(config, report) for config, report in args.run]
        write_figure(plot_accuracy_over_size(points), args.out)
        print(f'wrote {args.out}: {len(points)} detectors')


if __name__ == '__main__':
    main()
