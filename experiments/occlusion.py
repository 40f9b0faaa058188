"""Controlled occlusion: the number, categories and visible sizes of shapes are the same at every r."""

from dataclasses import dataclass
from pathlib import Path

from mmtied.cli import repository_path
from mmtied.datasets import make_occluded_shapes
from mmtied.launch.config import load_config

from . import training
from .analysis import Question
from .backbones import backbones
from .runs import Run

CONFIG = 'configs/demo/mask_rcnn_tiedr50_demo.py'
MODELS = ('r50', 'tied', 'tied_s', 'grouped', 'r50_narrow')
QUESTION = Question(('bbox', 'segm'), low=.2, high=.8)


@dataclass(frozen=True)
class Preset:
    """Size of the experiment."""

    seeds: int
    base_channels: int
    size: int
    train_images: int
    val_images: int
    epochs: int
    batch_size: int


PRESETS = {
    'cpu': Preset(seeds=3, base_channels=32, size=128, train_images=1600, val_images=1000, epochs=2, batch_size=4),
    'gpu': Preset(seeds=5, base_channels=64, size=320, train_images=10_000, val_images=2000, epochs=12, batch_size=16),
}


def data_folder(preset: str, root: Path) -> Path:
    """Return the folder of the data set."""
    return root / f'experiments/shapes_{preset}'


def prepare(preset: str, root: Path) -> None:
    """Make the data set unless it exists."""
    folder, settings = data_folder(preset, root), PRESETS[preset]
    if not (folder / 'annotations/instances_val2017.json').is_file():
        print(f'{folder}: making {settings.train_images} training and {settings.val_images} validation images')
        make_occluded_shapes(folder, num_images=settings.train_images, num_val_images=settings.val_images, seed=0,
                             size=settings.size, progress=True)


def make_config(model: str, preset: str, root: Path):
    """Return the config of a model."""
    settings, folder = PRESETS[preset], data_folder(preset, root)
    cfg = load_config(str(repository_path(CONFIG)), {'data_root': str(folder)})
    training.use_backbone(cfg, backbones(settings.base_channels)[model])
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(folder)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline):
        for step in pipeline:
            if step['type'] == 'Resize':
                step['scale'] = (settings.size, settings.size)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(folder / 'annotations/instances_val2017.json')
    cfg.train_dataloader.batch_size = settings.batch_size
    cfg.train_cfg.update(max_epochs=settings.epochs, val_interval=settings.epochs)
    cfg.param_scheduler[1].update(end=settings.epochs, T_max=settings.epochs)
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run."""
    training.train_detector(run, make_config(run.model, run.preset, root), root, work_root)
