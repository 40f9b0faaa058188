#!/usr/bin/env python
"""Run the experiments behind docs/evidence.md, each run only if its results are not there yet.

    python experiments/run.py occlusion                            # every run that is missing, one after the other
    python experiments/run.py occlusion --jobs 2                   # two at a time, one thread each
    python experiments/run.py occlusion --only 'tied/*' r50/seed0  # these
    python experiments/run.py occlusion --list

A run that was killed goes on from its last checkpoint in work_dirs/experiments. What is kept of a finished one are small files
in experiments/results; experiments/page.py makes the page of them.
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
    parser.add_argument('--preset', choices=('cpu', 'gpu'), default='cpu', help='size of the experiment (cpu)')
    parser.add_argument('--only', nargs='+', metavar='MODEL/SEED', default=['*'], help="runs, for example 'tied/*' or */seed0")
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time (1)')
    parser.add_argument('--list', action='store_true', help='list the runs, and which are done')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder of the data sets (data)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/experiments'), help='checkpoints and logs')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)  # train in this process
    return parser.parse_args()


def main() -> None:
    """List or train."""
    args = parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mmtied.cli import user_errors
    with user_errors(after_interrupt=lambda: 'the same command goes on from the last checkpoints'):
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
    """Return the runs that ``--only`` names.

    Raises:
        ValueError: A pattern fits no run.
    """
    from experiments.runs import planned_runs
    seeds = module.PRESETS[args.preset].seeds
    runs = planned_runs(args.experiment, args.preset, module.MODELS, seeds)
    for pattern in args.only:
        if not any(fnmatch(run.name, pattern) for run in runs):
            raise ValueError(f'--only {pattern}: no such run; there are {", ".join(module.MODELS)}, each with seed0 to '
                             f'seed{seeds - 1}, for example {runs[0].name}')
    return [run for run in runs if any(fnmatch(run.name, pattern) for pattern in args.only)]


def train_each(args: argparse.Namespace, runs: list) -> None:
    """Train each run in a process of its own, some at a time.

    Raises:
        ValueError: Some failed; the others were finished before.
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
