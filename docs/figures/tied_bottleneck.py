#!/usr/bin/env python
"""Draw docs/images/tied_bottleneck.svg: a bottleneck of TiedResNet-50, with each layer's weight as a small matrix.

    python docs/figures/tied_bottleneck.py [FILE]

The numbers are counted from the block itself.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle  # noqa: E402

from mmtied.backbones import TiedResNet  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'tied_bottleneck.svg'
TIED, STANDARD, INK, LINE = '#1f7a8c', '#8d99ae', '#22223b', '#4a4e69'
LANES = (3.6, 2.4, 1.2, 0.0)
GLYPH = 0.52


def box(axes: Axes, x: float, y: float, title: str, detail: str, weight: tuple[int, int, int], parameters: int,
        width: float = 2.2, height: float = 0.98) -> None:
    """Draw a layer: title, detail, the matrix of its weight on the left, and its number of weights.

    Args:
        axes: Where to draw.
        x: Left edge.
        y: Middle.
        title: First line.
        detail: Second line.
        weight: Output channels, input channels, B.
        parameters: Number of weights.
        width: Of the box.
        height: Of the box.
    """
    outputs, inputs, blocks = weight
    color = TIED if blocks > 1 else STANDARD
    axes.add_patch(FancyBboxPatch((x, y - height / 2), width, height, boxstyle='round,pad=0,rounding_size=0.09', linewidth=1.2,
                                  edgecolor=color, facecolor=matplotlib.colors.to_rgba(color, 0.07), zorder=2))
    scale = GLYPH / max(outputs, inputs)
    across, down = inputs * scale, outputs * scale
    matrix(axes, x + 0.12 + (GLYPH - across) / 2, y - down / 2, across, down, blocks, color)
    lines = ((title, 9, 'bold', INK), (detail, 8, 'normal', INK), (f'{parameters:,} weights', 7.5, 'normal', LINE))
    for row, (text, size, boldness, ink) in enumerate(lines):
        axes.text(x + 0.24 + GLYPH, y + 0.26 - 0.27 * row, text, fontsize=size, weight=boldness, va='center', color=ink, zorder=3)


def matrix(axes: Axes, x: float, y: float, width: float, height: float, blocks: int, color: str) -> None:
    """Draw a weight as a matrix between all channels: the thin filter B times on the diagonal, zeros elsewhere."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor='white', edgecolor=color, linewidth=0.8, zorder=3))
    for block in range(blocks):
        axes.add_patch(Rectangle((x + block * width / blocks, y + height - (block + 1) * height / blocks), width / blocks,
                                 height / blocks, facecolor=color, edgecolor='white', linewidth=0.5, zorder=4))
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=0.8, zorder=5))


