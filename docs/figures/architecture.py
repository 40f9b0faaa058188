#!/usr/bin/env python
"""Draw docs/images/architecture.svg: the rooms of the package, and which imports which.

Run ``python docs/figures/architecture.py [FILE]``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / 'images' / 'architecture.svg'
MODEL, EVALUATION, RUNTIME, INK, LINE = '#1f7a8c', '#b5651d', '#5c5470', '#22223b', '#8d99ae'
HEIGHT = 0.92
#: Room: (left edge, floor, width, color, what is in it).
ROOMS = {
    'tools/, configs/': (0.0, 4, 12.0, RUNTIME, 'train, test, deploy, occlusion_eval, compare_runs ...'),
    'surgery': (0.0, 3, 1.9, MODEL, 'deploy,\nfreeze groups'),
    'related': (2.1, 3, 1.9, MODEL, 'shared bases, inter-\nleaved, groupable'),
    'metric, hook, evaluate': (4.4, 3, 3.9, EVALUATION, 'mmengine, mmdet or any detector:\nthe ways into the evaluation'),
    'launch': (8.7, 3, 3.3, RUNTIME, 'config, data, checkpoints\naround mmengine\'s Runner'),
    'backbones': (0.0, 2, 1.9, MODEL, 'TiedResNet and\nits relatives'),
    'training': (2.1, 2, 1.9, MODEL, 'hooks that add\nlosses'),
    'reporting': (4.4, 2, 3.9, EVALUATION, 'tables, files, plots, pictures, page'),
    'analysis': (8.7, 2, 3.3, RUNTIME, 'model zoo, complexity,\nocclusion of data sets'),
    'plugins': (0.0, 1, 4.0, MODEL, 'TiedSE, TiedGCB'),
    'evaluation (arithmetic)': (4.4, 1, 3.9, EVALUATION, 'occlusion, buckets, matching, masks,\naccumulate, intervals, summary'),
    'datasets': (8.7, 1, 3.3, RUNTIME, 'generated images of\noccluded shapes'),
    'layers': (0.0, 0, 4.0, MODEL, 'TBC, TGC, TFC (PyTorch alone)'),
    'evaluation/inputs': (4.4, 0, 3.9, EVALUATION, 'COCO files, results, mmdet dumps, RLE'),
    'atomic, cli, compat': (8.7, 0, 3.3, RUNTIME, 'whole files, one-line errors,\nversions of packages'),
}
#: (from, to): the first imports the second.
IMPORTS = [
    ('surgery', 'backbones'), ('related', 'training'), ('backbones', 'plugins'), ('plugins', 'layers'),
    ('metric, hook, evaluate', 'reporting'), ('reporting', 'evaluation (arithmetic)'),
    ('evaluation (arithmetic)', 'evaluation/inputs'),
]


def draw_room(axes: Axes, name: str) -> None:
    """Draw one room: a box with its name and a few words."""
    left, floor, width, color, text = ROOMS[name]
    bottom = floor * 1.35
    axes.add_patch(FancyBboxPatch((left, bottom), width, HEIGHT, boxstyle='round,pad=0,rounding_size=0.08', linewidth=1.2,
                                  edgecolor=color, facecolor=matplotlib.colors.to_rgba(color, 0.08), zorder=2))
    axes.text(left + width / 2, bottom + HEIGHT - 0.2, name, fontsize=9.5, weight='bold', ha='center', va='center', color=INK,
              zorder=3)
    axes.text(left + width / 2, bottom + (HEIGHT - 0.3) / 2, text, fontsize=7.5, ha='center', va='center', color=INK, zorder=3,
              linespacing=1.25)


def draw_import(axes: Axes, importer: str, imported: str) -> None:
    """Draw an arrow from a room down to one that it imports."""
    left, floor, width, _, _ = ROOMS[importer]
    other_left, other_floor, other_width, _, _ = ROOMS[imported]
    x = (max(left, other_left) + min(left + width, other_left + other_width)) / 2
    axes.annotate('', xy=(x, other_floor * 1.35 + HEIGHT), xytext=(x, floor * 1.35), zorder=1,
                  arrowprops={'arrowstyle': '-|>', 'color': LINE, 'linewidth': 1.2, 'shrinkA': 0, 'shrinkB': 0})


def draw(path: Path) -> None:
    """Draw the architecture and save it."""
    figure = plt.figure(figsize=(9.6, 5.2))
    axes = figure.add_axes((0, 0, 1, 1))
    for name in ROOMS:
        draw_room(axes, name)
    for importer, imported in IMPORTS:
        draw_import(axes, importer, imported)
    for end, start in (((1.5, 2 * 1.35 + HEIGHT), (2.5, 3 * 1.35)), ((8.3, 2 * 1.35 + HEIGHT / 2), (8.7, 2 * 1.35 + HEIGHT / 2))):
        axes.annotate('', xy=end, xytext=start, zorder=1,  # related imports backbones, analysis imports the evaluation
                      arrowprops={'arrowstyle': '-|>', 'color': LINE, 'linewidth': 1.2, 'shrinkA': 0, 'shrinkB': 0})
    for left, width in ((0.0, 4.0), (4.4, 3.9), (8.7, 3.3)):
        x = left + width / 2
        axes.annotate('', xy=(x, 3 * 1.35 + HEIGHT), xytext=(x, 4 * 1.35), zorder=1,
                      arrowprops={'arrowstyle': '-|>', 'color': LINE, 'linewidth': 1.2, 'shrinkA': 0, 'shrinkB': 0})
    axes.set_xlim(-0.15, 12.15)
    axes.set_ylim(-0.15, 4 * 1.35 + HEIGHT + 0.15)
    axes.set_axis_off()
    plt.rcParams['svg.hashsalt'] = 'mmtied'
    figure.savefig(path, metadata={'Date': None} if path.suffix == '.svg' else None)


if __name__ == '__main__':
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
