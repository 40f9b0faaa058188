"""Warm start: TiedResNets that imitate a trained ResNet-50 in the first half of training, against those that do not."""

from pathlib import Path

from mmengine.config import Config

from . import detection, occlusion
from .backbones import backbones
from .runs import Run

#: The students; those without distillation are the runs of the occlusion experiment with the same seeds.
MODELS = ('tied_s', 'tied')
PRESETS = occlusion.PRESETS
prepare = occlusion.prepare


def teacher(preset: str) -> Run:
    """Return the run whose backbone is the teacher: ResNet-50 with the first seed."""
    return Run('occlusion', preset, 'r50', 0)


def make_config(model: str, preset: str, root: Path, work_root: Path) -> Config:
    """Return the config of a student.

    Raises:
        ValueError: The teacher's checkpoint is missing.
    """
    trained = teacher(preset)
    weights = trained.work_dir(work_root) / f'epoch_{PRESETS[preset].epochs}.pth'
    if not weights.is_file():
        raise ValueError(f'{weights} is missing, the teacher; delete {trained.results} if it exists, and train it with '
                         f'python experiments/run.py occlusion --preset {preset} --only {trained.name}')
    cfg = occlusion.make_config(model, preset, root)
    backbone = dict(backbones(PRESETS[preset].base_channels)[trained.model])
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(
        type='mmtied.DistillationHook', teacher=backbone, weights=str(weights), loss_weight=2., schedule='cosine', end=.5)]
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run."""
    detection.train(run, make_config(run.model, run.preset, root, work_root), work_root)
