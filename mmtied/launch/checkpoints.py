"""Read and write checkpoints, and check that they fit a model.

`mmtied.unpickling` reads the files; it refuses anything but tensors, plain values and mmengine's training history.
"""

import inspect
import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmtied.atomic import atomic_path, check_can_read, check_can_write
from mmtied.backbones.checkpoint import find_hint, find_misfits, name_some
from mmtied.compat import unwrap_model
from mmtied.related.shared_bases.released import is_released
from mmtied.unpickling import load_checkpoint

from .checks import dicts_in

#: Prefix of the backbone's weights in mmpretrain's classifiers and mmdet's detectors.
BACKBONE = 'backbone.'
#: Prefix that DistributedDataParallel adds to the names of a model's weights.
_WRAPPER = 'module.'
#: Keys of the weights in a checkpoint: mmengine's, and that of the authors of shared filter bases.
_STATE_DICTS = ('state_dict', 'net_state_dict')


def read_state_dict(path: str | os.PathLike, flag: str = 'checkpoint') -> dict[str, torch.Tensor]:
    """Return the weights in a local checkpoint, memory-mapped and without the prefix of distributed training.

    For a model trained with EMA these are the averaged weights, which mmengine's EMAHook saves as the state_dict. Errors (file
    missing, unreadable, refused, or without weights) start with `flag`, the name of the argument that gave the path.
    """
    weights = _read(path, flag)
    renamed, renamed_metadata = (OrderedDict((key.removeprefix(_WRAPPER), value) for key, value in dict.items(values))
                                 for values in (weights, _metadata(weights)))
    renamed._metadata = renamed_metadata
    return renamed


def check_checkpoint(path: str, flag: str = 'checkpoint') -> None:
    """Raise a ValueError unless a local checkpoint exists and contains weights. URLs are left to mmengine."""
    if '://' not in path:
        _read(path, flag)


def check_resumable(path: str, flag: str = '--resume') -> None:
    """Raise a ValueError unless a local checkpoint contains weights and training progress. URLs are left to mmengine."""
    if '://' in path:
        return
    content = _content(path, flag)
    find_weights(content, f'{flag} {path}')
    meta, history = content.get('meta'), content.get('message_hub')
    numbers = [meta.get(key) for key in ('epoch', 'iter')] if isinstance(meta, dict) else [None]
    if not isinstance(history, dict) or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise ValueError(f'{flag} {path}: cannot be resumed: it lacks the training progress (expected meta with epoch and iter, '
                         'and message_hub); --cfg-options load_from=FILE starts a new training from its weights')


def check_initial_weights(cfg: Config) -> None:
    """Raise a ValueError unless `load_from` and the checkpoint of every `init_cfg` in a config are usable."""
    if cfg.get('load_from'):
        (check_resumable if cfg.get('resume') else check_checkpoint)(cfg.load_from, 'load_from')
    for key, part in dicts_in(cfg.model, 'model'):
        if part.get('type') == 'Pretrained' and isinstance(part.get('checkpoint'), str):
            check_checkpoint(part['checkpoint'], f'{key}.checkpoint')


def check_model(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint contains exactly a model's weights.

    Buffers of the data preprocessor are optional: mmengine creates them from the config.
    """
    if '://' in checkpoint:
        return
    model = unwrap_model(model)
    own = model.state_dict()
    weights = {key: value for key, value in read_state_dict(checkpoint).items()
               if key in own or not key.startswith('data_preprocessor.')}
    parts = {key.partition('.')[0] for key in own}
    unknown = [f'{key} is not in this network' for key in weights if key.partition('.')[0] not in parts]
    raise_misfits(f'checkpoint {checkpoint}', model, weights, find_misfits(model, weights) + unknown)


def check_backbone(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint contains the weights of a detector's backbone.

    Weights of plugins may be missing unless they are frozen.
    """
    if '://' in checkpoint:
        return
    weights = read_state_dict(checkpoint, '--backbone-checkpoint')
    weights = of_backbone(weights) or weights
    backbone = unwrap_model(model).backbone
    raise_misfits(f'--backbone-checkpoint {checkpoint}', backbone, weights, find_misfits(backbone, weights, ['plugins']))


def use_backbone_checkpoint(cfg: Config, checkpoint: str) -> None:
    """Initialize a detector's backbone from a checkpoint of a backbone, a classifier or a detector.

    As mmdet does for pretrained weights, freeze the stem and the first stage and keep BatchNorm in evaluation mode.
    """
    backbone = cfg.model.get('backbone')
    if backbone is None or cfg.get('default_scope') == 'mmpretrain':
        raise ValueError('--backbone-checkpoint is for detectors, and the config has a model of another kind; to start a '
                         'classifier from a checkpoint, use --cfg-options load_from=FILE')
    backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': checkpoint}
    if '://' not in checkpoint:
        keys = _read(checkpoint, '--backbone-checkpoint')  # mmengine strips only a bare 'module.' prefix
        if is_released(key.removeprefix(_WRAPPER) for key in keys):
            raise ValueError(f'--backbone-checkpoint {checkpoint}: these are weights as released by the authors of shared filter '
                             f'bases; run mmtied convert {checkpoint} FILE, and use that file')
        for prefix in (BACKBONE, _WRAPPER + BACKBONE):
            if any(key.startswith(prefix) for key in keys):
                backbone.init_cfg['prefix'] = prefix
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        network = registry.get(backbone.type) if isinstance(backbone.type, str) else backbone.type
    if network is None:
        raise ValueError(f'backbone {backbone.type} is not registered')
    arguments = inspect.signature(network).parameters
    any_keyword = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    for setting, value in (('frozen_stages', 1), ('norm_eval', True)):
        if setting in arguments or any_keyword:
            backbone[setting] = value


def check_finite(weights: Mapping[str, torch.Tensor], name: str, advice: str) -> None:
    """Raise a ValueError, with advice, for weights that contain NaN or infinity."""
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f'{name}: {len(broken)} of {len(weights)} tensors of the backbone contain NaN or infinity ({broken[0]} '
                         f'first); {advice}')


