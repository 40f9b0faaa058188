#!/usr/bin/env python
"""Draw docs/images/basis_gradients.png and coefficient_similarity.png: Figures 3 and 4 of shared filter bases, in small.

    python docs/figures/basis_gradients.py CIFAR10_TRAIN [FOLDER]

ResNet-20-S8U1 sees 1920 images of CIFAR-10, from a folder with one of each class, once, with and without the orthogonality term
and the normalization between basis and coefficients. It takes about a minute on one idle core.
"""

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor, nn

from mmtied.backbones import SharedResNetCIFAR
from mmtied.related.shared_bases.figures import (
    coefficient_similarity,
    draw_gradients,
    draw_similarity,
    find_coefficients,
    read_gradients,
)

TARGET = Path(__file__).resolve().parents[1] / 'images'
ITERATIONS, BATCH = 120, 16
#: Name of each panel, basis_norm, and whether the term is on.
PANELS = {'(a) neither': (False, False), '(b) normalization': (True, False), '(c) term': (False, True), '(d) both': (True, True)}


class Classifier(BaseModel):
    """A small network with one shared basis in each stage."""

    def __init__(self, basis_norm: bool) -> None:
        super().__init__()
        self.backbone = SharedResNetCIFAR(20, shared_elements=8, basis_norm=basis_norm)
        self.fc = nn.Linear(64, 10)

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        """Return the cross entropy of images (N, 3, H, W) and labels (N,)."""
        return {'loss': nn.functional.cross_entropy(self.fc(self.backbone(inputs)[-1].mean((2, 3))), labels)}


def read_images(folder: Path) -> list[dict]:
    """Read images of each class, subsampled to 16 x 16 and normalized."""
    samples = []
    for label, name in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(name.iterdir())[:ITERATIONS * BATCH // 10]:
            image = np.asarray(Image.open(path), np.float32)[::2, ::2].transpose(2, 0, 1)
            samples.append({'inputs': torch.from_numpy((image - 120) / 64), 'labels': label})
    return samples


def train(folder: Path, images: list, basis_norm: bool, term: bool) -> nn.Module:
    """Train one pass over the images and record gradients in the folder."""
    torch.manual_seed(0)
    model = Classifier(basis_norm)
    hooks = [{'type': 'mmtied.BasisGradientHook', 'interval': 2}, *([{'type': 'mmtied.OrthogonalityHook'}] if term else [])]
    Runner(
        model, str(folder), experiment_name=folder.name, randomness={'seed': 0}, default_scope='mmengine',
        train_dataloader={'dataset': images, 'batch_size': BATCH, 'num_workers': 0, 'collate_fn': {'type': 'default_collate'},
                          'sampler': {'type': 'DefaultSampler', 'shuffle': True}},
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 5e-4}},
        custom_hooks=hooks).train()
    return model


def main(data: Path, target: Path) -> None:
    """Train the four networks and draw both figures."""
    images, runs, networks = read_images(data), {}, {}
    with tempfile.TemporaryDirectory() as work:
        for number, (name, settings) in enumerate(PANELS.items()):
            folder = Path(work) / f'panel{number}'
            model = train(folder, images, *settings)
            runs[name] = read_gradients(folder)
            if settings[0]:
                coefficients = find_coefficients(model.state_dict())
                networks['with the term' if settings[1] else 'without'] = {
                    stage: coefficient_similarity(coefficients[stage]) for stage in ('layer2', 'layer3')}
    draw_gradients(runs).savefig(target / 'basis_gradients.png', dpi=100)
    draw_similarity(networks, ('layer2', 'layer3')).savefig(target / 'coefficient_similarity.png', dpi=100)


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    logging.disable(logging.INFO)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else TARGET)
