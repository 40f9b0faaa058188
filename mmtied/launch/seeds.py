"""Several runs of a config with different seeds, and a summary over them: "mean and deviation over five runs"."""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmtied.atomic import save_text
from mmtied.tables import text_table

#: A finished run has this file.
_FINISHED = 'finished'
#: What mmengine logs beside metrics.
_NO_METRICS = ('data_time', 'time', 'step', 'epoch', 'iter', 'memory')


def train_seeds(command: Sequence[str], work_dir: str | os.PathLike, seeds: Iterable[int], options: Sequence[str] = ()) -> None:
    """Train once for each seed, one run after another, each in ``<work_dir>/seed_<seed>``.

    Runs that are finished are left alone, and one that was interrupted resumes from its last checkpoint. A run that fails ends
    this; the runs before it are kept.
    """
    for seed in seeds:
        folder = Path(work_dir) / f'seed_{seed}'
        if (folder / _FINISHED).is_file():
            print(f'{folder} is finished')
            continue
        resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
        code = subprocess.run([*command, '--work-dir', str(folder), *resume, *options,
                               '--cfg-options', f'randomness.seed={seed}'], check=False,
                              env={'PYTHON': sys.executable, **os.environ}).returncode
        if code == 2:
            sys.exit(code)
        if code:
            raise ValueError(f'train_seeds: the run of seed {seed} ended with exit code {code}; the same command '
                             'goes on from here')
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FINISHED).touch()


def summarize_seeds(work_dir: str | os.PathLike) -> dict[str, dict]:
    """Return ``values`` by seed, ``mean`` and ``deviation`` of each metric that all finished runs of `train_seeds` have.

    The deviation is that of a sample (with N - 1), nan for one run.
    """
    runs = {int(path.parent.name.removeprefix('seed_')): last_metrics(path.parent)
            for path in Path(work_dir).glob(f'seed_*/{_FINISHED}') if path.parent.name.removeprefix('seed_').isdigit()}
    if not runs:
        raise ValueError(f'train_seeds: no finished runs in {Path(work_dir)}; they are its folders seed_N with a file '
                         f'"{_FINISHED}"')
    runs = dict(sorted(runs.items()))
    first, *others = runs.values()
    spreads = {}
    for name in first:
        if all(name in other for other in others):
            values = {seed: metrics[name] for seed, metrics in runs.items()}
            deviation = statistics.stdev(values.values()) if len(values) > 1 else math.nan
            spreads[name] = {'values': values, 'mean': statistics.fmean(values.values()), 'deviation': deviation}
    if not spreads:
        raise ValueError(f'train_seeds: no metric in the logs of all {len(runs)} runs in {Path(work_dir)}; did they '
                         'validate?')
    return spreads


def last_metrics(folder: Path) -> dict[str, float]:
    """Return the metrics of the last validation in a run's work_dir, empty without one."""
    metrics = {}
    for entry in logged_entries(folder):
        if 'lr' not in entry:  # not of a training step
            found = {name: value for name, value in entry.items() if name not in _NO_METRICS and isinstance(value, (int, float))}
            try:
                metrics = {name: float(value) for name, value in found.items()} or metrics
            except OverflowError:
                raise ValueError(f'{folder}: its log has an integer that is too large for a metric') from None
    return metrics


def logged_entries(folder: Path) -> Iterator[dict]:
    """Yield what mmengine logged as scalars in a work_dir, in the order of the starts of the run, of which each has a file.

    The last line of a file, which a killed run may have cut, is left out where it is not a JSON object.
    """
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        lines = path.read_bytes().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if isinstance(entry, dict):
                yield entry
            elif number < len(lines):
                raise ValueError(f'{path}: line {number} is not a JSON object, as mmengine logs them')


def _plain(value: float | Mapping) -> float | dict | None:
    """Replace numbers that JSON does not know by None."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value if math.isfinite(value) else None


def report_spreads(spreads: Mapping[str, dict], path: str | os.PathLike) -> str:
    """Return a table of means and deviations, and write them with the values of all seeds as JSON, null where undefined."""
    save_text(path, json.dumps(_plain(spreads), indent=2, allow_nan=False))
    number = len(next(iter(spreads.values()))['values'])
    rows = [(name, f'{spread["mean"]:.4g}', f'{spread["deviation"]:.2g}') for name, spread in spreads.items()]
    return text_table(f'last validation of {number} run{"s" if number > 1 else ""}', ('metric', 'mean', 'deviation'), rows)
