"""Text tables align in a terminal; LaTeX tables are balanced and escape text."""

import re

import pytest

from mmtied.tables import latex_table, latex_text, text_table


def test_columns_align_with_wide_letters():
    lines = text_table('a\ntitle', ['name', 'n'], [['深圳', 1], ['e\u0301t\u0301e', 23], ['plain\nname', 'x']]).splitlines()
    assert lines[0] == 'a title'
    assert lines[3] == '深圳         1'  # two characters of two columns each, below a name of ten columns
    assert lines[4].replace('\u0301', '') == 'ete         23'
    assert lines[5] == 'plain name   x'


def test_latex_table_structure():
    rows = [['all', '25.3', '+1.2', '[-0.4, +2.8]'], ['[0.1,0.2)', '-', '-', '-'], ['r>=0.8', '9.0', '-0.5', '1.0..2.0']]
    lines = [line.strip() for line in latex_table('AP in %', ['r', 'AP', 'difference', '95 % interval'], rows).splitlines()]
    assert [line for line in lines if line.endswith('rule')] == [r'\toprule', r'\midrule', r'\midrule', r'\bottomrule']
    assert lines[2] == r'\begin{tabular}{lrrr}'
    cells = [line.removesuffix(r' \\').split(' & ') for line in lines if line.endswith(r'\\')]
    assert cells == [['r', 'AP', 'difference', r'95 \% interval'], ['all', '25.3', '$+$1.2', '{[$-$0.4, $+$2.8]}'],
                     ['{[0.1,0.2)}', '--', '--', '--'], [r'r$\geq$0.8', '9.0', '$-$0.5', '1.0--2.0']]


@pytest.mark.parametrize('name', ['R50_2x & 100% #1 $x$ {y}', '\\input{/etc/passwd}', 'a~b^c<d>e|f', '}{', 'two\nlines \\\\'])
def test_latex_escapes_names(name):
    text = latex_text(name)
    bare = re.sub(r'\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]', '', text)
    assert not set(bare) & set('\\{}$&#^_~%<>|\n')
    assert latex_table(name, ['r', name], [[name, 1]]).count(text) == 3
