"""Trained weights from the command line: whether a file holds some, and whether they fit the model."""

import inspect
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS
from torch import nn

from mmtied.backbones.checkpoint import find_misfits, name_some

#: What DistributedDataParallel puts before the names of a model's weights.
_WRAPPER = 'module.'


def use_backbone_checkpoint(cfg: Config, checkpoint: str) -> None:
    """Start the detector's backbone from a checkpoint, frozen and normalised as mmdet does with pretrained weights.

    The stem and the first stage are frozen, and BatchNorm stays in evaluation mode. The checkpoint may be a backbone's
    state_dict, a classifier's or a detector's checkpoint.

    Args:
        cfg: A detector's config.
        checkpoint: Path, or an address that mmengine can load.

    Raises:
        ValueError: No `model.backbone` in the config, no such file, or a file that holds no weights.
    """
    backbone = cfg.model.get('backbone')
    if backbone is None or cfg.get('default_scope') == 'mmpretrain':
        raise ValueError("--backbone-checkpoint is for detectors, and this config's model is none; "
                         'to start a classifier from a checkpoint use --cfg-options load_from=FILE')
    init_cfg = {'type': 'Pretrained', 'checkpoint': checkpoint}
    prefix = '' if '://' in checkpoint else _backbone_prefix(_read_raw(checkpoint, '--backbone-checkpoint'))
    if prefix:
        init_cfg['prefix'] = prefix
    backbone.init_cfg = init_cfg
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        network = registry.get(backbone.type) if isinstance(backbone.type, str) else backbone.type
    if network is None:
        raise ValueError(f'backbone {backbone.type} is not registered')
    known = inspect.signature(network).parameters
    for setting, value in (('frozen_stages', 1), ('norm_eval', True)):
        if setting in known or any(p.kind is p.VAR_KEYWORD for p in known.values()):
            backbone[setting] = value


def check_checkpoint(checkpoint: str, flag: str) -> None:
    """Raise a ValueError unless a local checkpoint exists and holds weights; addresses are left to mmengine."""
    if '://' not in checkpoint:
        read_state_dict(checkpoint, flag)


def check_initial_weights(cfg: Config) -> None:
    """Raise a ValueError unless the local files that a config starts from hold weights: load_from, and every init_cfg."""
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from, 'load_from')
    for key, checkpoint in _pretrained(cfg.model, 'model'):
        check_checkpoint(checkpoint, key)


def _pretrained(settings: object, key: str) -> Iterator[tuple[str, str]]:
    """The checkpoints that parts of a model are initialised with, and their keys in the config."""
    if isinstance(settings, dict):
        if settings.get('type') == 'Pretrained' and isinstance(settings.get('checkpoint'), str):
            yield f'{key}.checkpoint', settings['checkpoint']
        for name, value in settings.items():
            yield from _pretrained(value, f'{key}.{name}')
    elif isinstance(settings, list | tuple):
        for index, value in enumerate(settings):
            yield from _pretrained(value, f'{key}.{index}')


def check_model(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint holds a model's weights, each in its shape, and no others.

    Buffers of the data preprocessor may be there or not: mmengine makes them from the config.
    """
    if '://' not in checkpoint:
        model = _unwrap(model)
        own = model.state_dict()
        weights = {key: value for key, value in read_state_dict(checkpoint, 'checkpoint').items()
                   if key in own or not key.startswith('data_preprocessor.')}
        parts = {key.partition('.')[0] for key in own}
        foreign = [key for key in weights if key.partition('.')[0] not in parts]
        _check_weights(model, weights, f'checkpoint {checkpoint}', foreign=foreign)


def check_backbone(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint holds the weights of a detector's backbone; trained plugins may be new."""
    if '://' not in checkpoint:
        weights = read_state_dict(checkpoint, '--backbone-checkpoint')
        if any(key.startswith('backbone.') for key in weights):
            weights = {key.removeprefix('backbone.'): value for key, value in weights.items() if key.startswith('backbone.')}
        _check_weights(_unwrap(model).backbone, weights, f'--backbone-checkpoint {checkpoint}', optional=['plugins'])


def _check_weights(module: nn.Module, weights: dict, name: str, optional: Collection[str] = (),
                   foreign: Collection[str] = ()) -> None:
    misfits = find_misfits(module, weights, optional) + [f'{key} is not in this network' for key in foreign]
    if misfits:
        raise ValueError(f"{name}: the checkpoint does not fit the config's {type(module).__name__} ({name_some(misfits)})")


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _backbone_prefix(weights: dict) -> str:
    """What precedes the names of a backbone's weights in a file; mmengine strips 'module.' itself where nothing else does."""
    prefixes = ('backbone.', f'{_WRAPPER}backbone.')
    return next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in weights)), '')


def read_state_dict(path: str, flag: str) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, mapped from the file rather than read, and named without distributed training's wrapper.

    Where a model was averaged while it trained, these are the averaged weights: mmengine's EMAHook saves them as the state_dict.

    Args:
        path: A checkpoint with the weights under "state_dict", or a state_dict itself.
        flag: What the message calls the path.

    Raises:
        ValueError: No such file, or a file that holds no weights.
    """
    return {key.removeprefix(_WRAPPER): value for key, value in _read_raw(path, flag).items()}


def _read_raw(path: str, flag: str) -> dict[str, torch.Tensor]:
    if Path(path).is_dir():
        raise ValueError(f'{flag} {path}: is a folder, expected a file')
    if not Path(path).is_file():
        hint = '; download it, as only local files are read' if '://' in str(path) else ''
        raise ValueError(f'{flag} {path}: no such file{hint}')
    try:
        content = torch.load(path, map_location='cpu', weights_only=False, mmap=zipfile.is_zipfile(path))
    except ImportError as error:
        raise ValueError(f'{flag} {path}: cannot be read without the package {error.name}') from error
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else 'expected a file that torch.save wrote'
        raise ValueError(f'{flag} {path}: not a readable checkpoint; {reason}') from error
    weights = content.get('state_dict', content) if isinstance(content, dict) else None
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f'{flag} {path}: holds no weights; expected a state_dict, or a dict with one under "state_dict"')
    return weights
