"""Read checkpoints, check that they fit a model, and convert a classifier's into a backbone's.

Files are read as `mmtied.unpickling` allows: one that needs more than tensors, plain values and mmengine's training history is
refused.
"""

import inspect
import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmtied.atomic import atomic_path, check_can_read, check_can_write
from mmtied.backbones.checkpoint import find_hint, find_misfits, name_some
from mmtied.compat import unwrap_model
from mmtied.related.shared_bases.released import convert_released, is_released
from mmtied.unpickling import load_checkpoint

from .checks import dicts_in

#: Prefix of the backbone's weights in mmpretrain's classifiers and mmdet's detectors.
_BACKBONE = 'backbone.'
#: Prefix that DistributedDataParallel adds to the names of a model's weights.
_WRAPPER = 'module.'
#: Keys of a checkpoint under which the weights are: mmengine's, and that of the authors of shared filter bases.
_STATE_DICTS = ('state_dict', 'net_state_dict')


def read_state_dict(path: str | os.PathLike, flag: str = 'checkpoint') -> dict[str, torch.Tensor]:
    """Return the weights in a local checkpoint, memory-mapped and without the prefix of distributed training.

    A model trained with EMA has its averaged weights there: mmengine's EMAHook saves them as the state_dict. Errors, of a file
    that is missing, unreadable or refused, or holds no weights, start with the name of the argument that gave the path.
    """
    weights = _read(path, flag)
    renamed, renamed_metadata = (OrderedDict((key.removeprefix(_WRAPPER), value) for key, value in dict.items(values))
                                 for values in (weights, _metadata(weights)))
    renamed._metadata = renamed_metadata
    return renamed


def check_checkpoint(path: str, flag: str = 'checkpoint') -> None:
    """Raise a ValueError unless a local checkpoint exists and holds weights. URLs are left to mmengine."""
    if '://' not in path:
        _read(path, flag)


def check_resumable(path: str, flag: str = '--resume') -> None:
    """Raise a ValueError unless a local checkpoint holds weights and says where the training was. URLs are left to mmengine."""
    if '://' in path:
        return
    content = _content(path, flag)
    find_weights(content, f'{flag} {path}')
    meta, history = content.get('meta'), content.get('message_hub')
    numbers = [meta.get(key) for key in ('epoch', 'iter')] if isinstance(meta, dict) else [None]
    if not isinstance(history, dict) or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise ValueError(f'{flag} {path}: cannot be resumed, as it does not say where the training was (expected meta with epoch '
                         'and iter, and message_hub); --cfg-options load_from=FILE starts a new training from its weights')


def check_initial_weights(cfg: Config) -> None:
    """Raise a ValueError unless `load_from` and the checkpoints in every `init_cfg` of a config hold what is needed."""
    if cfg.get('load_from'):
        (check_resumable if cfg.get('resume') else check_checkpoint)(cfg.load_from, 'load_from')
    for key, part in dicts_in(cfg.model, 'model'):
        if part.get('type') == 'Pretrained' and isinstance(part.get('checkpoint'), str):
            check_checkpoint(part['checkpoint'], f'{key}.checkpoint')


