"""Frozen teachers for distillation: a torchvision network by name, or a backbone from a config and a checkpoint."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmtied.backbones.checkpoint import find_misfits, name_some
from mmtied.compat import require
from mmtied.unpickling import safe_loading

#: Prefix of torchvision's networks, as in mmengine's ``init_cfg``.
TORCHVISION = 'torchvision://'


class Normalization(NamedTuple):
    """Normalization ``(value - mean) / std`` of images with values from 0 to 255, with channels in the order RGB or BGR."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool

    @classmethod
    def of_config(cls, cfg: Config) -> 'Normalization | None':
        """Return the normalization of an mmdet or mmpretrain config, or None if it has none."""
        settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        if not settings.get('mean') or not settings.get('std'):
            return None
        return cls(tuple(settings['mean']), tuple(settings['std']), bool(settings.get('bgr_to_rgb') or settings.get('to_rgb')))

    @classmethod
    def of_model(cls, model: nn.Module) -> 'Normalization | None':
        """Return the normalization of a model's data_preprocessor, or None if it has none; images are loaded as BGR."""
        part = getattr(model, 'data_preprocessor', None)
        mean, std = getattr(part, 'mean', None), getattr(part, 'std', None)
        if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
            return None
        rgb = getattr(part, '_channel_conversion', False) or getattr(part, 'to_rgb', False)
        return cls(tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()), bool(rgb))

    def matches(self, other: 'Normalization') -> bool:
        """Return whether two normalizations agree, with a relative tolerance of 1e-4."""
        return self.rgb == other.rgb and torch.allclose(torch.tensor(self.mean + self.std), torch.tensor(other.mean + other.std),
                                                        rtol=1e-4)


class Teacher:
    """Frozen network that returns the outputs of some of its stages.

    It is not a `torch.nn.Module`, so a model with one neither trains nor saves it, and copies of the model share it.

    Args:
        network: A network that takes one image tensor. It stays in evaluation mode, without gradients.
        stages: Names of submodules with outputs of shape (N, C, H, W).
        normalization: Normalization of its input; None if unknown.
        name: Name of the network in messages; by default its class.

    Example:
        >>> teacher = Teacher(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), ['0'])
        >>> teacher(torch.rand(2, 3, 5, 5))['0'].shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, network: nn.Module, stages: Sequence[str], normalization: Normalization | None = None,
                 name: str = '') -> None:
        network.eval()  # returns None in mmdet
        self.network = network.requires_grad_(False)
        self.stages = tuple(stages)
        self.normalization = normalization
        self.student_normalization: Normalization | None = None
        self.name = name or type(network).__name__
        self.widths = stage_widths(network, stages, f'the teacher {self.name}')

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the output of each stage for the student's input, (N, 3, H, W)."""
        if next(self.network.parameters()).device != images.device:
            self.network.to(images.device)
        with recorded(self.network, self.stages) as outputs:
            self.network(self.renormalize(images))
        return outputs

    def renormalize(self, images: Tensor) -> Tensor:
        """Convert the student's input to the teacher's normalization, if both are known and differ."""
        mine, theirs = self.normalization, self.student_normalization
        if mine is None or theirs is None or mine.matches(theirs):
            return images
        step = 1 if mine.rgb == theirs.rgb else -1
        mean, std, their_mean, their_std = (torch.tensor(values, device=images.device)[:, None, None] for values in (
            mine.mean, mine.std, theirs.mean[::step], theirs.std[::step]))
        images = images.flip(1) if step == -1 else images
        return images * (their_std / std) + (their_mean - mean) / std

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self


def build_teacher(teacher: str | Mapping, weights: str | None, stages: Sequence[str]) -> Teacher:
    """Build a network with trained weights; `DistillationHook` documents the arguments."""
    if isinstance(teacher, str) and teacher.startswith(TORCHVISION):
        name = teacher.removeprefix(TORCHVISION)
        network, normalization = _of_torchvision(name, weights)
        return Teacher(network, stages, normalization, name)
    normalization, scope = None, getattr(DefaultScope.get_current_instance(), 'scope_name', None)
    if isinstance(teacher, str):
        if '::' not in teacher and not Path(teacher).suffix:
            raise ValueError(f'teacher: {teacher} is not a config; for a torchvision network use {TORCHVISION}{teacher}')
        from mmtied.launch.config import load_config
        cfg = load_config(teacher)
        backbone, normalization, scope = cfg.model.get('backbone'), Normalization.of_config(cfg), cfg.get('default_scope', scope)
        if backbone is None:
            raise ValueError(f'teacher: the config {teacher} has no model.backbone')
    else:
        backbone = teacher
    if weights is None and (backbone.get('init_cfg') or {}).get('type') != 'Pretrained':
        raise ValueError(f'teacher: {backbone.get("type")} would have random weights; name its checkpoint with weights=FILE')
    with DefaultScope.overwrite_default_scope(scope):
        network = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg' or weights is None})
        if weights is None:
            network.init_weights()
        else:
            _load(network, _read(weights), weights)
    return Teacher(network, stages, normalization)


