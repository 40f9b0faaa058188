"""Run trained networks on single images: the inputs that their test pipelines make, and what the models find."""

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import Tensor

from mmtied.evaluation.inputs.images import read_image

from .networks import Network


class Prepared(NamedTuple):
    """An image as a model takes it.

    Attributes:
        inputs: Normalized and padded, shape (1, 3, H, W).
        samples: The data sample, in a list.
        pixels: What the inputs show, without padding: RGB, shape (h, w, 3) uint8.
    """

    inputs: Tensor
    samples: list
    pixels: np.ndarray


def prepare(network: Network, path: str | os.PathLike) -> Prepared:
    """Read an image by the test pipeline of a network's config, without its annotations.

    Raises:
        ValueError: The config has no test pipeline, or the file is no image; OpenCV raises its own error for an empty one.
    """
    if not network.test_pipeline:
        raise ValueError(f'{network.name}: the config has no test_dataloader.dataset.pipeline, which says how to read images')
    read: dict[str, Any] = {'img_path': str(path), 'img_id': 0}
    image = np.array(read_image(path))
    if not network.loads_images:
        read.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    with DefaultScope.overwrite_default_scope(network.cfg.get('default_scope')):
        made = Compose(network.test_pipeline)(read)
        data = network.model.data_preprocessor({'inputs': [made['inputs']], 'data_samples': [made['data_samples']]}, False)
    pixels = made['inputs'].numpy()
    pixels = pixels[::-1] if network.loads_images else pixels
    return Prepared(data['inputs'], data['data_samples'], pixels.transpose(1, 2, 0).copy())


def detect(network: Network, prepared: Prepared) -> Any:
    """Return the instances that a detector finds in an image, with boxes xyxy in its pixels; gradients are kept where enabled."""
    with DefaultScope.overwrite_default_scope(network.cfg.get('default_scope')):
        return network.model.predict(prepared.inputs, prepared.samples, rescale=True)[0].pred_instances


def classify(network: Network, prepared: Prepared) -> Tensor:
    """Return a classifier's probabilities, shape (classes,)."""
    with torch.no_grad():
        return network.model(prepared.inputs, mode='tensor')[0].softmax(dim=0)


def class_label(network: Network, category: str) -> int:
    """Return a network's label of a category.

    Raises:
        ValueError: The network has no class of that name, or its classes are unknown.
    """
    if category not in network.classes:
        known = f'has {", ".join(network.classes[:10])}' if network.classes else (
            'does not say its classes, neither in the checkpoint nor as metainfo of the config')
        raise ValueError(f'{network.name}: no class {category!r}; the network {known}')
    return network.classes.index(category)
