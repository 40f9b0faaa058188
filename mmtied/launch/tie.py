"""Tie the layers of a trained model of mmdet or mmpretrain, and write the weights."""

import os
from collections.abc import Sequence
from copy import deepcopy

import torch
from mmengine.config import Config

from mmtied.surgery import TiedLayer, tie

from .checkpoints import build_model, build_trained, check_target, write_checkpoint


def write_tied(cfg: Config, checkpoint: str, target: str | os.PathLike, num_blocks: int = 2,
               layers: Sequence[str] = ('backbone.*', ), error_budget: float | None = None,
               permute: bool = False) -> tuple[list[TiedLayer], bool]:
    """Tie the layers of a trained model, and write its weights as a checkpoint.

    The other arguments are those of `mmtied.surgery.tie`. Nothing is written where files or settings do not fit, or where there
    is nothing to tie.

    Returns:
        What tying did to each layer, and whether the config loads the file once its backbone has the conv_cfg of
        `tied_conv_cfg`.
    """
    check_target(target, checkpoint, 'the checkpoint', 'tied.pth')
    tied, changes = tie(build_trained(cfg, checkpoint), num_blocks, layers, error_budget, permute)
    if not changes:
        raise ValueError(f'{target} is not written: no layer can be tied within an error budget of {error_budget}')
    weights = tied.state_dict()
    write_checkpoint({'state_dict': weights,
                      'meta': {'num_blocks': num_blocks, 'tied': [change.name for change in changes]}}, target)
    return changes, _loads(cfg, num_blocks, weights)


def tied_conv_cfg(num_blocks: int) -> dict[str, object]:
    """Return the `conv_cfg` that ties every convolution of a backbone that can be tied."""
    return {'type': 'TBC', 'num_blocks': num_blocks, 'indivisible': 'untie'}


def _loads(cfg: Config, num_blocks: int, weights: dict[str, torch.Tensor]) -> bool:
    """Return whether a config's model has these weights if its backbone gets the conv_cfg."""
    cfg = deepcopy(cfg)
    cfg.model.backbone.conv_cfg = tied_conv_cfg(num_blocks)
    try:
        built = build_model(cfg).state_dict()
    except (TypeError, ValueError, AssertionError):  # a backbone without conv_cfg
        return False
    return {key: value.shape for key, value in built.items()} == {key: value.shape for key, value in weights.items()}
