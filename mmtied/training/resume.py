"""Training that survives interruption: atomic files, the last complete checkpoint, and exact resuming."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from mmtied.atomic import atomic_path, real_path
from mmtied.cli import full_disk_named

#: mmengine's names of checkpoints, with the number of the epoch or iteration.
_NAMES = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run equal to an uninterrupted one.

    It must resume at the end of an epoch, or at any iteration in an iteration-based run. mmengine restores weights, optimizer,
    schedules and logs, but no random states, nor the sampler's seed if the config has none. This hook seeds Python, NumPy, torch
    and the workers from the run's seed and the epoch (or iteration, in iteration-based runs), so nothing needs restoring.
    Workers restart in each epoch, even persistent ones, whose state cannot be restored; augmentations differ between epochs.

    In a config: ``default_hooks = dict(resume=dict(type='mmtied.ExactResumeHook'))``. Bit-equal if the operations are
    deterministic: on a CPU with a fixed number of threads, on a GPU with ``randomness=dict(deterministic=True)``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Give the sampler the run's seed, which may come from the checkpoint."""
        sampler = getattr(runner.train_dataloader, 'sampler', None)
        if getattr(sampler, 'seed', None) is not None:
            sampler.seed = runner.seed
        _seed_all(runner.seed, runner.epoch)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process and new workers."""
        _seed_all(runner.seed, runner.epoch)
        loader = runner.train_dataloader
        seeding = getattr(loader, 'worker_init_fn', None)
        if isinstance(seeding, partial) and 'seed' in seeding.keywords:
            loader.worker_init_fn = partial(seeding, seed=_mixed(runner.seed, runner.epoch))
        if getattr(loader, '_iterator', None) is not None:
            loader._iterator = None  # ends persistent workers

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed this process in an iteration-based run."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            _seed_all(runner.seed, runner.iter)


class ValidateAtEndHook(Hook):
    """Validate a run that resumes after its last step, since it may have been killed during its last validation.

    mmengine saves a checkpoint before it validates, and its loop ends at once if no step is left.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Validate if no step is left."""
        if runner.iter >= runner.max_iters and runner.val_loop is not None:
            runner.val_loop.run()


def _mixed(seed: int, number: int) -> int:
    """Derive a seed below 2**31 from the run's seed and a number."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) >> 1


def _seed_all(seed: int, number: int) -> None:
    mixed = _mixed(seed, number) + get_rank()
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


@contextmanager
def safe_saving(work_dir: str | Path = '.') -> Iterator[None]:
    """Make mmengine write local files atomically, and remove old checkpoints only after the new one is written.

    mmengine removes first, so a run with ``max_keep_ckpts=1`` that is killed while it writes has no checkpoint left. Errors about
    a full disk that name no file name the work_dir.
    """
    put, put_text, remove, waiting = LocalBackend.put, LocalBackend.put_text, LocalBackend.remove, []

    def put_whole(backend: LocalBackend, obj: bytes | memoryview, filepath: str | Path) -> None:
        with _whole(filepath) as temporary:
            put(backend, obj, temporary)
        while waiting:
            remove(backend, waiting.pop())

    def put_text_whole(backend: LocalBackend, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        with _whole(filepath) as temporary:
            put_text(backend, obj, temporary, encoding)

    def remove_later(backend: LocalBackend, filepath: str | Path) -> None:
        waiting.append(filepath)

    LocalBackend.put, LocalBackend.put_text, LocalBackend.remove = put_whole, put_text_whole, remove_later
    try:
        with full_disk_named(work_dir):
            yield
    finally:
        LocalBackend.put, LocalBackend.put_text, LocalBackend.remove = put, put_text, remove


@contextmanager
def _whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path for a file of mmengine; raise a ValueError if it cannot be written."""
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        raise ValueError(f'{path}: cannot be written ({error.strerror or error}); an existing file is unchanged') from error


def saved_checkpoints(work_dir: str | Path) -> list[Path]:
    """Return the checkpoints of a folder in the order to try: that of ``last_checkpoint`` first, then the highest numbers.

    The files may be missing or broken.
    """
    folder = Path(work_dir)
    note = folder / 'last_checkpoint'
    named = note.read_text(encoding='utf-8', errors='replace').strip() if note.is_file() else ''
    numbered = sorted((path for path in folder.glob('*.pth') if _NAMES.fullmatch(path.name)),
                      key=lambda path: (int(_NAMES.fullmatch(path.name)[1]), path.stat().st_mtime), reverse=True)
    first = Path(named) if named and '\0' not in named else None
    return [*([first] if first else []), *(path for path in numbered if first is None or real_path(path) != real_path(first))]
