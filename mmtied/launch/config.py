"""Load a config of mmtied, mmdet or mmpretrain, and apply the command line to it."""

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction

from mmtied.atomic import check_can_write
from mmtied.cli import repository_path, warn
from mmtied.compat import check_mmcv, require
from mmtied.training.resume import saved_checkpoints
from mmtied.unpickling import RefusedError

from .checkpoints import check_resumable
from .checks import check_options, leaf_datasets, warn_of_misspelled_settings

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Set by mmpretrain's own tools; its base configs rely on them.
_MMPRETRAIN_DATALOADER = {'pin_memory': True, 'persistent_workers': True, 'collate_fn': {'type': 'default_collate'}}
#: dict(...) or {key: ...}, alone or in a list.
_DICT = re.compile(r"""[=\[(,]\s*(dict\s*\(|\{\s*['"]?\w+['"]?\s*:)""")


def load_config(name: str, options: dict | Sequence[str] | None = None) -> Config:
    """Load a config file or a config shipped by an installed package, and merge options into it.

    Args:
        name: Path of a .py config, or ``package::path`` for a packaged config, such as
            ``mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py``. The `work_dir` defaults to ``work_dirs/<name of the config>``.
        options: Settings to override, as a dict or as KEY=VALUE words of ``--cfg-options``.
    """
    if '::' in name:
        require(name.partition('::')[0], f'the config {name}')
        base = str(repository_path('configs') / name.removeprefix('mmtied::')) if name.startswith('mmtied::') else name
        cfg = _read(name, lambda: Config.fromstring(f'_base_ = {base!r}', file_format='.py'))  # mmengine does not find mmtied
    else:
        if not Path(name).is_file():
            raise ValueError(f'config {name} not found; give a .py file such as configs/mask_rcnn_tiedr50_2x.py, or '
                             'package::path for a config of an installed package')
        if Path(name).suffix not in ('.py', '.json', '.yaml', '.yml'):
            raise ValueError(f'config {name} is not a config file; expected a .py file')
        cfg = _read(name, lambda: Config.fromfile(name))
    if 'model' not in cfg:
        raise ValueError(f'config {name} has no model; is it a base config?')
    if options:
        options = options if isinstance(options, dict) else parse_options(options)
        check_options(cfg, options)
        _merge(cfg, options)
    warn_of_misspelled_settings(cfg)
    if cfg.get('default_scope') == 'mmpretrain':
        check_mmcv(f'the config {name}', 'mmpretrain', operators=False)
    elif cfg.get('default_scope') == 'mmdet':
        check_mmcv(f'the config {name}', 'mmdet')
    for key in _DATALOADERS:
        if not cfg.get(key):
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            cfg[key] = ConfigDict(deepcopy(_MMPRETRAIN_DATALOADER), **cfg[key])
        if cfg[key].get('num_workers', 0) == 0:
            cfg[key].persistent_workers = False  # torch rejects persistent_workers without workers
    if cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(name.split('::')[-1]).stem)
    return cfg


