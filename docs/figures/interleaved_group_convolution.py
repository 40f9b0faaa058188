#!/usr/bin/env python
"""Draw docs/images/interleaved_group_convolution.svg: the channels of an IGC block with L = 2 and M = 3, and its kernel.

    python docs/figures/interleaved_group_convolution.py [FILE]

The matrices come from a layer.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle  # noqa: E402
from torch import Tensor  # noqa: E402

from mmtied.layers import IGC  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'interleaved_group_convolution.svg'
PRIMARY, SECONDARY, INK, LINE = ('#1f7a8c', '#c8553d'), '#8d99ae', '#22223b', '#4a4e69'
NUM_PRIMARY, NUM_SECONDARY = 2, 3
CHANNELS = NUM_PRIMARY * NUM_SECONDARY
#: Row of each channel in the order of the secondary partitions.
PERMUTED = [m * NUM_PRIMARY + p for p in range(NUM_PRIMARY) for m in range(NUM_SECONDARY)]
COLUMNS = (0.0, 2.6, 4.9, 7.5, 9.8)


def height(row: int, partition: int) -> float:
    """Return the height of a row; there are gaps between partitions of `partition` rows."""
    return -0.62 * row - 0.3 * (row // partition)


def channels(axes: Axes, x: float, partition: int, by_secondary: bool, filled: bool) -> list[float]:
    """Draw a column of channels, boxed by partition; return the heights in the order of the primary partitions."""
    for first in range(0, CHANNELS, partition):
        top, bottom = height(first, partition) + 0.3, height(first + partition - 1, partition) - 0.3
        axes.add_patch(FancyBboxPatch((x - 0.32, bottom), 0.64, top - bottom, boxstyle='round,pad=0,rounding_size=0.12', zorder=1,
                                      edgecolor=SECONDARY if by_secondary else PRIMARY[first // partition], facecolor='white'))
    heights = []
    for channel in range(CHANNELS):
        y = height(PERMUTED[channel] if by_secondary else channel, partition)
        color = PRIMARY[channel // NUM_SECONDARY]
        axes.add_patch(Circle((x, y), 0.19, facecolor=color if filled else 'white', edgecolor=color, linewidth=1.4, zorder=3))
        heights.append(y)
    return heights


def connect(axes: Axes, columns: tuple[float, float], left: list[float], right: list[float], groups: list[list[int]],
            colors: list[str]) -> None:
    """Draw a line from every channel to every other one of its group."""
    for group, color in zip(groups, colors, strict=True):
        for start in group:
            for end in group:
                axes.plot((columns[0] + 0.32, columns[1] - 0.32), (left[start], right[end]), color=color, linewidth=1, zorder=0)


def matrix(axes: Axes, x: float, y: float, values: Tensor, name: str, colors: list[str], by_row: bool = False) -> None:
    """Draw the nonzero entries of a matrix in the color of their column or row."""
    size = 1.7 / CHANNELS
    for row in range(CHANNELS):
        for column in range(CHANNELS):
            axes.add_patch(Rectangle((x + column * size, y - (row + 1) * size), size, size, linewidth=0.5, edgecolor='#d9dbe4',
                                     facecolor=colors[row if by_row else column] if values[row, column] else 'white'))
    axes.add_patch(Rectangle((x, y - 1.7), 1.7, 1.7, fill=False, edgecolor=LINE, linewidth=0.9))
    axes.text(x + 0.85, y + 0.12, name, fontsize=9.5, ha='center', va='bottom', color=INK)


def draw(path: Path) -> None:
    """Draw the figure and write it in the format of the suffix."""
    layer = IGC(CHANNELS, CHANNELS, 3, padding=1, bias=False, num_primary=NUM_PRIMARY)
    w_p = torch.block_diag(*layer.primary.weight[:, :, 0, 0].detach().chunk(NUM_PRIMARY))
    w_s = torch.block_diag(*layer.secondary.weight[:, :, 0, 0].detach().chunk(NUM_SECONDARY))
    p = torch.eye(CHANNELS)[PERMUTED]
    if not torch.allclose(p @ w_s @ p.T @ w_p, layer.composed_weight()[:, :, 0, 0], atol=1e-6):
        raise RuntimeError('the matrices drawn are not those of the layer')

    figure, axes = plt.subplots(figsize=(11, 6.9))
    by_primary = [list(range(g * NUM_SECONDARY, (g + 1) * NUM_SECONDARY)) for g in range(NUM_PRIMARY)]
    by_secondary = [list(range(m, CHANNELS, NUM_SECONDARY)) for m in range(NUM_SECONDARY)]
    each = [[channel] for channel in range(CHANNELS)]
    columns = [channels(axes, COLUMNS[0], NUM_SECONDARY, False, True), channels(axes, COLUMNS[1], NUM_SECONDARY, False, True),
               channels(axes, COLUMNS[2], NUM_PRIMARY, True, True), channels(axes, COLUMNS[3], NUM_PRIMARY, True, False),
               channels(axes, COLUMNS[4], NUM_SECONDARY, False, False)]
    own = [PRIMARY[channel // NUM_SECONDARY] for channel in range(CHANNELS)]
    steps = [(by_primary, list(PRIMARY)), (each, own), (by_secondary, [SECONDARY] * NUM_SECONDARY), (each, own)]
    for step, (groups, colors) in enumerate(steps):
        connect(axes, COLUMNS[step:step + 2], columns[step], columns[step + 1], groups, colors)
    weights = (layer.primary.weight.numel(), layer.secondary.weight.numel())
    titles = (('primary', f'3×3, L = {NUM_PRIMARY} partitions', f'of M = {NUM_SECONDARY} channels: {weights[0]} weights'),
              ('permutation', '', ''),
              ('secondary', f'1×1, M = {NUM_SECONDARY} partitions', f'of L = {NUM_PRIMARY} channels: {weights[1]} weights'),
              ('permuted back', '', ''))
    for step, lines in enumerate(titles):
        x = sum(COLUMNS[step:step + 2]) / 2
        for row, text in enumerate(lines):
            axes.text(x, 1.38 - 0.27 * row, text, fontsize=9.5 if row == 0 else 8, weight='bold' if row == 0 else 'normal',
                      ha='center', color=INK if row == 0 else LINE)

    y = -5.0
    gray = [SECONDARY] * CHANNELS
    factors = ((p @ w_s @ p.T @ w_p, 'W, dense', own), (p, 'P', own), (w_s, '$W_s$, secondary', gray), (p.T, "P'", own),
               (w_p, '$W_p$, primary', own))
    for index, (values, name, colors) in enumerate(factors):
        x = -0.35 + 2.2 * index
        matrix(axes, x, y, values, name, colors, by_row=name == 'P')
        if index:
            axes.text(x - 0.25, y - 0.85, '=' if index == 1 else '·', fontsize=14, ha='center', va='center', color=INK)
    axes.set_xlim(-0.6, 10.4)
    axes.set_ylim(-6.9, 1.75)
    axes.set_aspect('equal')
    axes.axis('off')
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(path, bbox_inches='tight', pad_inches=0.08, dpi=130, facecolor='white',
                   metadata={'Date': None} if path.suffix == '.svg' else None)


if __name__ == '__main__':
    matplotlib.rcParams['svg.hashsalt'] = 'mmtied'
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
