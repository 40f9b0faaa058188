"""Train a backbone on unlabeled images to reproduce a teacher's feature maps."""

import os
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmtied.compat import unwrap_model
from mmtied.training import alone  # noqa: F401  (registers the model and the data set)
from mmtied.training.teacher import Normalization

from .checkpoints import check_finite, write_checkpoint

#: Normalization of torchvision and mmdet, used if the student's config has none.
_IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), rgb=True)


def distillation_config(student: Config, hook: dict, images: str | os.PathLike, *, iters: int = 20000, batch_size: int = 32,
                        size: int = 224, lr: float = 1e-3, workers: int = 2, save_every: int = 1000, seed: int = 0) -> Config:
    """Return a config that trains only the backbone of an mmdet or mmpretrain config, on a folder of images.

    The run takes ``model.backbone`` and the image normalization from the student's config, and trains with AdamW, a short warm-up
    and a cosine decay. No stage is frozen, and only the last checkpoint is kept.

    Args:
        student: Config of the student.
        hook: Settings of a `DistillationHook`.
        images: Image folder.
        iters: Training iterations. The arguments from here on match the options of tools/distill.py.
        batch_size: Images per iteration and process.
        size: Height and width of the crops in pixels.
        lr: Learning rate.
        workers: Image loading processes.
        save_every: Iterations between checkpoints.
        seed: Random seed.
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
        'find_unused_parameters': True,  # stages after the last compared one
    })


def parse_stages(words: Sequence[str] | None) -> dict[str, str]:
    """Parse ``--stages`` into the teacher's stage for each stage of the student.

    Example:
        >>> parse_stages(['layer3', 'layer4=stages.3'])
        {'layer3': 'layer3', 'layer4': 'stages.3'}
    """
    stages = {word.partition('=')[0]: word.rpartition('=')[2] for word in words or ()}
    if not all(stages) or not all(stages.values()):
        raise ValueError(f'--stages {" ".join(words)}: expected NAME or STUDENT=TEACHER for each')
    return stages


def write_backbone(runner: Runner, target: str | os.PathLike) -> None:
    """Write the weights of a run's backbone for ``--backbone-checkpoint``; raise a ValueError if they are not finite."""
    weights = unwrap_model(runner.model).backbone.state_dict()
    check_finite(weights, f'{target} is not written', 'train with a smaller --lr')
    if is_main_process():
        write_checkpoint({'state_dict': {key: value.cpu() for key, value in weights.items()}}, target)
