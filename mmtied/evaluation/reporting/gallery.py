"""A figure of images with their ground truth above and their predictions below."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...plotting import hide_spines, new_figure, plain_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Instances(NamedTuple):
    """Instances of one image, true or predicted.

    Attributes:
        masks: Shape (N, H, W) bool.
        labels: Index of each instance's category, shape (N,).
        scores: Shape (N,), or None for ground truth.
    """

    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class Example(NamedTuple):
    """One column of the gallery.

    Attributes:
        title: Text above the image, for example ``'r = 0.85'``.
        image: RGB, shape (H, W, 3) uint8.
        truth: Its ground truth.
        predictions: Its predictions.
    """

    title: str
    image: np.ndarray
    truth: Instances
    predictions: Instances


def draw_gallery(examples: Sequence[Example], categories: Sequence[str]) -> 'Figure':
    """Draw a column for each example; colors stand for categories.

    Args:
        examples: At least one.
        categories: Names of the categories, by label.
    """
    import matplotlib
    from matplotlib.patches import Patch

    colors = matplotlib.colormaps['tab10'].colors
    figure = new_figure(1.62 * len(examples) + .4, 3.75)
    rows = figure.subplots(2, len(examples), squeeze=False)
    for column, example in zip(rows.T, examples, strict=True):
        column[0].set_title(plain_label(example.title), fontsize=9)
        for axes, instances in zip(column, (example.truth, example.predictions), strict=True):
            _draw(axes, example.image, instances, colors)
    for axes, name in zip(rows[:, 0], ('ground truth', 'prediction'), strict=True):
        axes.set_ylabel(name, fontsize=9)
    patches = [Patch(color=colors[label % len(colors)], label=plain_label(name)) for label, name in enumerate(categories)]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(categories), frameon=False, fontsize=8)
    return figure


def _draw(axes: 'Axes', image: np.ndarray, instances: Instances, colors: Sequence[tuple[float, float, float]]) -> None:
    """Show the image dimmed, with each instance's mask tinted and outlined, the most certain ones on top."""
    axes.imshow(.45 * image / 255 + .55)
    order = range(len(instances.labels)) if instances.scores is None else np.argsort(instances.scores)
    for index in order:
        mask, color = instances.masks[index], colors[instances.labels[index] % len(colors)]
        axes.imshow(np.where(mask[..., None], (*color, .5), 0.))
        if mask.any():
            axes.contour(np.pad(mask, 1), levels=[.5], colors=[color], linewidths=1.1,
                         extent=(-1.5, mask.shape[1] + .5, -1.5, mask.shape[0] + .5))
    axes.set(xlim=(-.5, image.shape[1] - .5), ylim=(image.shape[0] - .5, -.5), xticks=[], yticks=[])
    hide_spines(axes, 'top', 'right', 'bottom', 'left')
