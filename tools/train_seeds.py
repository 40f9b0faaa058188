#!/usr/bin/env python
"""Train a config with several seeds, and report the mean and standard deviation of each metric.

    mmtied seeds configs/cifar/igc_l24m2_d20_cifar10.py --runs 5 --amp    # also takes the options of `mmtied train`
    mmtied seeds --summarize work_dirs/igc_l24m2_d20_cifar10              # only the summary

Each seed trains in <work-dir>/seed_N. Running the same command again skips finished runs and resumes an interrupted one. The
summary covers each run's last validation and is also written to <work-dir>/seeds.json.
"""

import argparse
import sys
from pathlib import Path


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; return the options for tools/train.py unparsed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument('config', nargs='?', help='config file, or package::folder/file.py for one that a package ships')
    parser.add_argument('--runs', type=int, default=5, help='number of runs (default: %(default)s)')
    parser.add_argument('--first-seed', type=int, default=0,
                        help='seed of the first run; later runs count up (default: %(default)s)')
    parser.add_argument('--work-dir', help="folder of all runs (default: work_dirs/<config's name>)")
    parser.add_argument('--gpus', type=int, help='number of GPUs per run, started by tools/dist_train.sh')
    parser.add_argument('--summarize', metavar='DIR', help='train nothing; summarize the finished runs in this folder')
    args, others = parser.parse_known_args()
    if (args.config is None) == (args.summarize is None):
        parser.error('give either a config or --summarize DIR')
    if args.runs < 1 or args.first_seed < 0:
        parser.error(f'--runs {args.runs} --first-seed {args.first_seed}: expected at least 1 run and a seed of at least 0')
    if args.gpus is not None and args.gpus < 1:
        parser.error(f'--gpus {args.gpus}: expected at least 1')
    if args.summarize and others:
        parser.error(f'--summarize takes no other options, got {" ".join(others)}')
    return args, others


def main() -> None:
    """Train, and print the summary."""
    args, others = parse_args()
    from mmtied.cli import user_errors
    with user_errors():
        from mmtied.launch import seeds
        work_dir = Path(args.summarize or args.work_dir or f'work_dirs/{Path(args.config).stem}')
        if args.config:
            tools = Path(__file__).resolve().parent
            command = ([sys.executable, str(tools / 'train.py'), args.config] if args.gpus is None else
                       ['bash', str(tools / 'dist_train.sh'), args.config, str(args.gpus)])
            seeds.train_seeds(command, work_dir, range(args.first_seed, args.first_seed + args.runs), others)
        print(seeds.report_spreads(seeds.summarize_seeds(work_dir), work_dir / 'seeds.json'))


if __name__ == '__main__':
    main()
