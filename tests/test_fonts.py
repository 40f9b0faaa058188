"""Names in any script are drawn with an installed font that has the characters, or give a one-line warning."""

import warnings

import numpy as np
import pytest

pytest.importorskip('matplotlib')
from PIL import Image, ImageDraw

from mmtied import plotting
from mmtied.plotting import new_figure, picture_font, save_figure, svg_bytes, to_rgb

#: A character that the default font lacks; matplotlib ships a font that has it, STIXGeneral.
OTHER = '\u24b6'
#: A character in no font, as Unicode assigns it no meaning.
NOWHERE = '\U000e0fff'


def figure_of(text):
    figure = new_figure(2, 1)
    figure.text(.5, .5, text, fontsize=30)
    return figure


@pytest.fixture(autouse=True)
def fresh():
    plotting._fonts_for.cache_clear()


def test_characters_come_from_another_installed_font():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        shown = to_rgb(figure_of(f'a{OTHER}'))
    assert shown.min() < 100


def test_the_glyph_is_not_the_placeholder():
    """Two characters that the default font lacks look different."""
    assert (to_rgb(figure_of(OTHER)) != to_rgb(figure_of('\u24b7'))).any()


@pytest.mark.parametrize('write', [to_rgb, svg_bytes, 'png'])
def test_characters_without_a_font_give_one_line(tmp_path, write):
    figure = figure_of(f'{NOWHERE}{OTHER}{NOWHERE}')
    with pytest.warns(UserWarning) as said:
        save_figure(figure, tmp_path / 'a.png') if write == 'png' else write(figure)
    line, = said
    assert 'no installed font has 1 of the characters' in str(line.message)
    assert '\n' not in str(line.message)


def test_fonts_of_pictures():
    def drawn(text):
        picture = Image.new('L', (60, 40), 255)
        ImageDraw.Draw(picture).text((2, 2), text, font=picture_font(20, [text]))
        return np.asarray(picture)

    assert picture_font(13, ['cat', 'dog']).getname() == picture_font(13, []).getname()
    assert (drawn(OTHER) != drawn('\u24b7')).any()
    assert (drawn('\u0436') != drawn('\u0437')).any()  # Cyrillic, which the default font of Pillow lacks


def test_labels_of_failure_pictures():
    """Pillow's default font draws both letters as its placeholder."""
    from mmtied.evaluation.reporting.pictures import LOOKS, Shapes, draw_example

    def drawn(name):
        shapes = Shapes(np.array([[40., 40., 60., 40.]]), [name], None)
        return np.asarray(draw_example(Image.new('RGB', (240, 160)), (160, 240), [(shapes, LOOKS['found'])]))

    assert (drawn('\u0436') != drawn('\u0437')).any()
