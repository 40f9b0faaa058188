"""Warm start: tied students of a trained ResNet-50, by distillation or with the nearest tied weights, against random weights."""

import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

from mmtied.cli import repository_path
from mmtied.launch.convert import tied_conv_cfg, write_tied

from . import detection, occlusion
from .backbones import backbones
from .runs import Run

#: TiedResNet-50-S from random weights, distilled before the detector is trained, and distilled meanwhile; and a ResNet-50 whose
#: convolutions are tied, from random weights and from the nearest tied ones of the teacher.
MODELS = ('tied_s', 'tied_s_before', 'tied_s_distilled', 'tbc', 'tbc_from_teacher')
QUESTION = occlusion.QUESTION
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


def steps(preset: str) -> int:
    """Return the steps of a detector's training, and of a distillation before it."""
    settings = PRESETS[preset]
    return settings.epochs * settings.train_images // settings.batch_size


def distill_before(run: Run, root: Path, work_root: Path) -> Path:
    """Train a student's backbone alone to imitate the teacher, by `mmtied distill`, and return its weights.

    Raises:
        ValueError: The teacher's checkpoint is missing, or the command failed.
    """
    folder = run.work_dir(work_root) / 'distillation'
    weights = folder / 'backbone.pth'
    if weights.is_file():
        return weights
    trained = trained_teacher(run.preset, work_root)
    folder.mkdir(parents=True, exist_ok=True)
    configs = [folder / f'{model}.py' for model in ('r50', 'tied_s')]
    for path in configs:
        occlusion.make_config(path.stem, run.preset, root).dump(path)
    settings = PRESETS[run.preset]
    options = {'weights': trained, 'images': occlusion.data_folder(run.preset, root) / 'train2017', 'work-dir': folder,
               'iters': steps(run.preset), 'batch-size': 2 * settings.batch_size, 'size': settings.size, 'workers': 0,
               'seed': run.seed, 'save-every': 200}
    resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
    words = [str(word) for name, value in options.items() for word in (f'--{name}', value)]
    command = [sys.executable, repository_path('tools/distill.py'), *configs, *words, *resume]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ValueError(f'{run.name}: mmtied distill ended with exit code {code}')
    return weights


def make_config(run: Run, root: Path, work_root: Path) -> Config:
    """Return the config of a student, which from random weights is that of the occlusion experiment.

    Raises:
        ValueError: The teacher's checkpoint is missing.
    """
    model, preset, settings = run.model, run.preset, PRESETS[run.preset]
    choices = backbones(settings.base_channels)
    cfg = occlusion.make_config('tied_s' if model.startswith('tied_s') else 'r50', preset, root)
    hooks = [dict(type='ValidateWithinEpochs', interval=steps(preset) // EVALUATIONS)]
    if model == 'tied_s_before':
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(distill_before(run, root, work_root)))
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
    detection.train(run, make_config(run, root, work_root), root, work_root)
