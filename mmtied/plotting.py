"""Helpers shared by all figures; matplotlib is imported when a figure is made."""

import functools
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .atomic import atomic_path, check_can_write
from .compat import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import ImageFont

#: Figure formats, and the file suffixes that `write_figure` accepts.
FORMATS = ('png', 'pdf', 'svg')
SUFFIXES = ('.png', '.jpg', '.pdf', '.svg')
#: Okabe and Ito's palette for overlapping curves; color-blind readers can tell the colors apart.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#000000', '#E69F00', '#56B4E9')
#: Fonts with placeholders for every character, or with symbols in place of other characters.
_PLACEHOLDER_FONTS = ('Last Resort', 'STIXNonUnicode', 'cmex10', 'cmmi10', 'cmsy10')
#: Height of a picture in a grid, and of a text line below it, in inches.
_HEIGHT, _LINE = 1.45, .16


def new_figure(width: float, height: float) -> 'Figure':
    """Create an empty figure, sizes in inches, without a window or display."""
    require('matplotlib', 'Plotting')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def hide_spines(axes: 'Axes', *sides: str) -> None:
    """Hide some of the four borders of a plot (default: top and right)."""
    axes.spines[list(sides or ('top', 'right'))].set_visible(False)


def plain_label(text: object, length: int = 44) -> str:
    r"""Return a text that matplotlib draws literally: one line, shortened, without mathtext.

    matplotlib typesets text between dollar signs and omits labels with a leading underscore from the legend.

    Example:
        >>> plain_label('R50  at $5')
        'R50 at \\$5'
    """
    text = ' '.join(str(text).split())
    text = text if len(text) <= length else f'{text[:length - 1]}…'
    return (' ' if text.startswith('_') else '') + text.replace('$', r'\$')


def to_rgb(figure: 'Figure') -> np.ndarray:
    """Return a figure's pixels, shape (height, width, 3) uint8."""
    with _with_fonts(figure):
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def svg_bytes(figure: 'Figure') -> bytes:
    """Return a figure as reproducible SVG bytes, with letters as outlines that look the same everywhere."""
    import matplotlib

    file = io.BytesIO()
    with _with_fonts(figure), matplotlib.rc_context({'svg.hashsalt': 'mmtied', 'svg.fonttype': 'path'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return file.getvalue()


def save_figure(figure: 'Figure', path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix of `path`; text in PDF and SVG stays text.

    PDFs embed TrueType fonts (``pdf.fonttype`` 42), as many publishers require. The same figure gives the same bytes.
    """
    import matplotlib

    date = {'.pdf': {'CreationDate': None}, '.svg': {'Date': None}}.get(Path(path).suffix)
    with _with_fonts(figure), matplotlib.rc_context({'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'mmtied'}):
        figure.savefig(path, metadata=date)


def check_figure_path(path: str | os.PathLike) -> None:
    """Raise a ValueError unless `write_figure` can write to `path`, a tool's ``--out``."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f'{path}: expected a file name that ends with {", ".join(SUFFIXES[:-1])} or {SUFFIXES[-1]}')
    check_can_write(path, '--out')


def write_figure(figure: 'Figure', path: str | os.PathLike) -> None:
    """Write a figure as PNG, JPEG, PDF or SVG, by the suffix of `path`, atomically."""
    with atomic_path(path) as temporary:
        save_figure(figure, temporary)


@contextmanager
def _with_fonts(figure: 'Figure') -> Iterator[None]:
    """Choose the fonts of a figure, and silence matplotlib's warning per missing glyph: `set_fonts` warns once."""
    set_fonts(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


def check_format(format: str) -> str:
    """Return `format`, or raise a ValueError if it is not in `FORMATS`."""
    if format not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, got {format!r}')
    return format


class Panel(NamedTuple):
    """RGB picture, shape (H, W, 3) uint8, and the text below it."""

    pixels: np.ndarray
    text: str = ''


def draw_grid(rows: Mapping[str, Sequence[Panel]]) -> 'Figure':
    """Draw pictures at equal height in rows; the first row sets the column widths.

    Args:
        rows: Pictures of each row by its name; all rows have the same length.
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


def set_fonts(figure: 'Figure') -> None:
    """Give each text in a figure the installed fonts that its characters need.

    Warns:
        UserWarning: Some characters are in no installed font.
    """
    import matplotlib
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    others = _font_files(''.join(text.get_text() for text in texts))
    for text in texts if others else ():
        text.set_fontfamily([*matplotlib.rcParams['font.family'], *others])


def picture_font(size: int, texts: Iterable[str]) -> 'ImageFont.FreeTypeFont':
    """Return a font for Pillow: the default font, or an installed one that has more of the characters of `texts`.

    Warns:
        UserWarning: Some characters are in no installed font.
    """
    from PIL import ImageFont

    text = ''.join(texts)
    if text.isascii():
        return ImageFont.load_default(size)
    try:
        others = _font_files(text)
    except ImportError:  # matplotlib finds the other fonts
        return ImageFont.load_default(size)
    # Pillow draws a text in one font; DejaVu has more characters than the default, which is Latin only.
    return ImageFont.truetype(next(iter(others.values()), None) or _default_font(), size)


def _font_files(text: str) -> dict[str, str]:
    """Return names and files of installed fonts for characters that the default font lacks, most useful first."""
    lacking = {ord(character) for character in text if not character.isspace()} - _characters(_default_font())
    return _fonts_for(frozenset(lacking)) if lacking else {}


@functools.cache
def _fonts_for(lacking: frozenset[int]) -> dict[str, str]:
    from matplotlib import font_manager

    fonts, left = {}, set(lacking)
    regular = [entry for entry in font_manager.fontManager.ttflist
               if entry.style == 'normal' and not entry.name.startswith(_PLACEHOLDER_FONTS)]
    while left:
        best = max(regular, key=lambda entry: (len(left & _characters(entry.fname)), -abs(int(entry.weight) - 400)
                                               if isinstance(entry.weight, int) else -300, entry.name), default=None)
        if best is None or not left & _characters(best.fname):
            break
        fonts[best.name] = best.fname
        left -= _characters(best.fname)
    if left:
        shown = ''.join(chr(code) for code in sorted(left)[:8])
        warnings.warn(f'no installed font has {len(left)} of the characters in names, such as {shown!r}; install a font '
                      'that has them, for example Noto Sans CJK for Chinese, Japanese and Korean', stacklevel=2)
    return fonts


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Return the characters in a font file; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _default_font() -> str:
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties())
