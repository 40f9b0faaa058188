"""Pictures in rows: a column for each image, a row for each network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..atomic import atomic_path
from ..plotting import hide_spines, new_figure, plain_label, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Suffixes of files that `write_grid` writes.
SUFFIXES = ('.png', '.jpg', '.pdf', '.svg')
#: Height of a picture, and of a line of text below it, in inches.
_HEIGHT, _LINE = 1.45, .16


class Panel(NamedTuple):
    """One picture: RGB, shape (H, W, 3) uint8, and the text below it."""

    pixels: np.ndarray
    text: str = ''


def draw_grid(rows: Mapping[str, Sequence[Panel]]) -> 'Figure':
    """Draw pictures of one height in rows; the columns are as wide as the pictures of the first row.

    Args:
        rows: Pictures of each row by its name, as many in each.
    """
    first = next(iter(rows.values()))
    widths = [panel.pixels.shape[1] / panel.pixels.shape[0] for panel in first]
    lines = [max(panel.text.count('\n') + bool(panel.text) for panel in row) for row in rows.values()]
    figure = new_figure(.3 + _HEIGHT * sum(widths) + .06 * len(widths), sum(_HEIGHT + _LINE * number + .06 for number in lines))
    figure.get_layout_engine().set(w_pad=.02, h_pad=.02, wspace=.01, hspace=.01)
    axes = figure.subplots(len(rows), len(first), squeeze=False, width_ratios=widths)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        for axis, panel in zip(line, row, strict=True):
            axis.imshow(panel.pixels, interpolation='antialiased')
            axis.set_xlabel('\n'.join(plain_label(text, 60) for text in panel.text.split('\n')), fontsize=7, labelpad=2)
            axis.set(xticks=[], yticks=[])
            hide_spines(axis, 'top', 'right', 'bottom', 'left')
        line[0].set_ylabel(plain_label(name, 24), fontsize=8)
    return figure


def check_suffix(path: str | os.PathLike) -> None:
    """Raise a ValueError unless a file has one of `SUFFIXES`."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f'{path}: expected a file that ends with {", ".join(SUFFIXES)}')


def write_grid(rows: Mapping[str, Sequence[Panel]], path: str | os.PathLike) -> None:
    """Write what `draw_grid` draws as PNG, JPEG, PDF or SVG, by the suffix of `path`."""
    check_suffix(path)
    with atomic_path(path) as temporary:
        save_figure(draw_grid(rows), temporary)
