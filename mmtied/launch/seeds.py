"""Train a config with several seeds, and summarize the runs as mean and standard deviation."""

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

#: Marker file of a finished run.
_FINISHED = 'finished'
#: Entries of mmengine's log that are not metrics.
_NO_METRICS = ('data_time', 'time', 'step', 'epoch', 'iter', 'memory')


def train_seeds(command: Sequence[str], work_dir: str | os.PathLike, seeds: Iterable[int], options: Sequence[str] = ()) -> None:
    """Train once per seed, one run after another, in ``<work_dir>/seed_<seed>``.

    Finished runs are skipped, and an interrupted one resumes from its last checkpoint. A failing run ends the series; the runs
    before it are kept.
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
            raise ValueError(f'train_seeds: the run of seed {seed} ended with exit code {code}; run the same '
                             'command again to continue')
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FINISHED).touch()


def summarize_seeds(work_dir: str | os.PathLike) -> dict[str, dict]:
    """Return ``values`` by seed, ``mean`` and ``deviation`` of each metric common to all finished runs of `train_seeds`.

    The deviation is the sample standard deviation (N - 1), or nan for one run.
    """
    runs = {int(path.parent.name.removeprefix('seed_')): last_metrics(path.parent)
            for path in Path(work_dir).glob(f'seed_*/{_FINISHED}') if path.parent.name.removeprefix('seed_').isdigit()}
    if not runs:
        raise ValueError(f'train_seeds: no finished runs in {Path(work_dir)}; expected folders seed_N with a file '
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
        raise ValueError(f'train_seeds: no metric is logged by all {len(runs)} runs in {Path(work_dir)}; was '
                         'validation on?')
    return spreads


def last_metrics(folder: Path) -> dict[str, float]:
    """Return the metrics of the last validation in a run's work_dir; empty if there was none."""
    metrics = {}
    for entry in logged_entries(folder):
        if 'lr' not in entry:  # not a training step
            found = {name: value for name, value in entry.items() if name not in _NO_METRICS and isinstance(value, (int, float))}
            try:
                metrics = {name: float(value) for name, value in found.items()} or metrics
            except OverflowError:
                raise ValueError(f'{folder}: its log has an integer too large for a metric') from None
    return metrics


def logged_entries(folder: Path) -> Iterator[dict]:
    """Yield the scalars that mmengine logged in a work_dir; each start of the run has a file, read in order.

    The last line of a file is skipped if a killed run left it incomplete.
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
                raise ValueError(f'{path}: line {number} is not a JSON object, expected a log of mmengine')


def _plain(value: float | Mapping) -> float | dict | None:
    """Replace nan and infinity, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value if math.isfinite(value) else None


def report_spreads(spreads: Mapping[str, dict], path: str | os.PathLike) -> str:
    """Return a table of means and deviations, and write them as JSON with the values of all seeds; undefined ones are null."""
    save_text(path, json.dumps(_plain(spreads), indent=2, allow_nan=False))
    number = len(next(iter(spreads.values()))['values'])
    rows = [(name, f'{spread["mean"]:.4g}', f'{spread["deviation"]:.2g}') for name, spread in spreads.items()]
    return text_table(f'last validation of {number} run{"s" if number > 1 else ""}', ('metric', 'mean', 'deviation'), rows)
