"""Tables and figures of filter similarity: histograms that compare networks, and cosine matrices."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..atomic import atomic_files
from ..plotting import PALETTE, check_format, hide_spines, new_figure, plain_label, save_figure
from ..tables import text_table, write_csv
from .filter_similarity import Layer, count_channels, guided_similarity, pairs_of, weight_similarities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ('-', (0, (5, 1.5)), (0, (1, 1)), '-.')
_HEADER = ('network', 'layer', 'similarity', 'filters', 'pairs', 'mean', 'share_above')
_BINS = np.linspace(-1, 1, 101)


class LayerSimilarity(NamedTuple):
    """Similarity of the filters of one layer of a network.

    Attributes:
        matrix: Pairwise cosines of the guided patterns of the sampled filters, shape (C, C).
        weights: Pairwise cosines of the weights of filters that see the same channels, shape (pairs,); empty for a layer that
            is not a convolution.
        filters: Number of filters whose weights are compared.
    """

    network: str
    layer: str
    matrix: np.ndarray
    weights: np.ndarray
    filters: int

    @property
    def guided(self) -> np.ndarray:
        """Cosines of the guided patterns, one per pair."""
        return pairs_of(torch.from_numpy(self.matrix)).numpy()


def check_counts(layers: Mapping[str, Sequence[Layer]]) -> None:
    """Raise a ValueError unless all networks have the same number of layers."""
    counts = {name: len(of_network) for name, of_network in layers.items()}
    if len(set(counts.values())) > 1:
        raise ValueError('--layers: expected the same number of layers of each network, to compare them in order; found '
                         + ', '.join(f'{count} of {name}' for name, count in counts.items()))


def measure_layers(name: str, model: nn.Module, layers: Sequence[Layer], batches: Callable[[], Iterable[Tensor]],
                   most_filters: int = 64, seed: int = 0, average: str = 'patterns') -> list[LayerSimilarity]:
    """Measure the similarity of the filters in layers of a network.

    Args:
        name: Name of the network.
        model: The network.
        layers: Its layers.
        batches: Returns batches of normalized images; called once per layer.
        most_filters: Largest number of filters whose guided patterns are compared, chosen at random. Each filter costs a
            backward pass per image.
        seed: Seed of the choice.
        average: See `filter_similarity.guided_similarity`.
    """
    if most_filters < 2:
        raise ValueError(f'filter similarity: most_filters={most_filters}, expected at least 2')
    found = []
    for layer in layers:
        channels = count_channels(model, layer, next(iter(batches())))
        chosen = sorted(np.random.default_rng(seed).permutation(channels)[:most_filters].tolist())
        matrix = guided_similarity(model, layer, batches(), chosen, average)
        convs = [module for module in layer.modules if isinstance(module, nn.Conv2d) and not module.transposed]
        weights = [bank for conv in convs for bank in weight_similarities(conv)]
        found.append(LayerSimilarity(name, layer.name, matrix.cpu().numpy(),
                                     torch.cat(weights).cpu().numpy() if weights else np.zeros(0, np.float32),
                                     sum(len(conv.weight) for conv in convs)))
    return found


def similarity_rows(layers: Sequence[LayerSimilarity], threshold: float = .5) -> list[dict]:
    """Return the mean cosine and the share of pairs above a threshold for each layer and kind of similarity."""
    rows = []
    for layer in layers:
        for kind, values, filters in (('guided', layer.guided, len(layer.matrix)), ('weights', layer.weights, layer.filters)):
            rows.append({'network': layer.network, 'layer': layer.layer, 'similarity': kind, 'filters': filters,
                         'pairs': len(values), 'mean': float(values.mean()) if len(values) else None,
                         'share_above': float((values > threshold).mean()) if len(values) else None})
    return rows


def format_similarity(layers: Sequence[LayerSimilarity], threshold: float = .5) -> str:
    """Return `similarity_rows` as a table for a terminal."""
    cells = [[row['network'], row['layer'], row['similarity'], row['filters'], row['pairs'],
              *('-' if row[key] is None else f'{row[key]:.3f}' for key in ('mean', 'share_above'))]
             for row in similarity_rows(layers, threshold)]
    return text_table('pairwise cosines of the filters of a layer', (*_HEADER[:-1], f'above {threshold:g}'), cells)


def write_similarity(layers: Sequence[LayerSimilarity], folder: str | os.PathLike, threshold: float = .5,
                     format: str = 'png') -> list[Path]:
    """Write ``similarity.csv``, ``histograms.<format>`` and ``matrices.<format>``, all or none, and return their paths."""
    names = ['similarity.csv', *(f'{stem}.{check_format(format)}' for stem in ('histograms', 'matrices'))]
    with atomic_files(folder, names[0], r'(histograms|matrices)\.(png|pdf|svg)') as temporary:
        write_csv(temporary / names[0], _HEADER, similarity_rows(layers, threshold))
        save_figure(plot_histograms(layers, threshold), temporary / names[1])
        save_figure(plot_matrices(layers), temporary / names[2])
    return [Path(folder, name) for name in names]


def plot_histograms(layers: Sequence[LayerSimilarity], threshold: float = .5) -> 'Figure':
    """Plot densities of pairwise similarity, of guided patterns above and of weights below, and a line at the threshold.

    For several networks, each column overlays their layers at the same depth, as in Figure 9. For one network, all layers are
    overlaid, as in Figure 1b.
    """
    names = list(dict.fromkeys(layer.network for layer in layers))
    of_network = [[layer for layer in layers if layer.network == name] for name in names]
    columns = list(zip(*of_network, strict=True)) if len(names) > 1 else of_network
    figure = new_figure(max(4.6, 1.2 + 2.5 * len(columns)), 4.6)
    axes = figure.subplots(2, len(columns), sharex=True, squeeze=False)
    for number, column in enumerate(columns):
        labels = [layer.network if len(names) > 1 else layer.layer for layer in column]
        for row, key in enumerate(('guided', 'weights')):
            for place, (layer, label) in enumerate(zip(column, labels, strict=True)):
                _draw_density(axes[row, number], getattr(layer, key), plain_label(label, 30), place)
            axes[row, number].axvline(threshold, color='.6', linewidth=.8, linestyle=':')
        if len(names) > 1:
            names_here = [plain_label(layer.layer.removeprefix('backbone.'), 28) for layer in column]
            axes[0, number].set_title('\n'.join(names_here), fontsize=6.5)
    for axis, text in zip(axes[:, 0], ('guided patterns', 'weights'), strict=True):
        axis.set_ylabel(f'density, {text}', fontsize=8)
    figure.supxlabel('cosine of two filters', fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=min(4, len(labels)), frameon=False, fontsize=7.5)
    return figure


def plot_matrices(layers: Sequence[LayerSimilarity]) -> 'Figure':
    """Draw the matrices of pairwise cosines of guided patterns, a row per network, a column per layer (Figure 1a)."""
    names = list(dict.fromkeys(layer.network for layer in layers))
    rows = [[layer for layer in layers if layer.network == name] for name in names]
    figure = new_figure(1.1 + 1.9 * max(map(len, rows)), .5 + 2.05 * len(rows))
    axes = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, layer in zip(line, row, strict=False):
            image = axis.imshow(layer.matrix, vmin=-1, vmax=1, cmap='RdBu_r', interpolation='nearest')
            axis.set_title(plain_label(layer.layer.removeprefix('backbone.'), 30), fontsize=6.5)
        for axis in line:
            axis.set(xticks=[], yticks=[])
            hide_spines(axis, 'top', 'right', 'bottom', 'left')
        line[0].set_ylabel(plain_label(row[0].network, 30), fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=.7, label='cosine of guided patterns')
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_density(axis: 'Axes', values: np.ndarray, label: str, place: int) -> None:
    """Draw a normalized histogram as a filled step line, and mark its mean on the axis."""
    color, line = PALETTE[place % len(PALETTE)], _LINES[place // len(PALETTE) % len(_LINES)]
    if len(values):
        density, _ = np.histogram(values, _BINS, density=True)
        axis.stairs(density, _BINS, fill=True, color=color, alpha=.18)
        axis.plot([values.mean()], [0], marker='^', color=color, markersize=5, clip_on=False, zorder=4)
    else:
        density = np.zeros(len(_BINS) - 1)
    axis.stairs(density, _BINS, color=color, linestyle=line, linewidth=1.1, label=label)
    axis.set(xlim=(-1, 1), xticks=[-1, -.5, 0, .5, 1], yticks=[])
    axis.tick_params(labelsize=7)
    hide_spines(axis)