def config_of_run(args: argparse.Namespace) -> Config:
    """Load the config that a command line names, and check that its work_dir can be written."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.work_dir
    check_can_write(cfg.work_dir, '--work-dir', folder=True)
    return cfg


def parse_options(words: Sequence[str]) -> dict[str, object]:
    """Parse the KEY=VALUE words of ``--cfg-options``, using mmengine's syntax for values.

    Example:
        >>> parse_options(['train_cfg.max_epochs=1', 'model.neck.in_channels=[64,128]'])
        {'train_cfg.max_epochs': 1, 'model.neck.in_channels': [64, 128]}
    """
    for word in words:
        if '=' not in word:
            raise ValueError(f'--cfg-options {word}: expected KEY=VALUE, for example train_cfg.max_epochs=1')
        if _DICT.search(word):
            raise ValueError(f'--cfg-options {word}: dicts cannot be given on the command line; set values one by one, such as '
                             'model.backbone.depth=101, or write a config file with _base_ = the config')
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='+', action=DictAction)
    try:
        return parser.parse_args(['--', *words]).options
    except (AssertionError, RecursionError) as error:  # unbalanced brackets, or commas in bracketed words
        raise ValueError(f'--cfg-options {" ".join(words)}: expected numbers, words or lists such as [1,2]') from error


def use_amp(cfg: Config) -> None:
    """Train with automatic mixed precision and dynamic loss scaling, on a GPU."""
    if not torch.cuda.is_available():
        raise ValueError('--amp needs a GPU, and torch finds none; leave it out to train on the CPU')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size, relative to the config's base_batch_size."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config, which has none')
    cfg.auto_scale_lr.enable = True


def use_resume(cfg: Config, resume: str) -> None:
    """Resume from a checkpoint, or from the latest one in the work_dir if `resume` is 'auto'.

    Without any checkpoint it only warns and training starts from the beginning, so that a job can always pass the flag.

    Raises:
        ValueError: The checkpoint is missing or unreadable, or 'auto' finds only unreadable ones.
    """
    if resume == 'auto':
        resume = latest_checkpoint(cfg.work_dir)
        if resume is None:
            warn(f'--resume: {cfg.work_dir} has no checkpoint to resume from, so training starts from the beginning')
            return
    else:
        check_resumable(resume)
    cfg.resume, cfg.load_from = True, resume


def latest_checkpoint(work_dir: str) -> str | None:
    """Return the path of the last readable checkpoint in a folder, or None if none was saved.

    Warns if mmengine saved a later one that is unreadable.

    Raises:
        ValueError: No saved checkpoint can be read.
    """
    found, faults = saved_checkpoints(work_dir), []
    for path in found:
        try:
            check_resumable(str(path))
        except RefusedError:
            raise
        except ValueError as error:
            faults.append(error)
            continue
        if faults:
            warn(f'{faults[0]}; resuming from {path}')
        return str(path)
    if faults:
        raise faults[0]
    note = Path(work_dir) / 'last_checkpoint'
    if note.exists():
        raise ValueError(f'--resume: {note} is empty, and no checkpoint is beside it; remove it to start from the beginning')
    return None


def how_to_resume(work_dir: str, command: Sequence[str]) -> str:
    """Describe how to resume a stopped training; `command` is its `sys.argv`."""
    saved = next(iter(saved_checkpoints(work_dir)), None)
    if saved is None:
        return f'no checkpoint was saved in {work_dir}, so there is nothing to resume'
    if '--launcher' in command:
        return f'to resume from {saved}, run the same command with --resume'
    program, *words = command
    words = [word for word in words if not word.startswith('--resume=')]
    if '--resume' in words:
        place = words.index('--resume')
        has_value = place + 1 < len(words) and not words[place + 1].startswith('-')
        del words[place:place + 1 + has_value]
    program = program if program.startswith('mmtied ') else f'python {shlex.quote(program)}'
    return f'to resume from {saved}: {program} {shlex.join(words)} --resume'


def draw_predictions(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Enable the visualization hook of a config for a window, a folder in ``work_dir/timestamp``, or both."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need a visualization hook in default_hooks, for example '
                         "dict(type='DetVisualizationHook')")
    if cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, show=show, wait_time=wait_time, out_dir=show_dir)
    else:
        hook.update(draw=True, show=show, wait_time=wait_time, test_out_dir=show_dir)


def use_tta(cfg: Config) -> None:
    """Apply test-time augmentation with the `tta_model` and `tta_pipeline` of a config."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ValueError(f'--tta needs {" and ".join(missing)} in the config; mmdet has an example in '
                         'mmdet::retinanet/retinanet_tta.py')
    cfg.model = ConfigDict(deepcopy(cfg.tta_model), module=cfg.model)
    for _, dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def _read(name: str, read: Callable[[], Config]) -> Config:
    """Read a config, turning any error of its Python code into a ValueError."""
    try:
        return read()
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise ValueError(f'config {name} cannot be read: no such file, or a _base_ that does not exist: {missing}') from error
    except Exception as error:
        absent = re.search(r'(\w+) is not installed, please install', str(error))
        if isinstance(error, ModuleNotFoundError) and absent:  # raised by mmengine for a _base_ of package::path
            require(absent[1], f'the config {name}')
        reason = f'{type(error).__name__}: {error}'
        if '_get_package_and_cfg_path' in reason:
            reason = ("a package's config is named package::folder/file.py, such as mmdet::detr/detr_r50_8xb2-150e_coco.py; "
                      '_base_ accepts OpenMMLab packages only; give a config of mmtied by its path')
        raise ValueError(f'config {name} cannot be read: {reason}') from error


def _merge(cfg: Config, options: dict) -> None:
    """Merge options, replacing mmengine's advice for config files by advice for the command line."""
    try:
        cfg.merge_from_dict(options)
    except (TypeError, KeyError, AssertionError) as error:
        reason = str(error).partition(' You may set')[0].rstrip('.')
        weights = any('backbone.init_cfg' in key for key in options)
        advice = '; for weights of the backbone use tools/train.py --backbone-checkpoint FILE' if weights else ''
        raise ValueError(f'--cfg-options: {reason}{advice}') from error
