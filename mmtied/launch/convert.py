"""Turn a trained classifier's checkpoint into weights of its backbone, for a detector to start from."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from mmtied.atomic import atomic_path

from .weights import read_state_dict

#: How mmpretrain's classifiers, and mmdet's detectors, name their backbone.
PREFIX = 'backbone.'


class Conversion(NamedTuple):
    """What a conversion kept and dropped: tensors by their names in the new file and in the old one."""

    kept: dict[str, torch.Tensor]
    dropped: list[str]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """What was kept, without BatchNorm's counters of batches."""
        return {key: value for key, value in self.kept.items() if not key.endswith('num_batches_tracked')}


def convert_backbone(source: str | os.PathLike, target: str | os.PathLike) -> Conversion:
    """Write the weights of a classifier's backbone, without head, optimizer and history.

    The new file serves as ``init_cfg=dict(type='Pretrained', checkpoint=target)`` of the same backbone in a detector, and as
    ``--backbone-checkpoint``. It holds tensors only, so ``torch.load(target, weights_only=True)`` reads it.

    Args:
        source: Checkpoint of a classifier. Of a model averaged by EMA the averaged weights are taken.
        target: File to write, whole or not at all; one that exists is replaced.

    Raises:
        ValueError: No such checkpoint, one without weights of a backbone or with infinite or undefined ones, a folder as the
            target, or the same path twice.
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise ValueError(f'{target} is a folder; name a file to write, such as {target / "backbone.pth"}')
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is the classifier itself; name another file to write')
    weights = read_state_dict(str(source), 'checkpoint')
    kept = {key.removeprefix(PREFIX): value.clone() for key, value in weights.items() if key.startswith(PREFIX)}
    if not kept:
        raise ValueError(f"checkpoint {source}: no weights named {PREFIX}* (the first is {next(iter(weights))}); expected a "
                         "classifier trained with mmpretrain; a backbone's own weights need no conversion")
    broken = [key for key, value in kept.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f'checkpoint {source}: {len(broken)} of {len(kept)} tensors of the backbone hold NaN or infinity ('
                         f'{broken[0]} first); its training diverged, take an earlier checkpoint')
    with atomic_path(target) as temporary:
        torch.save({'state_dict': kept}, temporary)
    return Conversion(kept, [key for key in weights if not key.startswith(PREFIX)])
