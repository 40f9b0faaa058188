#!/usr/bin/env python
"""Draw docs/images/shared_bases.svg: the filters that the blocks of a stage share in ResNet-50-Shared and in ResNet-34-S48U1.

    python docs/figures/shared_bases.py [FILE]

The numbers are counted from the networks themselves.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

from mmtied.backbones import SharedResNet  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'shared_bases.svg'
SHARED, OWN, INK, LINE = '#1f7a8c', '#8d99ae', '#22223b', '#4a4e69'
WIDTH, HEIGHT, STEP = 2.5, 0.62, 0.92


def box(axes: Axes, x: float, y: float, title: str, detail: str, color: str, width: float = WIDTH) -> None:
    """Draw a layer or a basis, centred at (x, y)."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - HEIGHT / 2), width, HEIGHT, boxstyle='round,pad=0,rounding_size=0.08',
                                  linewidth=1.2, edgecolor=color, facecolor=matplotlib.colors.to_rgba(color, 0.1), zorder=2))
    axes.text(x, y + 0.12, title, fontsize=8.5, weight='bold', ha='center', va='center', color=INK, zorder=3)
    axes.text(x, y - 0.14, detail, fontsize=7.5, ha='center', va='center', color=LINE, zorder=3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = LINE, **style) -> None:
    """Draw a connection."""
    axes.annotate('', xy=end, xytext=start, zorder=1,
                  arrowprops={'arrowstyle': '-|>', 'color': color, 'linewidth': 1.1, 'shrinkA': 0, 'shrinkB': 0, **style})


def column(axes: Axes, x: float, title: str, layers: list[tuple[str, str, str]]) -> list[float]:
    """Draw a residual block from top to bottom; return the heights of its layers."""
    heights = [-STEP * row for row in range(len(layers))]
    top, bottom = 0.72, heights[-1] - 0.62
    axes.text(x, top + 0.2, title, fontsize=9, ha='center', color=INK)
    arrow(axes, (x, top), (x, HEIGHT / 2))
    for y, (name, detail, color) in zip(heights, layers, strict=True):
        box(axes, x, y, name, detail, color)
    for above, below in zip(heights, heights[1:], strict=False):
        arrow(axes, (x, above - HEIGHT / 2), (x, below + HEIGHT / 2))
    arrow(axes, (x, heights[-1] - HEIGHT / 2), (x, bottom))
    side = x - WIDTH / 2 - 0.18
    axes.plot((x, side, side, x), (top - 0.16, top - 0.16, bottom + 0.14, bottom + 0.14), color=LINE, linewidth=0.9, zorder=1)
    axes.text(x + 0.12, bottom + 0.02, '+', fontsize=10, ha='left', va='center', color=INK)
    return heights


def panel(axes: Axes, title: str, first: list, others: list, bases: list[tuple[int, str, str]]) -> None:
    """Draw a stage: its first block, two blocks that share, and on the right the bases, level with the layers that use them."""
    columns = (0.0, 3.5, 7.0)
    column(axes, columns[0], 'block 1', first)
    for x, name in zip(columns[1:], ('block 2', 'block 3 ...'), strict=True):
        heights = column(axes, x, name, others)
    for row, name, detail in bases:
        box(axes, 10.6, heights[row], name, detail, SHARED, width=2.7)
        arrow(axes, (9.25, heights[row]), (columns[2] + WIDTH / 2, heights[row]), SHARED, linestyle='--')
        axes.plot((columns[1] + WIDTH / 2, columns[2] - WIDTH / 2), (heights[row], ) * 2, color=SHARED, linestyle='--',
                  linewidth=1.1, zorder=1)
    axes.set_title(title, fontsize=10, loc='left', color=INK)
    axes.set_xlim(-1.7, 12.1)
    axes.set_ylim(-STEP * (max(len(first), len(others)) - 1) - 0.85, 1.25)
    axes.set_aspect('equal')
    axes.axis('off')


def draw(path: Path) -> None:
    """Draw the figure and write it in the format of the suffix."""
    wide = SharedResNet(50, num_bases=2).layer1
    middle, exit_ = (wide.bases[name].weight.numel() for name in ('middle', 'exit'))
    entry = wide[1].entry.conv.weight.numel()
    narrow = SharedResNet(34, num_bases=2, shared_elements=48).layer1
    basis = narrow.bases['entry']
    layer = narrow[1].entry.conv
    own = layer.unique.weight.numel() + layer.coefficients.weight.numel()

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10.4, 7.4), layout='constrained', height_ratios=(3, 4))
    panel(top, 'ResNet-50-Shared with two bases, first stage: the blocks after the first convolve with the same filters',
          [('1×1, 64 to 64', 'its own', OWN), ('3×3, 64 to 64', 'its own', OWN), ('1×1, 64 to 256', 'its own', OWN)],
          [('1×1, 256 to 64', f'its own: {entry:,} weights', OWN), ('3×3, 64 to 64', 'shared; own BatchNorm', SHARED),
           ('1×1, 64 to 256', 'shared; own BatchNorm', SHARED)],
          [(1, 'basis "middle"', f'{middle:,} weights'), (2, 'basis "exit"', f'{exit_:,} weights')])
    elements = f'{basis.out_channels} + {layer.unique.out_channels} elements'
    panel(bottom, 'ResNet-34-S48U1, first stage: the blocks after the first combine every 3×3 convolution from a basis',
          [('3×3, 64 to 64', 'its own', OWN), ('3×3, 64 to 64', 'its own', OWN)],
          [('3×3 basis', f'{elements}, BatchNorm', SHARED), ('1×1 coefficients', f'with U = 1: {own:,} weights', OWN),
           ('3×3 basis', f'{elements}, BatchNorm', SHARED), ('1×1 coefficients', f'with U = 1: {own:,} weights', OWN)],
          [(0, 'basis "entry", S = 48', f'{basis.weight.numel():,} weights'),
           (2, 'basis "exit", S = 48', f'{narrow.bases["exit"].weight.numel():,} weights')])
    figure.savefig(path, metadata={'Date': None} if path.suffix == '.svg' else None)


if __name__ == '__main__':
    matplotlib.rcParams['svg.hashsalt'] = 'mmtied'
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