def check_model(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint holds exactly a model's weights.

    Buffers of the data preprocessor are optional: mmengine makes them from the config.
    """
    if '://' in checkpoint:
        return
    model = unwrap_model(model)
    own = model.state_dict()
    weights = {key: value for key, value in read_state_dict(checkpoint).items()
               if key in own or not key.startswith('data_preprocessor.')}
    parts = {key.partition('.')[0] for key in own}
    unknown = [f'{key} is not in this network' for key in weights if key.partition('.')[0] not in parts]
    _raise_misfits(f'checkpoint {checkpoint}', model, weights, find_misfits(model, weights) + unknown)


def check_backbone(model: nn.Module, checkpoint: str) -> None:
    """Raise a ValueError unless a local checkpoint holds the weights of a detector's backbone.

    Plugins are optional where they are trained.
    """
    if '://' in checkpoint:
        return
    weights = read_state_dict(checkpoint, '--backbone-checkpoint')
    weights = of_backbone(weights) or weights
    backbone = unwrap_model(model).backbone
    _raise_misfits(f'--backbone-checkpoint {checkpoint}', backbone, weights, find_misfits(backbone, weights, ['plugins']))


def use_backbone_checkpoint(cfg: Config, checkpoint: str) -> None:
    """Start a detector's backbone from a checkpoint, of the backbone alone, a classifier or a detector.

    mmdet's settings for pretrained weights freeze the stem and the first stage, and keep BatchNorm in evaluation mode.
    """
    backbone = cfg.model.get('backbone')
    if backbone is None or cfg.get('default_scope') == 'mmpretrain':
        raise ValueError('--backbone-checkpoint is for detectors, and the config has a model of another kind; to start a '
                         'classifier from a checkpoint use --cfg-options load_from=FILE')
    backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': checkpoint}
    if '://' not in checkpoint:
        keys = _read(checkpoint, '--backbone-checkpoint')  # mmengine strips 'module.' only from weights without another prefix
        if is_released(key.removeprefix(_WRAPPER) for key in keys):
            raise ValueError(f'--backbone-checkpoint {checkpoint}: has the names of the network that its authors released; run '
                             f'mmtied convert {checkpoint} FILE and give that file')
        for prefix in (_BACKBONE, _WRAPPER + _BACKBONE):
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


class Converted(NamedTuple):
    """Tensors that `convert_backbone` kept, by their new names, names of the others, and the config of a released backbone."""

    kept: dict[str, torch.Tensor]
    dropped: list[str]
    backbone: dict | None


def convert_backbone(source: str | os.PathLike, target: str | os.PathLike, keep_head: bool = False) -> Converted:
    """Write the weights of a classifier's backbone, without head, optimizer state and history.

    The new file holds tensors only. It serves as ``init_cfg=dict(type='Pretrained', checkpoint=target)`` of the same backbone in
    a detector, and as ``tools/train.py --backbone-checkpoint``.

    Args:
        source: Checkpoint of a classifier trained with mmpretrain, or one that the authors of shared filter bases released.
        target: File to write; an existing one is replaced.
        keep_head: Write the whole classifier, head included, as ``tools/test.py`` reads it.

    Raises:
        ValueError: The source is unreadable, has no backbone, or holds NaN or infinity; or the target is a folder or the source.
    """
    check_target(target, source, 'the classifier', 'backbone.pth')
    weights, backbone = read_state_dict(source), None
    if is_released(weights):
        try:
            backbone, weights = convert_released(weights)
        except ValueError as error:
            raise ValueError(f'checkpoint {source}: {error}') from None
        network = MODELS.build(dict(backbone))
        _raise_misfits(f'checkpoint {source}', network, weights, find_misfits(network, of_backbone(weights)))
    kept = of_backbone(weights)
    if not kept:
        raise ValueError(f"checkpoint {source}: no weights named {_BACKBONE}* (the first is {next(iter(weights))}); expected a "
                         "classifier trained with mmpretrain; a backbone's own weights need no conversion")
    kept = {key: value.clone() for key, value in (weights if keep_head else kept).items()}
    check_finite(kept, f'checkpoint {source}', 'its training diverged, take an earlier checkpoint')
    write_checkpoint({'state_dict': kept}, target)
    return Converted(kept, [key for key in weights if not (keep_head or key.startswith(_BACKBONE))], backbone)


def check_finite(weights: Mapping[str, torch.Tensor], name: str, advice: str) -> None:
    """Raise a ValueError, with advice, for weights that hold NaN or infinity."""
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f'{name}: {len(broken)} of {len(weights)} tensors of the backbone hold NaN or infinity ({broken[0]} '
                         f'first); {advice}')


def write_checkpoint(content: dict, target: str | os.PathLike) -> None:
    """Write a checkpoint, whole or not at all."""
    packed = io.BytesIO()  # on a full disk torch.save itself raises a RuntimeError about positions
    torch.save(content, packed)
    with atomic_path(target) as temporary:
        temporary.write_bytes(packed.getbuffer())


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config in the scope of its package, with random weights."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return MODELS.build(cfg.model)


def build_trained(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config with the weights of a checkpoint; raise a ValueError for one of another model."""
    check_checkpoint(checkpoint)
    model = build_model(cfg)
    check_model(model, checkpoint)
    model.load_state_dict(read_state_dict(checkpoint), strict=False)
    return model


def check_target(target: str | os.PathLike, source: str | os.PathLike, source_name: str, example: str) -> None:
    """Raise a ValueError where a file to write is a folder, or the file that it is made from, or cannot be written."""
    target, source = Path(target), Path(source)
    if target.is_dir():
        raise ValueError(f'{target} is a folder; name a file to write, such as {target / example}')
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is {source_name} itself; name another file to write')
    check_can_write(target, 'the file to write,')


def find_weights(content: object, name: str) -> dict[str, torch.Tensor]:
    """Return the weights in what a checkpoint holds; raise a ValueError where there are none, or something else is among them."""
    weights = next((content[key] for key in _STATE_DICTS if key in content), content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in dict.items(weights)):
        raise ValueError(f'{name}: holds no weights; expected a state_dict, or a dict with one under "state_dict"')
    for key, value in dict.items(weights):
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested or value.is_complex():
            raise ValueError(f'{name}: {key} is a tensor of another kind (sparse, quantized, nested, complex, or without '
                             'values); expected dense real numbers')
    _metadata(weights, name)
    return weights


def _metadata(weights: dict, name: str = 'the state_dict') -> dict[str, dict]:
    """Return the versions of the modules that torch notes in a state_dict."""
    attributes = getattr(weights, '__dict__', {})
    metadata = attributes.get('_metadata', {})
    if set(attributes) - {'_metadata'} or not isinstance(metadata, dict) or getattr(metadata, '__dict__', {}) or not all(
            isinstance(key, str) and type(value) is dict and isinstance(value.get('version'), int | None)
            for key, value in dict.items(metadata)):
        raise ValueError(f'{name}: _metadata of its state_dict is not what torch saves; save a plain dict of tensors')
    return metadata


def _content(path: str | os.PathLike, flag: str) -> object:
    """Return what a checkpoint holds."""
    if '://' in str(path) and not Path(path).exists():
        raise ValueError(f'{flag} {path}: no such file; download it, as only local files are read')
    check_can_read(path, f'{flag} {path}')
    try:
        return load_checkpoint(path)
    except ValueError as error:
        raise type(error)(f'{flag} {error}') from error.__cause__


def _read(path: str | os.PathLike, flag: str) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint under the names that the file gives them."""
    return find_weights(_content(path, flag), f'{flag} {path}')


def of_backbone(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the backbone in a detector's or classifier's, under their names in the backbone."""
    return {key.removeprefix(_BACKBONE): value for key, value in weights.items() if key.startswith(_BACKBONE)}


def _raise_misfits(name: str, module: nn.Module, weights: Mapping[str, torch.Tensor], misfits: list[str]) -> None:
    if misfits:
        hint = find_hint(module, weights)
        raise ValueError(f"{name}: the checkpoint does not fit the config's {type(module).__name__} ({name_some(misfits)})"
                         + (f'; {hint}' if hint else ''))
