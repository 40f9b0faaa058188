"""Trained networks that a command line names, for figures that show several of them: their models, classes and inputs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmtied.evaluation.inputs.images import list_images, read_image
from mmtied.unpickling import load_checkpoint

from .checkpoints import build_trained
from .config import load_config


class Network(NamedTuple):
    """A trained model of mmdet or mmpretrain in evaluation mode.

    Attributes:
        name: Its name in figures.
        cfg: Its config.
        model: The model with the weights of its checkpoint.
        classes: Names of its classes; empty where neither checkpoint nor config says.
    """

    name: str
    cfg: Config
    model: nn.Module
    classes: tuple[str, ...]

    @property
    def is_detector(self) -> bool:
        """True for a model that finds objects, False for one that classifies images."""
        return self.cfg.get('default_scope') != 'mmpretrain'

    def class_name(self, label: int) -> str:
        """Return the name of a label, ``class 7`` where it is not known."""
        return self.classes[label] if label < len(self.classes) else f'class {label}'


def load_networks(words: Sequence[str], names: Sequence[str] | None = None, options: Sequence[str] | None = None,
                  device: str | None = None) -> list[Network]:
    """Build the models of configs with the weights of checkpoints.

    Args:
        words: CONFIG CHECKPOINT [CONFIG CHECKPOINT ...].
        names: A name for each; by default those of the configs.
        options: KEY=VALUE words that override settings of every config.
        device: By default a GPU where there is one.

    Raises:
        ValueError: Words are no pairs, names do not fit them, or a config or checkpoint is not usable.
    """
    if not words or len(words) % 2:
        raise ValueError(f'expected pairs of a config and a checkpoint, got {len(words)}: {" ".join(words)}')
    pairs = list(zip(words[::2], words[1::2], strict=True))
    names = list(names or (Path(config.split('::')[-1]).stem for config, _ in pairs))
    if len(names) != len(pairs):
        raise ValueError(f'--names: {len(names)} names for {len(pairs)} networks')
    device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    networks = []
    for name, (config, checkpoint) in zip(distinct(names), pairs, strict=True):
        cfg = load_config(config, options)
        if cfg.get('data_preprocessor'):
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as mmengine's Runner does
        model = build_trained(cfg, checkpoint).to(device).eval()
        for module in model.modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = False  # recomputation and torch.autograd.grad exclude each other
        networks.append(Network(name, cfg, model, _classes(cfg, checkpoint)))
    return networks


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that are there more than once.

    Example:
        >>> distinct(['a', 'b', 'a'])
        ['a (1)', 'b', 'a (3)']
    """
    return [f'{name} ({number})' if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def chosen_images(sources: Sequence[str | os.PathLike], count: int | None = None, seed: int = 0) -> list[Path]:
    """Return image files, given as such or by their folders; at most `count` of them, chosen at random.

    Raises:
        ValueError: A file or folder is missing or holds no images, or `count` is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f'--num {count}: at least 1 is needed')
    paths = []
    for source in map(Path, sources):
        paths += [source] if source.is_file() else list_images(source)
    if count is None or len(paths) <= count:
        return paths
    return [paths[number] for number in sorted(np.random.default_rng(seed).permutation(len(paths))[:count].tolist())]


def image_batches(model: nn.Module, paths: Sequence[str | os.PathLike], size: int, batch_size: int = 4) -> Iterator[Tensor]:
    """Yield images as a model takes them: their central squares, resized, and normalized by its data preprocessor.

    Args:
        model: A model of mmdet or mmpretrain.
        paths: Image files.
        size: Height and width of the squares.
        batch_size: Images in each batch.
    """
    from PIL import Image, ImageOps

    for start in range(0, len(paths), batch_size):
        squares = [np.asarray(ImageOps.fit(read_image(path), (size, size), Image.Resampling.BICUBIC))
                   for path in paths[start:start + batch_size]]
        inputs = [torch.from_numpy(square[:, :, ::-1].copy()).permute(2, 0, 1) for square in squares]  # BGR, as mmcv loads
        yield model.data_preprocessor({'inputs': inputs}, False)['inputs']


def _classes(cfg: Config, checkpoint: str) -> tuple[str, ...]:
    """Return the class names that mmengine saved in a checkpoint, or those in a config."""
    content = load_checkpoint(checkpoint)
    meta = content.get('meta') if isinstance(content, dict) else None
    saved = (meta if isinstance(meta, dict) else {}).get('dataset_meta') or {}
    stated = cfg.get('metainfo') or cfg.get('test_dataloader', {}).get('dataset', {}).get('metainfo') or {}
    return tuple(map(str, saved.get('classes') or stated.get('classes') or ()))
