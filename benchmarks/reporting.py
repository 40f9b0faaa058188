"""Options, tables and CSV files shared by all benchmarks.

A benchmark prints a Markdown table. With ``--csv FILE`` it also writes the rows there, and a line on machine and versions to
``runs.csv`` beside it. ``benchmarks/summarize.py`` turns the CSV files under docs/benchmarks/ into docs/benchmarks.md.
"""

import argparse
import csv
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from mmtied.atomic import atomic_path
from mmtied.compat import installed_version, processor_name
from mmtied.tables import markdown_table

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
PACKAGES = ('torch', 'mmtied', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'mmcv', 'mmdet', 'mmpretrain')
#: CSV file with one row per measured file: command, machine and note.
RUNS = 'runs.csv'


def add_options(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
    """Add the options of every benchmark."""
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeats', type=int, default=repeats,
                        help='turns of all contenders; tables show medians (default: %(default)s)')
    parser.add_argument('--threads', type=int, help='CPU threads of torch (default: chosen by torch)')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the rows here, and the machine to runs.csv beside it')
    parser.add_argument('--note', default='', help='a sentence about the run for runs.csv')


def add_timing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of benchmarks that time layers and networks."""
    add_options(parser)
    parser.add_argument('--least-ms', type=float, default=20, help='minimum duration of one measurement in milliseconds')
    parser.add_argument('--quick', action='store_true', help='tiny sizes and two turns: a smoke test, not a measurement')
    parser.add_argument('--cudnn-benchmark', action='store_true',
                        help='let cuDNN benchmark its algorithms, which mmengine does not')


def apply_options(args: argparse.Namespace) -> None:
    """Check the common options and configure torch.

    Raises:
        ValueError: An unusable device, number or file name.
    """
    try:
        device = torch.device(args.device)
        kind = None if device.type == 'cpu' and device.index else device.type
    except RuntimeError:
        kind = None
    if kind not in ('cpu', 'cuda'):
        raise ValueError(f'--device {args.device}: use cpu, cuda or cuda:N')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device}: torch finds no GPU; use --device cpu')
    for option in ('repeats', 'threads', 'batch'):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            raise ValueError(f'--{option} {value}: must be 1 or more')
    if not 0 <= getattr(args, 'least_ms', 0) < math.inf:
        raise ValueError(f'--least-ms {args.least_ms}: must be 0 or more milliseconds')
    if args.csv and (args.csv.suffix != '.csv' or args.csv.name == RUNS):
        raise ValueError(f'--csv {args.csv}: name a .csv file other than {RUNS}')
    if args.csv and not (args.csv.parent.is_dir() and os.access(args.csv.parent, os.W_OK)):
        raise ValueError(f'--csv {args.csv}: its folder does not exist or is read-only')
    if getattr(args, 'quick', False):
        args.repeats, args.least_ms = min(args.repeats, 2), 0
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = getattr(args, 'cudnn_benchmark', False)


def image_size(values: Sequence[int]) -> tuple[int, int]:
    """Return height and width from one number or two.

    Raises:
        ValueError: Not one or two positive numbers.

    Example:
        >>> image_size([224])
        (224, 224)
    """
    if len(values) not in (1, 2) or min(values) < 1:
        raise ValueError(f'--size {" ".join(map(str, values))}: give one side, or height and width, in pixels')
    return values[0], values[-1]


def report(args: argparse.Namespace, title: str, rows: Iterable[Mapping[str, object]],
           packages: Sequence[str] = PACKAGES) -> None:
    """Print the rows as a Markdown table and write them to ``--csv``.

    The file is rewritten after every row, so that a benchmark that is stopped leaves what it has measured.
    """
    machine, done = describe_machine(packages, args.device), []
    for row in rows:
        done.append(row)
        if args.csv:
            if len(done) == 1:
                _write_run(args, title, machine)
            write_csv(args.csv, done)
    print(f'{title}\n\n{markdown_table(list(done[0]), [list(row.values()) for row in done])}\n\n{machine} {args.note}')


def _write_run(args: argparse.Namespace, title: str, machine: str) -> None:
    """Write or replace the line on ``--csv`` in `RUNS`."""
    runs = {run['file']: run for run in read_csv(args.csv.with_name(RUNS))}
    arguments = [Path(text).name if Path(text).is_absolute() else text for text in sys.argv[1:]]  # no machine-specific paths
    command = shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *arguments])
    runs[args.csv.name] = dict(file=args.csv.name, command=command, title=title, machine=machine, note=args.note)
    write_csv(args.csv.with_name(RUNS), [runs[name] for name in sorted(runs)])


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with equal keys atomically."""
    with atomic_path(path) as partial, partial.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; a missing file has none."""
    if not path.exists():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def describe_machine(packages: Sequence[str], device: str = 'cpu') -> str:
    """Describe processor, GPU, threads, load and package versions in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    parts = [f'{cores} cores of {processor_name()}', f'{torch.get_num_threads()} threads']
    if torch.device(device).type == 'cuda':
        tf32 = 'on' if torch.backends.cudnn.allow_tf32 else 'off'
        mode = 'on' if torch.backends.cudnn.benchmark else 'off'
        parts += [torch.cuda.get_device_name(device), f'cuDNN {torch.backends.cudnn.version()} (benchmark {mode}, TF32 {tf32})']
    parts += [f'load average {os.getloadavg()[0]:.1f}'] if hasattr(os, 'getloadavg') else []
    parts += [f'Python {platform.python_version()}']
    return ', '.join(parts + [f'{package} {found}' for package in packages if (found := installed_version(package))]) + '.'
