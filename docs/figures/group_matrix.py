#!/usr/bin/env python
"""Draw docs/images/group_matrix.svg: gates, the matrix U that they make, and the channels that it connects.

    python docs/figures/group_matrix.py [FILE]

The layer itself computes the matrices.
"""

import sys
from pathlib import Path

import matplotlib
import torch

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Circle, Rectangle  # noqa: E402

from mmtied.layers import DGConv  # noqa: E402
from mmtied.surgery.freeze_groups import find_groups  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'group_matrix.svg'
COLORS = ('#1f7a8c', '#e6a13c', '#6a4c93', '#bc4749', '#386641', '#8d99ae', '#22223b', '#e76f51')
INK, LINE, EMPTY = '#22223b', '#4a4e69', '#eceff4'
PATTERNS = {(1, 1, 1): 'dense', (0, 1, 1): 'neighbours', (1, 1, 0): 'every second channel', (0, 1, 0): 'four groups',
            (0, 0, 0): 'depthwise'}


def matrix(axes: Axes, x: float, y: float, cell: float, values: torch.Tensor, colors: list[str]) -> None:
    """Draw a binary matrix with its top left corner at (x, y), ones in their row's color."""
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            axes.add_patch(Rectangle((x + column * cell, y - (row + 1) * cell), cell, cell, edgecolor='white', linewidth=.7,
                                     facecolor=colors[row] if value else EMPTY))


def factors(axes: Axes, x: float, y: float, gates: tuple[int, ...]) -> None:
    """Draw the 2 x 2 matrices whose Kronecker product is U."""
    for index, gate in enumerate(gates):
        left = x + index * .78
        block = torch.ones(2, 2) if gate else torch.eye(2)
        matrix(axes, left, y, .22, block, [LINE, LINE])
        axes.text(left + .22, y - .6, f'$g_{index + 1}={gate}$', ha='center', va='center', fontsize=8, color=LINE)
        if index:
            axes.text(left - .17, y - .22, '$\\otimes$', ha='center', va='center', fontsize=9, color=INK)


def channels(axes: Axes, x: float, y: float, joined: torch.Tensor, colors: list[str]) -> None:
    """Draw input channels above output channels, and a line for each connection."""
    for i, j in joined.nonzero().tolist():
        axes.plot((x + j * .29, x + i * .29), (y, y - .85), color=colors[i], linewidth=.8, alpha=.7, zorder=1)
    for row in (0, 1):
        for channel, color in enumerate(colors):
            axes.add_patch(Circle((x + channel * .29, y - .85 * row), .09, facecolor=color, edgecolor='white', linewidth=.6,
                                  zorder=2))


def draw(path: Path) -> None:
    """Draw one column for each pattern of three gates and write the figure in the format of the suffix."""
    figure, axes = plt.subplots(figsize=(12.4, 4.6))
    for column, (gates, name) in enumerate(PATTERNS.items()):
        layer = DGConv(8, 8, 1)
        layer.gates.data.copy_(torch.tensor(gates) * 2. - 1)
        joined, grouping = layer.relationship().detach(), find_groups(layer)
        colors = [''] * 8
        for place, channel in enumerate(grouping.input_order.tolist()):
            colors[channel] = COLORS[place * grouping.groups // 8]
        x = column * 3.05
        plural = '' if grouping.groups == 1 else 's'
        axes.text(x + 1.04, .95, name, ha='center', fontsize=11, weight='bold', color=INK)
        axes.text(x + 1.04, .62, f'{grouping.groups} group{plural}, $\\zeta = {int(joined.sum())}$', ha='center', fontsize=9,
                  color=LINE)
        factors(axes, x + .04, .35, gates)
        matrix(axes, x, -.65, .26, joined, colors)
        channels(axes, x + .03, -3.1, joined, colors)
    for y, text in ((.13, 'gates'), (-1.7, '$U$'), (-3.1, 'in'), (-3.95, 'out')):
        axes.text(-.25, y, text, ha='right', va='center', fontsize=9, color=INK)
    axes.set_xlim(-.9, 4 * 3.05 + 2.2)
    axes.set_ylim(-4.15, 1.25)
    axes.set_aspect('equal')
    axes.axis('off')
    figure.subplots_adjust(0, 0, 1, 1)
    matplotlib.rcParams['svg.hashsalt'] = 'mmtied'
    figure.savefig(path, bbox_inches='tight', pad_inches=0.08, dpi=110, facecolor='white',
                   metadata={'Date': None} if path.suffix == '.svg' else None)
    print(f'wrote {path.name}')


if __name__ == '__main__':
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
