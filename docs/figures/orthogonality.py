#!/usr/bin/env python
"""Draw docs/images/orthogonality.png: the distance of shared bases from orthonormal ones during a short training run.

    python docs/figures/orthogonality.py [FILE]

ResNet-20-S16U1 learns to classify six shapes in drawings of 32 x 32 pixels, with the orthogonality
regularization (Eq. 7's sum with 0.1, which is stronger than the default) and without, from the same weights, on the same images,
with the learning rate of the paper's CIFAR runs. Bases start as Kaiming's initialization makes them, far from orthonormal. It
takes two minutes on one core.
"""

import logging
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402

from mmtied.backbones import SharedResNetCIFAR  # noqa: E402
from mmtied.datasets.shapes import CATEGORIES, draw_shape  # noqa: E402
from mmtied.layers import FilterBasis  # noqa: E402
from mmtied.related.shared_bases.training import basis_deviations  # noqa: E402
from mmtied.training import OrthogonalityHook  # noqa: E402
from mmtied.training.loss_hook import attach  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'orthogonality.png'
ITERATIONS, BATCH, SIZE = 250, 32, 32
RUNS = {'with the term': ('#1f7a8c', {'weight': 0.1}), 'without': ('#8d99ae', None)}


class ShapeClassifier(BaseModel):
    """A small network with one shared basis in each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SharedResNetCIFAR(20, shared_elements=16)
        self.fc = nn.Linear(64, len(CATEGORIES))

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        """Return the cross entropy of images (N, 3, 32, 32) and labels (N,)."""
        scores = self.fc(self.backbone(inputs)[-1].mean(dim=(2, 3)))
        return {'loss_classes': nn.functional.cross_entropy(scores, labels)}


def draw_batch(rng: np.random.Generator) -> dict[str, Tensor]:
    """Draw shapes of random size, place and color, slightly rotated, on noise."""
    labels = rng.integers(len(CATEGORIES), size=BATCH)
    images = rng.normal(scale=0.1, size=(BATCH, 3, SIZE, SIZE)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        coverage = draw_shape(CATEGORIES[label], rng.uniform(18, 28), rng.uniform(-0.2, 0.2))
        height, width = coverage.shape
        top, left = rng.integers(SIZE - height + 1), rng.integers(SIZE - width + 1)
        image[:, top:top + height, left:left + width] += rng.uniform(0.5, 2, (3, 1, 1)).astype(np.float32) * coverage
    return {'inputs': torch.from_numpy(images), 'labels': torch.from_numpy(labels)}


def train(term: dict | None) -> tuple[np.ndarray, np.ndarray]:
    """Train; return the deviation of each basis before each iteration, (iterations, bases), and the classification loss."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = ShapeClassifier()
    model.init_weights()
    for module in model.modules():
        if isinstance(module, FilterBasis):
            nn.init.kaiming_normal_(module.weight, mode='fan_out')
    if term is not None:
        attach(OrthogonalityHook(**term), model)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4))
    deviations, losses = [], []
    for _ in range(ITERATIONS):
        deviations.append([deviation.item() for deviation in basis_deviations(model).values()])
        losses.append(model.train_step(draw_batch(rng), optimizer)['loss_classes'].item())
    return np.array(deviations), np.array(losses)


def draw(path: Path) -> None:
    """Train the networks, print their final states, and draw the figure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout='constrained')
    for name, (color, term) in RUNS.items():
        deviations, losses = train(term)
        for number, style in enumerate(('-', '--', ':')):
            left.plot(deviations[:, number], style, color=color, label=f'stage {number + 1}, {name}')
        smooth = np.convolve(losses, np.ones(10) / 10, mode='valid')
        right.plot(np.arange(9, ITERATIONS), smooth, color=color, label=name)
        print(f"{name}: ||W'W - I||^2 of the three bases from {deviations[0].round(2)} to {deviations[-1].round(3)}, "
              f'loss of the last 20 iterations {losses[-20:].mean():.3f}')
    left.set(yscale='log', xlabel='iteration', ylabel="$\\|W^\\top W - I\\|^2$", title='distance from orthonormal')
    right.set(xlabel='iteration', ylabel='cross entropy', title='loss of the classes, mean of 10 iterations')
    left.legend(fontsize=7, ncols=2, loc='upper center', bbox_to_anchor=(0.5, -0.2))
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    logging.disable(logging.INFO)  # of every initialized weight
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
