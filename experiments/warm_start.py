"""Warm start: tied students of a trained ResNet-50, by distillation or with the nearest tied weights, against random weights."""

from pathlib import Path

from mmengine.config import Config

from mmtied.launch.tie import tied_conv_cfg, write_tied

from . import detection, occlusion
from .analysis import Question
from .backbones import backbones
from .runs import Run

#: TiedResNet-50-S from random weights and distilled, and a ResNet-50 whose convolutions are tied, from random weights and from the
#: nearest tied ones of the teacher.
MODELS = ('tied_s', 'tied_s_distilled', 'tbc', 'tbc_from_teacher')
QUESTION = Question(('bbox', 'segm'), low=.2, high=.8)
PRESETS = occlusion.PRESETS
prepare = occlusion.prepare
NUM_BLOCKS = 2
#: Evaluations in the course of a run, the last one at its end.
EVALUATIONS = 4


def teacher(preset: str) -> Run:
    """Return the run whose backbone is the teacher: ResNet-50 with the first seed."""
    return Run('occlusion', preset, 'r50', 0)


def trained_teacher(preset: str, work_root: Path) -> Path:
    """Return the teacher's checkpoint.

    Raises:
        ValueError: It is missing.
    """
    trained = teacher(preset)
    weights = trained.work_dir(work_root) / f'epoch_{PRESETS[preset].epochs}.pth'
    if not weights.is_file():
        raise ValueError(f'{weights} is missing, the teacher; delete {trained.results} if it exists, and train it with '
                         f'python experiments/run.py occlusion --preset {preset} --only {trained.name}')
    return weights


def make_config(model: str, preset: str, root: Path, work_root: Path) -> Config:
    """Return the config of a student, which from random weights is that of the occlusion experiment.

    Raises:
        ValueError: The teacher's checkpoint is missing.
    """
    settings = PRESETS[preset]
    choices = backbones(settings.base_channels)
    cfg = occlusion.make_config('tied_s' if model.startswith('tied_s') else 'r50', preset, root)
    hooks = [dict(type='ValidateWithinEpochs', interval=settings.epochs * settings.train_images // settings.batch_size
                  // EVALUATIONS)]
    if model == 'tied_s_distilled':
        hooks.append(dict(type='mmtied.DistillationHook', teacher=dict(choices['r50']),
                          weights=str(trained_teacher(preset, work_root)), loss_weight=2., schedule='cosine', end=.5))
    if model == 'tbc_from_teacher':
        tied = work_root / preset / 'warm_start/tied_teacher.pth'
        write_tied(occlusion.make_config('r50', preset, root), str(trained_teacher(preset, work_root)), tied, NUM_BLOCKS)
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tied), prefix='backbone.')
    if model.startswith('tbc'):
        cfg.model.backbone.conv_cfg = tied_conv_cfg(NUM_BLOCKS)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run."""
    detection.train(run, make_config(run.model, run.preset, root, work_root), root, work_root)
