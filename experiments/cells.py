"""Real images: overlapping blood cells (BCCD), evaluated by occlusion of each cell."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmtied.atomic import save_text
from mmtied.cli import repository_path
from mmtied.launch.config import load_config

from . import training
from .analysis import Question
from .backbones import backbones
from .occlusion import CONFIG, MODELS
from .runs import Run

__all__ = ['MODELS', 'PRESETS', 'prepare', 'train']
#: No image exceeds r = 0.5 and few exceed 0.3. The image buckets are a run's second evaluation.
QUESTION = Question(('bbox',), low=.1, high=.2, evaluation=1)
CLASSES = ('RBC', 'WBC', 'Platelets')


@dataclass(frozen=True)
class Preset:
    """Size of the experiment."""

    seeds: int
    base_channels: int
    size: tuple[int, int]
    epochs: int
    batch_size: int


PRESETS = {
    'cpu': Preset(seeds=3, base_channels=32, size=(192, 144), epochs=12, batch_size=4),
    'gpu': Preset(seeds=5, base_channels=64, size=(640, 480), epochs=48, batch_size=8),
}


def prepare(preset: str, root: Path) -> None:
    """Check that the data set exists, and list the images to evaluate, those of the val and test splits.

    Raises:
        ValueError: A file or folder of the data set is missing.
    """
    names = []
    for split in ('train', 'val', 'test'):
        path = root / f'bccd/ImageSets/Main/{split}.txt'
        if not path.is_file():
            raise ValueError(f'{path} is missing; experiments/data.md explains where to get BCCD and where to put it')
        names += path.read_text(encoding='utf-8').split() if split != 'train' else []
    for folder in (root / 'bccd/Annotations', root / 'bccd/JPEGImages'):
        if not folder.is_dir():
            raise ValueError(f'{folder} is missing; experiments/data.md explains where to get BCCD and where to put it')
    save_text(root / 'experiments/bccd_evaluated.txt', '\n'.join(sorted(names)) + '\n')


def make_config(model: str, preset: str, root: Path) -> Config:
    """Return the config of a model: the demo's detector without its mask head, on BCCD."""
    settings, folder = PRESETS[preset], root / 'bccd'
    cfg = load_config(str(repository_path(CONFIG)))
    training.use_backbone(cfg, backbones(settings.base_channels)[model])
    cfg.model.type = 'FasterRCNN'
    head = cfg.model.roi_head
    head.pop('mask_roi_extractor'), head.pop('mask_head'), cfg.model.train_cfg.rcnn.pop('mask_size')
    head.bbox_head.num_classes = len(CLASSES)
    cfg.model.test_cfg.rcnn.max_per_img = 100
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=settings.size, keep_ratio=True)]
    dataset = dict(type='XMLDataset', data_root='', data_prefix=dict(sub_data_root=f'{folder}/'),
                   metainfo=dict(classes=CLASSES), backend_args=None)
    cfg.train_dataloader.batch_size = settings.batch_size
    cfg.train_dataloader.dataset = dict(
        dataset, ann_file=str(folder / 'ImageSets/Main/train.txt'), filter_cfg=dict(filter_empty_gt=True),
        pipeline=[*load, dict(type='RandomFlip', prob=.5), dict(type='PackDetInputs')])
    evaluated = dict(dataset, ann_file=str(root / 'experiments/bccd_evaluated.txt'), test_mode=True,
                     pipeline=[*load, dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                                                           'scale_factor'))])
    cfg.val_dataloader.dataset = cfg.test_dataloader.dataset = evaluated
    cfg.val_evaluator = cfg.test_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
    cfg.default_hooks.occlusion = dict(type='mmtied.OcclusionEvalHook', unit='instance',
                                       edges=(0, .05, .1, .2, .3, .4, 1), extra_evaluations=[dict(unit='image')])
    cfg.train_cfg.update(max_epochs=settings.epochs, val_interval=settings.epochs)
    cfg.param_scheduler[1].update(end=settings.epochs, T_max=settings.epochs)
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run."""
    training.train_detector(run, make_config(run.model, run.preset, root), root, work_root)
