"""Helpers that every figure of the package shares; matplotlib is imported when a figure is made."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmtied.compat import require
from mmtied.fonts import set_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Formats that figures are written in.
FORMATS = ('png', 'pdf', 'svg')
#: Okabe and Ito's colors, which color-blind readers can tell apart, for curves that are drawn over each other.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#000000', '#E69F00', '#56B4E9')


def new_figure(width: float, height: float) -> 'Figure':
    """Create an empty figure, in inches, that belongs to no window and needs no display."""
    require('matplotlib', 'Plotting')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def hide_spines(axes: 'Axes', *sides: str) -> None:
    """Hide some of the four lines around a plot, by default the top and the right one."""
    axes.spines[list(sides or ('top', 'right'))].set_visible(False)


def plain_label(text: object, length: int = 44) -> str:
    r"""Return a text as matplotlib draws it literally: one line, shortened, without mathtext.

    matplotlib typesets what stands between dollar signs and leaves labels that begin with an underscore out of the legend.

    Example:
        >>> plain_label('R50  at $5')
        'R50 at \\$5'
    """
    text = ' '.join(str(text).split())
    text = text if len(text) <= length else f'{text[:length - 1]}…'
    return (' ' if text.startswith('_') else '') + text.replace('$', r'\$')


def to_rgb(figure: 'Figure') -> np.ndarray:
    """Return a figure's pixels, shape (height, width, 3) uint8."""
    with _ready(figure):
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def svg_bytes(figure: 'Figure') -> bytes:
    """Return a figure as SVG with letters as outlines, which look the same everywhere; the same bytes for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with _ready(figure), matplotlib.rc_context({'svg.hashsalt': 'mmtied', 'svg.fonttype': 'path'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return file.getvalue()


def save_figure(figure: 'Figure', path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix of `path`; in PDF and SVG text stays text.

    A PDF embeds its fonts as TrueType (``pdf.fonttype`` 42), as many publishers ask. The same figure gives the same bytes.
    """
    import matplotlib

    date = {'.pdf': {'CreationDate': None}, '.svg': {'Date': None}}.get(Path(path).suffix)
    with _ready(figure), matplotlib.rc_context({'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'mmtied'}):
        figure.savefig(path, metadata=date)


@contextmanager
def _ready(figure: 'Figure') -> Iterator[None]:
    """Choose the fonts of a figure, which says what no font has, and keep matplotlib from saying it once for each character."""
    set_fonts(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


def check_format(format: str) -> str:
    """Return the format of a figure; raise a ValueError for one that is not in `FORMATS`."""
    if format not in FORMATS:
        raise ValueError(f'format: one of {", ".join(FORMATS)} is expected, got {format!r}')
    return format