def line(axes: Axes, *points: tuple[float, float], arrow: bool = True) -> None:
    """Draw a connection through points."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=LINE, linewidth=1.1, solid_joinstyle='round', zorder=1)
    if arrow:
        axes.annotate('', xy=points[-1], xytext=points[-2], zorder=1,
                      arrowprops={'arrowstyle': '-|>', 'color': LINE, 'linewidth': 1.1, 'shrinkA': 0, 'shrinkB': 0,
                                  'mutation_scale': 9})


def node(axes: Axes, x: float, y: float, text: str) -> None:
    """Draw a sum."""
    axes.add_patch(Circle((x, y), 0.17, facecolor='white', edgecolor=LINE, linewidth=1.1, zorder=3))
    axes.text(x, y - 0.01, text, fontsize=11, ha='center', va='center', color=INK, zorder=4)


def bar(axes: Axes, x: float, bottom: float, top: float) -> None:
    """Draw a bar where channels split or join."""
    axes.plot((x, x), (bottom, top), color=INK, linewidth=3, solid_capstyle='butt', zorder=2)


def label(axes: Axes, x: float, y: float, text: str, **settings) -> None:
    """Write a number of channels or a remark beside a connection."""
    axes.text(x, y, text, **{'fontsize': 7.5, 'color': LINE, 'ha': 'center', 'va': 'bottom', **settings})


def draw(path: Path) -> None:
    """Draw the figure and write it in the format of the suffix."""
    block = TiedResNet(50).layer1[1]
    middle = sum(LANES) / 4
    splits, mix, reduce = 3.5, 7.2, 9.75
    join, exit_, add = 12.6, 13.15, 15.95
    low = -1.25
    figure, axes = plt.subplots(figsize=(12.4, 5.1))

    box(axes, 0.35, middle, 'entry', 'TBC 1×1, B = 2', (128, 256, 2), block.entry.conv.weight.numel())
    line(axes, (-0.6, middle), (0.35, middle))
    label(axes, -0.18, middle + 0.05, '256')
    line(axes, (2.55, middle), (3.0, middle), arrow=False)
    label(axes, 2.77, middle + 0.05, '128')
    bar(axes, 3.0, LANES[-1] - 0.25, LANES[0] + 0.25)
    label(axes, splits + 1.1, LANES[0] + 0.53, 'stride here in the first block of a stage')
    for y, conv in zip(LANES, block.splits.convs, strict=True):
        detail = f'TBC 3×3, B = {conv.num_blocks}' if conv.num_blocks > 1 else 'standard 3×3'
        line(axes, (3.0, y), (splits, y))
        label(axes, 3.23, y + 0.05, '32')
        box(axes, splits, y, 'split', detail, (32, 32, conv.num_blocks), conv.weight.numel())
        line(axes, (splits + 2.2, y), (join, y))

    # The mixer takes a copy of each split and stands below.
    tap, total = 6.1, 6.65
    for y in LANES:
        axes.plot(tap, y, 'o', color=LINE, markersize=3.5, zorder=3)
    line(axes, (tap, LANES[0]), (tap, low), (total - 0.17, low))
    node(axes, total, low, '+')
    line(axes, (total + 0.17, low), (mix, low))
    box(axes, mix, low, 'mixer', 'standard 1×1', (32, 32, 1), block.mixer.mix.conv.weight.numel())
    line(axes, (mix + 2.2, low), (reduce, low))
    box(axes, reduce, low, 'mixer', 'standard 1×1', (32, 32, 1), block.mixer.reduce.conv.weight.numel())
    line(axes, (reduce + 2.2, low), (join, low))
    label(axes, join - 0.3, low + 0.05, '32')
    for y in LANES:
        label(axes, join - 0.3, y + 0.05, '32')
    bar(axes, join, low - 0.25, LANES[0] + 0.25)
    line(axes, (join, middle), (exit_, middle))
    label(axes, join + 0.25, middle + 0.05, '160')
    box(axes, exit_, middle, 'exit', 'standard 1×1', (256, 160, 1), block.exit.conv.weight.numel())
    line(axes, (exit_ + 2.2, middle), (add - 0.17, middle))
    label(axes, exit_ + 2.41, middle + 0.05, '256')
    node(axes, add, middle, '+')
    line(axes, (add + 0.17, middle), (add + 0.95, middle))
    label(axes, add + 0.58, middle + 0.05, 'ReLU')

    high = 4.75
    line(axes, (-0.4, middle), (-0.4, high), (add, high), (add, middle + 0.17))
    axes.plot(-0.4, middle, 'o', color=LINE, markersize=3.5, zorder=3)
    label(axes, (add - 0.4) / 2, high + 0.07, 'identity; in the first block of a stage TBC 1×1, B = 2, with the same stride',
          fontsize=8.5)

    legend = low - 1.05
    matrix(axes, 0.35, legend - 0.17, 0.34, 0.34, 4, TIED)
    label(axes, 0.82, legend, 'tied: one thin filter, shared by B blocks of channels', ha='left', va='center', fontsize=8.5)
    matrix(axes, 6.2, legend - 0.17, 0.34, 0.34, 1, STANDARD)
    label(axes, 6.67, legend, 'standard: every input channel to every output channel', ha='left', va='center', fontsize=8.5)
    label(axes, 12.6, legend, 'numbers on the lines: channels', ha='left', va='center', fontsize=8.5)

    axes.set_xlim(-0.8, add + 1.05)
    axes.set_ylim(legend - 0.3, high + 0.4)
    axes.set_aspect('equal')
    axes.axis('off')
    figure.subplots_adjust(0, 0, 1, 1)
    matplotlib.rcParams['svg.hashsalt'] = 'mmtied'
    figure.savefig(path, bbox_inches='tight', pad_inches=0.08, dpi=150, facecolor='white',
                   metadata={'Date': None} if path.suffix == '.svg' else None)
    print(f'wrote {path.name}')


if __name__ == '__main__':
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
