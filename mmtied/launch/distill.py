"""Train a backbone alone, on images without labels, to return a teacher's feature maps."""

import os
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmtied.compat import unwrap_model
from mmtied.training import alone  # noqa: F401  (registers the model and the data set)
from mmtied.training.teacher import Normalization

from .checkpoints import check_finite, write_checkpoint

#: torchvision's and mmdet's, for a student whose config has none.
_IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), rgb=True)


def distillation_config(student: Config, hook: dict, images: str | os.PathLike, *, iters: int = 20000, batch_size: int = 32,
                        size: int = 224, lr: float = 1e-3, workers: int = 2, save_every: int = 1000, seed: int = 0) -> Config:
    """Return the config of a run that trains the backbone of another config of mmdet or mmpretrain alone, on a folder of images.

    Its ``model.backbone`` and the normalization of its images are used, and a hook with the settings of a `DistillationHook`.
    It is trained with AdamW, a short warm-up and a cosine decay; no stage of it is frozen. The numbers are those of the
    options of tools/distill.py: the size is that of the crops, and of the checkpoints only the last is kept.
    """
    for name, value, least in (('iters', iters, 1), ('batch-size', batch_size, 1), ('size', size, 32), ('workers', workers, 0),
                               ('save-every', save_every, 1), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'--{name} {value}: expected at least {least}')
    if not 0 < lr < float('inf'):
        raise ValueError(f'--lr {lr}: expected a positive number')
    backbone = student.model.get('backbone')
    if backbone is None:
        raise ValueError("the student's config has no model.backbone")
    trained = {'frozen_stages': -1, 'norm_eval': False}
    backbone = {setting: trained.get(setting, value) for setting, value in backbone.items()}
    normalization = Normalization.of_config(student) or _IMAGENET
    warm_up = min(500, iters // 10)
    return Config({
        'default_scope': student.get('default_scope', 'mmengine'),
        'model': {'type': 'BackboneAlone', 'backbone': backbone, 'data_preprocessor': {
            'type': 'mmengine.ImgDataPreprocessor', 'mean': normalization.mean, 'std': normalization.std,
            'bgr_to_rgb': normalization.rgb}},
        'train_dataloader': {
            'batch_size': batch_size, 'num_workers': workers, 'persistent_workers': workers > 0, 'drop_last': True,
            'dataset': {'type': 'ImagesAlone', 'folder': str(images), 'size': size},
            'sampler': {'type': 'InfiniteSampler', 'shuffle': True}},
        'train_cfg': {'by_epoch': False, 'max_iters': iters},
        'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': lr, 'weight_decay': .05}},
        'param_scheduler': [
            *([{'type': 'LinearLR', 'start_factor': .01, 'by_epoch': False, 'begin': 0, 'end': warm_up}] if warm_up else []),
            {'type': 'CosineAnnealingLR', 'by_epoch': False, 'begin': warm_up, 'end': iters, 'T_max': iters - warm_up}],
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': min(50, iters)},
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': save_every, 'max_keep_ckpts': 1}},
        'custom_hooks': [{'type': 'DistillationHook', **hook}],
        'log_processor': {'by_epoch': False},
        'randomness': {'seed': seed},
        'find_unused_parameters': True,  # stages after the last one that is compared
    })


def parse_stages(words: Sequence[str] | None) -> dict[str, str]:
    """Return the teacher's stage for each stage of the student.

    Example:
        >>> parse_stages(['layer3', 'layer4=stages.3'])
        {'layer3': 'layer3', 'layer4': 'stages.3'}
    """
    stages = {word.partition('=')[0]: word.rpartition('=')[2] for word in words or ()}
    if not all(stages) or not all(stages.values()):
        raise ValueError(f'--stages {" ".join(words)}: expected NAME or STUDENT=TEACHER for each')
    return stages


def write_backbone(runner: Runner, target: str | os.PathLike) -> None:
    """Write the weights of a run's backbone, where they are finite, as a file for ``--backbone-checkpoint``."""
    weights = unwrap_model(runner.model).backbone.state_dict()
    check_finite(weights, f'{target} is not written', 'train with a smaller --lr')
    if is_main_process():
        write_checkpoint({'state_dict': {key: value.cpu() for key, value in weights.items()}}, target)
