#!/usr/bin/env python
"""Draw docs/images/resource_bound.png: a small G-ResNeXt learns its groups, with and without the resource term.

    python docs/figures/resource_bound.py [FILE]

Two networks train on the same drawn shapes, from the same weights and gates; a few minutes on one core. Beside FILE it also
writes group_numbers.png and learning_dynamics.png of the run with the term.
"""

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

from mmtied.backbones import GResNeXt  # noqa: E402
from mmtied.datasets.shapes import CATEGORIES, draw_shape  # noqa: E402
from mmtied.related.groupable.layers import gated_layers  # noqa: E402
from mmtied.related.groupable.plots import plot_group_numbers, plot_learning_dynamics  # noqa: E402
from mmtied.related.groupable.training import connections, resource_bound  # noqa: E402
from mmtied.training import GroupHistory, GroupResourceHook  # noqa: E402
from mmtied.training.loss_hook import attach  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'resource_bound.png'
ITERATIONS, BATCH, SIZE, B = 250, 16, 48, 16
RUNS = {'with the term': ('#1f7a8c', True), 'without': ('#8d99ae', False)}


class ShapeClassifier(BaseModel):
    """A G-ResNeXt-50 with a quarter of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = GResNeXt(50, base_channels=16)
        self.fc = nn.Linear(512, len(CATEGORIES))

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        """Return the cross entropy of images (N, 3, 48, 48) and labels (N,)."""
        scores = self.fc(self.backbone(inputs)[-1].mean(dim=(2, 3)))
        return {'loss_classes': nn.functional.cross_entropy(scores, labels)}


def draw_batch(rng: np.random.Generator) -> dict[str, Tensor]:
    """Draw shapes of random size, angle, place and color on noise."""
    labels = rng.integers(len(CATEGORIES), size=BATCH)
    images = rng.normal(scale=0.3, size=(BATCH, 3, SIZE, SIZE)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        coverage = draw_shape(CATEGORIES[label], rng.uniform(22, 44), rng.uniform(0, 2 * np.pi))
        height, width = coverage.shape
        top, left = rng.integers(SIZE - height + 1), rng.integers(SIZE - width + 1)
        image[:, top:top + height, left:left + width] += rng.uniform(-1.5, 1.5, (3, 1, 1)).astype(np.float32) * coverage
    return {'inputs': torch.from_numpy(images), 'labels': torch.from_numpy(labels)}


def train(with_term: bool) -> tuple[np.ndarray, float, np.ndarray, GroupHistory]:
    """Train; return zeta before each iteration, its bound, the classification loss, and the history of the gates."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = ShapeClassifier()
    model.init_weights()
    layers = gated_layers(model)
    if with_term:
        hook = GroupResourceHook(b=B)
        hook.check_model(model)
        attach(hook, model)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4))
    history = GroupHistory({name: layer.out_channels for name, layer in layers.items()})
    zetas, losses = [], []
    for iteration in range(ITERATIONS):
        history.record(iteration, list(layers.values()))
        zetas.append(connections(list(layers.values())).sum().item())
        losses.append(model.train_step(draw_batch(rng), optimizer)['loss_classes'].item())
    return np.array(zetas), resource_bound(list(layers.values()), B), np.array(losses), history


def draw(path: Path) -> None:
    """Train both networks, print their final state, and draw the figures."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), layout='constrained')
    for name, (color, with_term) in RUNS.items():
        zetas, bound, losses, history = train(with_term)
        left.plot(zetas, color=color, label=name)
        right.plot(np.arange(9, ITERATIONS), np.convolve(losses, np.ones(10) / 10, mode='valid'), color=color, label=name)
        stays = next((i for i in range(ITERATIONS) if (zetas[i:] <= bound).all()), None)
        print(f'{name}: zeta from {zetas[0]:.0f} to {zetas[-1]:.0f}, bound {bound:.0f}, at or below it from iteration {stays}, '
              f'groups {history.group_numbers()[-1]}, loss of the last 20 iterations {losses[-20:].mean():.3f}')
        if with_term:
            plot_group_numbers(history).savefig(path.with_name('group_numbers.png'))
            plot_learning_dynamics(history).savefig(path.with_name('learning_dynamics.png'))
    left.axhline(bound, color='#22223b', linestyle='--', linewidth=1, label=f'bound o, b = {B}')
    left.set(yscale='log', xlabel='iteration', ylabel='$\\zeta$, connected pairs of channels', title='complexity')
    right.set(xlabel='iteration', ylabel='cross entropy', title='loss of the classes, mean of 10 iterations')
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
