"""Fonts for names in any script, in plots and in pictures: the usual one, and an installed one for what it lacks."""

import functools
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import ImageFont

#: Fonts that have a placeholder for every character, or symbols at places of other characters.
_NO_TEXT = ('Last Resort', 'STIXNonUnicode', 'cmex10', 'cmmi10', 'cmsy10')


def set_fonts(figure: 'Figure') -> None:
    """Give each text of a figure the installed fonts that its characters need.

    Warns:
        UserWarning: No installed font has some of the characters.
    """
    import matplotlib
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    others = _font_files(''.join(text.get_text() for text in texts))
    for text in texts if others else ():
        text.set_fontfamily([*matplotlib.rcParams['font.family'], *others])


def picture_font(size: int, texts: Iterable[str]) -> 'ImageFont.FreeTypeFont':
    """Return a font for Pillow: the default one, or an installed one that has more characters of `texts`.

    Warns:
        UserWarning: No installed font has some of the characters.
    """
    from PIL import ImageFont

    text = ''.join(texts)
    if text.isascii():
        return ImageFont.load_default(size)
    try:
        others = _font_files(text)
    except ImportError:  # without matplotlib no other font is known
        return ImageFont.load_default(size)
    # Pillow writes a text in one font; DejaVu has more than the default one, which knows Latin letters only.
    return ImageFont.truetype(next(iter(others.values()), None) or _usual_font(), size)


def _font_files(text: str) -> dict[str, str]:
    """Return names and files of installed fonts for the characters that the usual font lacks, the most useful first."""
    lacking = {ord(character) for character in text if not character.isspace()} - _characters(_usual_font())
    return _fonts_for(frozenset(lacking)) if lacking else {}


@functools.cache
def _fonts_for(lacking: frozenset[int]) -> dict[str, str]:
    from matplotlib import font_manager

    fonts, left = {}, set(lacking)
    regular = [entry for entry in font_manager.fontManager.ttflist
               if entry.style == 'normal' and not entry.name.startswith(_NO_TEXT)]
    while left:
        best = max(regular, key=lambda entry: (len(left & _characters(entry.fname)), -abs(int(entry.weight) - 400)
                                               if isinstance(entry.weight, int) else -300, entry.name), default=None)
        if best is None or not left & _characters(best.fname):
            break
        fonts[best.name] = best.fname
        left -= _characters(best.fname)
    if left:
        shown = ''.join(chr(code) for code in sorted(left)[:8])
        warnings.warn(f'no installed font has {len(left)} of the characters in names, such as {shown!r}; install one that does, '
                      'such as Noto Sans CJK for Chinese, Japanese and Korean, and plots will show them', stacklevel=2)
    return fonts


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Return the characters that a font file has; none for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _usual_font() -> str:
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties())
