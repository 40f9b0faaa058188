"""Training runs of an experiment, and the folders of their results."""

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from mmtied.atomic import atomic_folder
from mmtied.compat import processor_name

HERE = Path(__file__).parent
#: Committed results: small files, one folder per run.
RESULTS = HERE / 'results'
#: Written last, so its presence marks a complete folder.
SUMMARY = 'run.json'


@dataclass(frozen=True)
class Run:
    """One training run with one seed.

    Attributes:
        experiment: Name of the experiment.
        preset: 'cpu' or 'gpu'.
        model: A key of the experiment's models.
        seed: Seed of weights, order and augmentation.
    """

    experiment: str
    preset: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """Path below the experiment's folder."""
        return f'{self.model}/seed{self.seed}'

    @property
    def results(self) -> Path:
        """Folder of the kept results."""
        return RESULTS / self.preset / self.experiment / self.name

    def work_dir(self, root: Path) -> Path:
        """Folder of checkpoints and logs, from which an interrupted run resumes."""
        return root / self.preset / self.experiment / self.name

    @property
    def is_done(self) -> bool:
        """True once all results are written."""
        return (self.results / SUMMARY).is_file()

    @property
    def is_damaged(self) -> bool:
        """True if the summary exists but cannot be read, so that the run must be repeated."""
        try:
            return self.is_done and not self.read_summary()
        except ValueError:
            return True

    def read_summary(self) -> dict:
        """Return the summary written by `keep`.

        Raises:
            ValueError: The run is not done, or its summary is damaged.
        """
        path = self.results / SUMMARY
        try:
            return json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise ValueError(f'{path}: no results of a finished run ({error}); python experiments/run.py {self.experiment} '
                             f'--preset {self.preset} --only {self.name} creates them') from None

    def keep(self, files: Mapping[str, Path], summary: Mapping) -> None:
        """Copy files to `results` with a summary and a description of the machine, atomically."""
        with atomic_folder(self.results, overwrite=True) as folder:
            for name, path in files.items():
                shutil.copyfile(path, folder / name)
            (folder / SUMMARY).write_text(json.dumps({**summary, **describe_machine()}, indent=1) + '\n', encoding='utf-8')


def planned_runs(experiment: str, preset: str, models: Sequence[str], seeds: int) -> list[Run]:
    """Return every run of an experiment, seed by seed, so that comparisons are possible early."""
    return [Run(experiment, preset, model, seed) for seed in range(seeds) for model in models]


def describe_machine() -> dict:
    """Return the processor or GPU, the number of threads, and versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    return {'device': device, 'threads': torch.get_num_threads(), 'python': platform.python_version(),
            'torch': torch.__version__, 'mmtied': version('mmtied'), 'date': time.strftime('%Y-%m-%d')}


def use_one_thread() -> None:
    """Use one thread, so that runs are reproducible whatever else the computer does."""
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