def stage_widths(network: nn.Module, stages: Sequence[str], owner: str) -> dict[str, int]:
    """Return the number of output channels of each stage, found with a 64 x 64 image; the network's state does not change.

    A stage that does not exist, does not run, or does not return (N, C, H, W) raises a ValueError that names the `owner`.

    Example:
        >>> stage_widths(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), ['0'], 'the network')
        {'0': 8}
    """
    names = dict(network.named_modules())
    for stage in stages:
        if stage not in names:
            close = difflib.get_close_matches(stage, names, 1)
            hint = f'did you mean {close[0]}?' if close else f'it has {", ".join(dict(network.named_children()))}'
            raise ValueError(f'{owner} has no stage {stage!r}; {hint}')
    like, modes = next(network.parameters()), {module: module.training for module in network.modules()}
    try:
        network.eval()
        with recorded(network, stages) as outputs, torch.no_grad():
            network(torch.zeros(1, 3, 64, 64, device=like.device, dtype=like.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
    for stage in stages:
        output = outputs.get(stage)
        if not isinstance(output, Tensor) or output.dim() != 4:
            found = 'does not run' if output is None else 'does not return a feature map (N, C, H, W)'
            raise ValueError(f'{owner}: stage {stage} {found}')
    return {stage: outputs[stage].shape[1] for stage in stages}


@contextmanager
def recorded(network: nn.Module, stages: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of some stages of a network that runs in the ``with`` block."""
    outputs = {}

    def keep(stage: str, module: nn.Module, args: tuple, output: Tensor) -> None:
        outputs[stage] = output

    with ExitStack() as hooks:
        for stage in stages:
            hooks.enter_context(network.get_submodule(stage).register_forward_hook(partial(keep, stage)))
        yield outputs


def _of_torchvision(name: str, weights: str | None) -> tuple[nn.Module, Normalization]:
    require('torchvision', f'The teacher {TORCHVISION}{name}')
    from torchvision import models
    if name not in models.list_models():
        close = difflib.get_close_matches(name, models.list_models(), 1)
        raise ValueError(f'teacher: torchvision has no {name!r}' + (f'; did you mean {close[0]}?' if close else ''))
    network, choices = models.get_model(name, weights=None), models.get_model_weights(name).__members__
    made = next(iter(choices.values())).transforms()
    mean, std = (tuple(255 * value for value in getattr(made, key)) for key in ('mean', 'std'))
    weights = weights or next(iter(choices))
    if weights in choices:
        try:
            state = choices[weights].get_state_dict(check_hash=True)
        except OSError as error:
            raise ValueError(f'teacher: {choices[weights].url} cannot be downloaded ({error}); name a local file with '
                             'weights=FILE') from error
    elif '://' in weights or Path(weights).exists():
        state = _read(weights)
    else:
        raise ValueError(f'teacher: weights={weights!r} is neither a file nor one of {", ".join(choices)}')
    _load(network, state, weights)
    return network, Normalization(mean, std, rgb=True)


def _read(weights: str) -> dict[str, Tensor]:
    """Return the weights in a checkpoint; for a detector or classifier, those of its backbone."""
    from mmtied.launch.checkpoints import find_weights, of_backbone, read_state_dict
    if '://' in weights:
        with safe_loading():
            content = CheckpointLoader.load_checkpoint(weights, 'cpu')
        state = find_weights(content, f"the teacher's weights {weights}")
    else:
        state = read_state_dict(weights, "the teacher's weights")
    return of_backbone(state) or state


def _load(network: nn.Module, state: Mapping[str, Tensor], weights: str) -> None:
    misfits = find_misfits(network, state)
    if misfits:
        raise ValueError(f"the teacher's weights {weights} do not fit {type(network).__name__} ({name_some(misfits)})")
    network.load_state_dict(state, strict=False)
