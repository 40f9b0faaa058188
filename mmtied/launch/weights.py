"""Give a config's backbone trained weights: ``--backbone-checkpoint``."""

from pathlib import Path

import torch
from mmengine.config import Config


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
    if '://' not in checkpoint and _holds_whole_model(checkpoint):
        init_cfg['prefix'] = 'backbone.'
    backbone.init_cfg = init_cfg
    backbone.frozen_stages = 1
    backbone.norm_eval = True


def check_checkpoint(checkpoint: str, flag: str) -> None:
    """Raise a ValueError unless a local checkpoint exists and holds weights; addresses are left to mmengine."""
    if '://' not in checkpoint:
        read_state_dict(checkpoint, flag)


def _holds_whole_model(checkpoint: str) -> bool:
    return any(key.startswith('backbone.') for key in read_state_dict(checkpoint, '--backbone-checkpoint'))


def read_state_dict(path: str, flag: str) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, mapped from the file rather than read.

    Where a model was averaged while it trained, these are the averaged weights: mmengine's EMAHook saves them as the state_dict.

    Args:
        path: A checkpoint with the weights under "state_dict", or a state_dict itself.
        flag: What the message calls the path.

    Raises:
        ValueError: No such file, or a file that holds no weights.
    """
    if not Path(path).is_file():
        raise ValueError(f'{flag} {path}: no such file')
    try:
        content = torch.load(path, map_location='cpu', weights_only=False, mmap=True)
    except Exception as error:
        raise ValueError(f'{flag} {path}: not a readable checkpoint ({type(error).__name__}: {error})') from error
    weights = content.get('state_dict', content) if isinstance(content, dict) else None
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f'{flag} {path}: holds no weights; expected a state_dict, or a dict with one under "state_dict"')
    return weights
