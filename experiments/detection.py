"""Train a detector for one run, and keep its evaluation by occlusion."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config

from mmtied.atomic import atomic_path
from mmtied.launch import checkpoints, config, runner

from .runs import Run, timed


def use_backbone(cfg: Config, backbone: Mapping) -> None:
    """Replace the backbone of a detector with an FPN by one of ResNet's four stages."""
    cfg.model.backbone = dict(backbone)
    cfg.model.neck.in_channels = [4 * backbone['base_channels'] * 2**stage for stage in range(4)]


def train(run: Run, cfg: Config, work_root: Path) -> None:
    """Train from a config, or go on where a run stopped, and keep the results.

    Kept are the config, report.json and records.npz of the last validation, the losses, and run.json: sizes, steps and cost.
    """
    work_dir = run.work_dir(work_root)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=run.seed, deterministic=True)
    cfg.env_cfg.mp_cfg = dict(mp_start_method='fork', opencv_num_threads=1)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)
    resumed = config.latest_checkpoint(str(work_dir))
    if resumed:
        config.use_resume(cfg, 'auto')
    runner.check_data_files(cfg, 'train', 'val')
    running = runner.build_runner(cfg)
    runner.prepare_training(running)
    with checkpoints.safe_loading():
        _, cost = timed(running.train)
    losses = write_losses(work_dir)
    cfg.dump(str(work_dir / 'config.py'))
    model = running.model
    run.keep(
        {'config.py': work_dir / 'config.py', 'losses.csv': losses, 'report.json': work_dir / 'occlusion/report.json',
         'records.npz': work_dir / 'occlusion/records.npz'},
        {'model': run.model, 'seed': run.seed, 'steps': running.max_iters, 'batch_size': cfg.train_dataloader.batch_size,
         'backbone_parameters': count(model.backbone), 'parameters': count(model), 'resumed': bool(resumed), **cost})


def count(module: torch.nn.Module) -> int:
    """Count parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def write_losses(work_dir: Path) -> Path:
    """Write the losses that mmengine logged, in the order of the steps, as ``losses.csv``, and return its path."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    rows = {}
    for log in logs:  # a run that was resumed has several
        for line in log.read_text(encoding='utf-8').splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                rows[entry['step']] = entry
    names = [name for name in next(iter(rows.values()), {}) if 'loss' in name]
    path = work_dir / 'losses.csv'
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['step', *names])
        writer.writerows([step, *(f'{rows[step].get(name, float("nan")):.4g}' for name in names)] for step in sorted(rows))
    return path
