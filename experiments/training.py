"""Train one run with mmengine, and record its cost."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmtied.analysis.complexity import count_parameters
from mmtied.atomic import atomic_path, save_text
from mmtied.launch import config, runner
from mmtied.launch.seeds import logged_entries
from mmtied.training.resume import safe_saving, saved_checkpoints
from mmtied.unpickling import safe_loading

from .runs import Run

#: Key of the list of (step, metrics) in a run's message hub, which is saved and resumed with its checkpoints.
VALIDATIONS = 'validations'


@HOOKS.register_module()
class ValidateWithinEpochs(Hook):
    """Validate every `interval` steps except the last, without affecting training.

    mmengine's epoch-based loop validates only between epochs.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """Validate, and record the metrics."""
        step = runner.iter + 1
        if step % self.interval or step == runner.max_iters:
            return
        with torch.random.fork_rng():  # a DataLoader draws a seed
            metrics = runner.val_loop.run()
        runner.model.train()
        validation = step, {name: float(value) for name, value in metrics.items()}
        runner.message_hub.update_info(VALIDATIONS, [*runner.message_hub.get_info(VALIDATIONS, []), validation])


def train(run: Run, cfg: Config, root: Path, work_root: Path) -> tuple[Runner, dict]:
    """Train from a config or resume the run; return mmengine's Runner and the summary for `Run.keep`.

    All randomness comes from the run's seed, and the training process loads the images itself.
    """
    work_dir = run.work_dir(work_root)
    cfg.work_dir = str(work_dir)
    # mmengine caches visualizers by name, and would write the losses of a process's second run to the folder of the first.
    cfg.experiment_name = str(work_dir)
    cfg.get('visualizer', {}).pop('name', None)
    cfg.randomness = dict(seed=run.seed, deterministic=True)
    cfg.env_cfg.mp_cfg = dict(mp_start_method='fork', opencv_num_threads=1)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)
    resumed = bool(saved_checkpoints(work_dir))
    if resumed:
        config.use_resume(cfg, 'auto')
    runner.check_data_files(cfg, 'train', 'val')
    running = runner.build_runner(cfg)
    runner.prepare_training(running)
    clock, processor = time.time(), time.process_time()
    with safe_loading(), safe_saving():
        running.train()
    cost = {'seconds': round(time.time() - clock), 'processor_seconds': round(time.process_time() - processor)}
    write_config(cfg, work_dir, {root: 'data', work_root: 'work_dirs/experiments'})
    write_losses(work_dir)
    return running, {'model': run.model, 'seed': run.seed, 'steps': running.max_iters,
                     'batch_size': cfg.train_dataloader.batch_size, 'parameters': count_parameters(running.model),
                     'backbone_parameters': count_parameters(running.model.backbone), 'resumed': resumed, **cost}


def write_config(cfg: Config, work_dir: Path, folders: Mapping[Path, str]) -> None:
    """Write a config as ``config.py``, replacing machine-specific folders by portable names."""
    text = cfg.pretty_text
    for folder, name in folders.items():
        text = text.replace(str(folder), name)
    save_text(work_dir / 'config.py', text)


def kept_files(run: Run, work_root: Path) -> dict[str, Path]:
    """Return the files that `train` writes for every kind of model, by the names to keep them under."""
    return {name: run.work_dir(work_root) / name for name in ('config.py', 'losses.csv')}


def write_losses(work_dir: Path) -> Path:
    """Write the losses logged by mmengine, in order of steps, as ``losses.csv``; return its path."""
    rows = {entry['step']: entry for entry in logged_entries(work_dir) if 'loss' in entry}
    names = [name for name in next(iter(rows.values()), {}) if 'loss' in name]
    path = work_dir / 'losses.csv'
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['step', *names])
        writer.writerows([step, *(f'{rows[step].get(name, float("nan")):.4g}' for name in names)] for step in sorted(rows))
    return path


def use_backbone(cfg: Config, backbone: Mapping) -> None:
    """Replace the backbone of a detector with an FPN by one with ResNet's four stages."""
    cfg.model.backbone = dict(backbone)
    cfg.model.neck.in_channels = [4 * backbone['base_channels'] * 2**stage for stage in range(4)]


def train_detector(run: Run, cfg: Config, root: Path, work_root: Path) -> None:
    """Train or resume one run of a detector, and keep report.json and records.npz of its last validation."""
    running, summary = train(run, cfg, root, work_root)
    evaluation = run.work_dir(work_root) / 'occlusion'
    summary['validations'] = running.message_hub.get_info(VALIDATIONS, [])
    run.keep({**kept_files(run, work_root),
              **{name: evaluation / name for name in ('report.json', 'records.npz')}}, summary)
