#!/usr/bin/env python
"""Run the experiments behind docs/evidence.md, skipping runs that already have results.

    python experiments/run.py occlusion                            # all missing runs, one after another
    python experiments/run.py occlusion --jobs 2                   # two at a time, one thread each
    python experiments/run.py occlusion --only 'tied/*' r50/seed0  # only these
    python experiments/run.py occlusion --list

An interrupted run resumes from its last checkpoint in work_dirs/experiments. A finished run keeps small files in
experiments/results, from which experiments/page.py generates the page.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

EXPERIMENTS = ('occlusion', 'cells', 'classification', 'warm_start')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment', choices=EXPERIMENTS)
    parser.add_argument('--preset', choices=('cpu', 'gpu'), default='cpu', help='size of the experiment (default: %(default)s)')
    parser.add_argument('--only', nargs='+', metavar='MODEL/SEED', default=['*'],
                        help="runs to train, such as 'tied/*' or */seed0 (default: all)")
    parser.add_argument('--jobs', type=int, default=1, help='number of parallel runs (default: %(default)s)')
    parser.add_argument('--list', action='store_true', help='list the runs and their state')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder of the data sets (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/experiments'),
                        help='folder for checkpoints and logs (default: %(default)s)')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)  # train in this process
    return parser.parse_args()


def main() -> None:
    """List or train."""
    args = parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mmtied.cli import user_errors
    with user_errors(after_interrupt=lambda: 'run the same command again to resume from the last checkpoints'):
        if args.jobs < 1:
            raise ValueError(f'--jobs {args.jobs}: expected 1 or more')
        module = import_module(f'experiments.{args.experiment}')
        chosen = choose_runs(args, module)
        if args.list:
            for run in chosen:
                state = 'damaged' if run.is_damaged else 'done' if run.is_done else ''
                print(f'{run.name:20} {state}'.rstrip())
            return
        module.prepare(args.preset, args.data)
        missing = [run for run in chosen if not run.is_done or run.is_damaged]
        if args.here:
            from experiments.runs import use_one_thread
            use_one_thread()
            for run in missing:
                module.train(run, args.data, args.work_dir)
        else:
            train_each(args, missing)


def choose_runs(args: argparse.Namespace, module) -> list:
    """Return the runs selected by ``--only``.

    Raises:
        ValueError: A pattern matches no run.
    """
    from experiments.runs import planned_runs
    seeds = module.PRESETS[args.preset].seeds
    runs = planned_runs(args.experiment, args.preset, module.MODELS, seeds)
    for pattern in args.only:
        if not any(fnmatch(run.name, pattern) for run in runs):
            raise ValueError(f'--only {pattern}: no such run; expected one of {", ".join(module.MODELS)}, each with seed0 '
                             f'to seed{seeds - 1}, for example {runs[0].name}')
    return [run for run in runs if any(fnmatch(run.name, pattern) for pattern in args.only)]


def train_each(args: argparse.Namespace, runs: list) -> None:
    """Train each run in its own process, several in parallel.

    Raises:
        ValueError: Some runs failed, after all others have finished.
    """
    def start(run) -> str | None:
        log = run.work_dir(args.work_dir) / 'log.txt'
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, run.experiment, '--preset', run.preset, '--only', run.name, '--here', '--data',
                   str(args.data), '--work-dir', str(args.work_dir)]
        print(f'{run.name}: training, log in {log}', flush=True)
        with log.open('a', encoding='utf-8') as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False,
                                  env={'OMP_NUM_THREADS': '1', **os.environ}).returncode
        print(f'{run.name}: ' + ('done' if code == 0 else f'failed with exit code {code}'), flush=True)
        return None if code == 0 else f'{run.name} (see {log})'

    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [failure for failure in pool.map(start, runs) if failure]
    if failed:
        raise ValueError(f'{len(failed)} of {len(runs)} runs failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
