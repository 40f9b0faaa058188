"""Train a detector for one run, and keep its evaluation by occlusion."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from . import training
from .runs import Run


def use_backbone(cfg: Config, backbone: Mapping) -> None:
    """Replace the backbone of a detector with an FPN by one of ResNet's four stages."""
    cfg.model.backbone = dict(backbone)
    cfg.model.neck.in_channels = [4 * backbone['base_channels'] * 2**stage for stage in range(4)]


def train(run: Run, cfg: Config, root: Path, work_root: Path) -> None:
    """Train one run, or go on where it stopped, and keep report.json and records.npz of its last validation."""
    running, summary = training.train(run, cfg, root, work_root)
    evaluation = run.work_dir(work_root) / 'occlusion'
    summary['validations'] = running.message_hub.get_info(training.VALIDATIONS, [])
    run.keep({**training.kept_files(run, work_root),
              **{name: evaluation / name for name in ('report.json', 'records.npz')}}, summary)
