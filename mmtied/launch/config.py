"""Load a config of mmtied, mmdet or mmpretrain and apply the command line to it."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from mmtied.compat import require

from .weights import check_checkpoint

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: mmpretrain's own tools set these; its base configs rely on it.
_MMPRETRAIN_DATALOADER = {'pin_memory': True, 'persistent_workers': True, 'collate_fn': {'type': 'default_collate'}}


def load_config(name: str, options: dict | None = None) -> Config:
    """Read a config file, or one inside an installed package, and merge options into it.

    Args:
        name: Path of a .py config, or ``package::path`` for one that a package ships, for example
            ``mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py``.
        options: Values to override, as from ``--cfg-options``.

    Returns:
        The config, complete enough to build a Runner from. Without a `work_dir` in it, ``work_dirs/<config's name>`` is set.

    Raises:
        ValueError: No such file, or not a Python config.
    """
    if '::' in name:
        package = name.partition('::')[0]
        require(package, f'the config {name}')
        cfg = _read(name, lambda: Config.fromstring(f'_base_ = {_shipped(name)!r}', file_format='.py'))
    else:
        if not Path(name).is_file():
            raise ValueError(f'config {name} not found; give a .py file such as configs/mask_rcnn_tiedr50_2x.py, or '
                             'package::path for a config that an installed package ships')
        if Path(name).suffix not in ('.py', '.json', '.yaml', '.yml'):
            raise ValueError(f'config {name} is not a config file, expected a .py file')
        cfg = _read(name, lambda: Config.fromfile(name))
    if 'model' not in cfg:
        raise ValueError(f'config {name} has no model; is it a base config?')
    if options:
        _merge(cfg, options)
    if cfg.get('default_scope') == 'mmpretrain':
        require('mmpretrain', f'the config {name}')
        _complete_mmpretrain_dataloaders(cfg)
    _keep_only_workers_that_there_are(cfg)
    if cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(name.split('::')[-1]).stem)
    return cfg


def use_amp(cfg: Config) -> None:
    """Train with automatic mixed precision and dynamic loss scaling.

    Raises:
        ValueError: There is no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError('--amp needs a GPU, and torch sees none; leave it out to train on the CPU')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size.

    Raises:
        ValueError: The config does not say for which batch size its learning rate was made.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config, which has none')
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, resume: str) -> None:
    """Resume from a checkpoint, or from the latest one of the work_dir when `resume` is 'auto'.

    Raises:
        ValueError: No such checkpoint, or not a readable one.
    """
    if resume != 'auto':
        check_checkpoint(resume, '--resume')
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume


def _shipped(name: str) -> str:
    """What `_base_` must say for package::path; mmengine itself does not know mmtied's configs."""
    package, _, path = name.partition('::')
    if package != 'mmtied':
        return name
    inside, clone = Path(__file__).parents[1] / '.mim' / 'configs', Path(__file__).parents[2] / 'configs'
    return str((inside if inside.is_dir() else clone) / path)


def _read(name: str, read: Callable[[], Config]) -> Config:
    """Run a reader of configs, which are Python and can fail in any way."""
    try:
        return read()
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise ValueError(f'config {name} cannot be read: no such file, or a _base_ that is none: {missing}') from error
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'
        if '_get_package_and_cfg_path' in reason:
            reason = ("a package's config is named package::folder/file.py, such as mmdet::detr/detr_r50_8xb2-150e_coco.py; "
                      '_base_ takes those of OpenMMLab only, one of mmtied by its path')
        raise ValueError(f'config {name} cannot be read: {reason}') from error


def _merge(cfg: Config, options: dict) -> None:
    """Merge options, with an error that says what works in place of mmengine's advice for config files."""
    try:
        cfg.merge_from_dict(options)
    except (TypeError, KeyError, AssertionError) as error:
        reason = str(error).partition(' You may set')[0].rstrip('.')
        weights = any('backbone.init_cfg' in key for key in options)
        advice = '; for weights of the backbone use tools/train.py --backbone-checkpoint FILE' if weights else ''
        raise ValueError(f'--cfg-options: {reason}{advice}') from error


def _complete_mmpretrain_dataloaders(cfg: Config) -> None:
    for key in _DATALOADERS:
        if cfg.get(key):
            complete = ConfigDict(deepcopy(_MMPRETRAIN_DATALOADER))
            complete.update(cfg[key])
            cfg[key] = complete


def _keep_only_workers_that_there_are(cfg: Config) -> None:
    """Let num_workers=0 be enough to load data in the main process; torch refuses to keep workers that are not there."""
    for key in _DATALOADERS:
        if cfg.get(key) and cfg[key].get('num_workers', 0) == 0:
            cfg[key].persistent_workers = False