def write_checkpoint(content: dict, target: str | os.PathLike) -> None:
    """Write a checkpoint atomically."""
    packed = io.BytesIO()  # on a full disk, torch.save itself raises an obscure RuntimeError
    torch.save(content, packed)
    with atomic_path(target) as temporary:
        temporary.write_bytes(packed.getbuffer())


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config in its default scope, with random weights."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return MODELS.build(cfg.model)


def build_trained(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config with the weights of a checkpoint; raise a ValueError if they do not fit."""
    check_checkpoint(checkpoint)
    model = build_model(cfg)
    check_model(model, checkpoint)
    model.load_state_dict(read_state_dict(checkpoint), strict=False)
    return model


def check_target(target: str | os.PathLike, source: str | os.PathLike, source_name: str, example: str) -> None:
    """Raise a ValueError if the target is a folder, is the source itself, or cannot be written."""
    target, source = Path(target), Path(source)
    if target.is_dir():
        raise ValueError(f'{target} is a folder; name a file to write, such as {target / example}')
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is {source_name} itself; name another file to write')
    check_can_write(target, 'the file to write,')


def find_weights(content: object, name: str) -> dict[str, torch.Tensor]:
    """Return the weights in the content of a checkpoint; raise a ValueError if there are none, or anything but weights."""
    weights = next((content[key] for key in _STATE_DICTS if key in content), content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in dict.items(weights)):
        raise ValueError(f'{name}: contains no weights; expected a state_dict, or a dict with one under "state_dict"')
    for key, value in dict.items(weights):
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested or value.is_complex():
            raise ValueError(f'{name}: {key} is a tensor of another kind (sparse, quantized, nested, complex, or on the meta '
                             'device); expected dense real numbers')
    _metadata(weights, name)
    return weights


def _metadata(weights: dict, name: str = 'the state_dict') -> dict[str, dict]:
    """Return the module versions that torch stores in a state_dict."""
    attributes = getattr(weights, '__dict__', {})
    metadata = attributes.get('_metadata', {})
    if set(attributes) - {'_metadata'} or not isinstance(metadata, dict) or getattr(metadata, '__dict__', {}) or not all(
            isinstance(key, str) and type(value) is dict and isinstance(value.get('version'), int | None)
            for key, value in dict.items(metadata)):
        raise ValueError(f'{name}: _metadata of its state_dict is not what torch saves; save a plain dict of tensors')
    return metadata


def _content(path: str | os.PathLike, flag: str) -> object:
    """Return the content of a checkpoint."""
    if '://' in str(path) and not Path(path).exists():
        raise ValueError(f'{flag} {path}: no such file; download it first, since only local files are read')
    check_can_read(path, f'{flag} {path}')
    try:
        return load_checkpoint(path)
    except ValueError as error:
        raise type(error)(f'{flag} {error}') from error.__cause__


def _read(path: str | os.PathLike, flag: str) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint under their names in the file."""
    return find_weights(_content(path, flag), f'{flag} {path}')


def of_backbone(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the backbone's part of a detector's or classifier's weights, under their names in the backbone."""
    return {key.removeprefix(BACKBONE): value for key, value in weights.items() if key.startswith(BACKBONE)}


def raise_misfits(name: str, module: nn.Module, weights: Mapping[str, torch.Tensor], misfits: list[str]) -> None:
    """Raise a ValueError that lists misfits of a checkpoint, if there are any."""
    if misfits:
        hint = find_hint(module, weights)
        raise ValueError(f"{name}: the checkpoint does not fit the config's {type(module).__name__} ({name_some(misfits)})"
                         + (f'; {hint}' if hint else ''))
