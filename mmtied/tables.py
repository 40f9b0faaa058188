"""Tables as plain text, Markdown and LaTeX, and CSV files."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .atomic import atomic_path, check_can_read


def text_table(title: str, header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Format a table as plain text; the first column is left-aligned, the others right-aligned.

    Whitespace within a cell is collapsed.

    Example:
        >>> print(text_table('found', ('r', 'images'), [('all', 7), ('r=0', 12)]))
        found
        r    images
        ---  ------
        all       7
        r=0      12
    """
    lines = [[' '.join(str(cell).split()) for cell in line] for line in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    shown = [' '.join(title.split())]
    for cells in lines:
        pads = [' ' * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        right = [pad + cell for pad, cell in zip(pads, cells, strict=True)][1:]
        shown.append('  '.join([cells[0] + pads[0], *right]).rstrip())
    return '\n'.join(shown)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence], numbers: bool = True) -> str:
    """Format a Markdown table; with `numbers`, all columns but the first are right-aligned.

    Example:
        >>> print(markdown_table(['tool', 's'], [['ours', 1.5]]))
        | tool | s |
        | --- | ---: |
        | ours | 1.5 |
    """
    rule = ['---', *['---:' if numbers else '---'] * (len(header) - 1)]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in (header, rule, *rows))


def write_csv(path: str | os.PathLike, header: Iterable[str], rows: Iterable[Mapping]) -> Path:
    """Write a CSV file atomically and return its path; an apostrophe precedes text that spreadsheets would take for formulas.

    Example:
        >>> plain_cell('=1+1'), plain_cell('cat'), plain_cell(-1)
        ("'=1+1", 'cat', -1)
    """
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        table = csv.DictWriter(file, list(header))
        table.writeheader()
        table.writerows({key: plain_cell(value) for key, value in row.items()} for row in rows)
    return Path(path)


def read_csv(path: str | os.PathLike, content: bytes | None = None) -> tuple[list[str], list[dict[str, str | None]]]:
    """Read a CSV file, or its `content`; return the header and the rows as dicts, with None for cells that a short row lacks."""
    header, *rows = read_rows(path, content) or [[]]
    return header, [dict(zip(header, [*row, *[None] * (len(header) - len(row))], strict=False)) for row in rows]


def read_rows(path: str | os.PathLike, content: bytes | None = None) -> list[list[str]]:
    """Return the non-empty rows of a CSV file, or of its `content`; a ValueError names an unreadable file."""
    check_can_read(path)
    try:
        text = (Path(path).read_bytes() if content is None else content).decode('utf-8-sig')
        return [row for row in csv.reader(io.StringIO(text, newline='')) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path}: not a readable table ({error})') from None


def plain_cell(value: object) -> object:
    """Return a CSV cell, with an apostrophe before text that starts like a formula, so that spreadsheets take it for text."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(('=', '+', '-', '@')) or (
        isinstance(value, str) and value.startswith(('\t', '\r', '\n'))) else value


def latex_table(caption: str, header: Sequence[str], rows: Sequence[Sequence]) -> str:
    r"""Format a LaTeX ``table`` for booktabs, with a rule below the first row, the one for all images.

    Special characters in caption, header and cells are escaped.

    Example:
        >>> print(latex_table('AP in %', ('r', 'AP'), [('all', '25.3'), ('r>=0.8', '-')]))
        \begin{table}
          \centering
          \begin{tabular}{lr}
            \toprule
            r & AP \\
            \midrule
            all & 25.3 \\
            \midrule
            r$\geq$0.8 & -- \\
            \bottomrule
          \end{tabular}
          \caption{AP in \%}
        \end{table}
    """
    lines = [' & '.join(map(_latex_cell, line)) + r' \\' for line in (header, *rows)]
    rest = [r'\midrule', *lines[2:]] if len(rows) > 1 else []
    body = [r'\toprule', lines[0], r'\midrule', *lines[1:2], *rest, r'\bottomrule']
    return '\n'.join([r'\begin{table}', r'  \centering', f'  \\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}',
                      *(f'    {line}' for line in body), r'  \end{tabular}', f'  \\caption{{{latex_text(caption)}}}',
                      r'\end{table}'])


def latex_text(text: object) -> str:
    r"""Escape a text for LaTeX, on one line.

    Example:
        >>> print(latex_text('R50_2x & 100%'))
        R50\_2x \& 100\%
    """
    return ''.join(_LATEX.get(character, character) for character in ' '.join(str(text).split()))


_LATEX = {**{character: f'\\{character}' for character in '&%$#_{}'}, '\\': r'\textbackslash{}', '~': r'\textasciitilde{}',
          '^': r'\textasciicircum{}', '<': r'\textless{}', '>': r'\textgreater{}', '|': r'\textbar{}',
          '−': '$-$', '≥': r'$\geq$'}


def _latex_cell(cell: object) -> str:
    r"""Format a cell: signs and >= in math mode, ranges with an en dash, a leading bracket protected (options of ``\\``)."""
    text = latex_text(str(cell).replace('>=', '≥'))
    if text == '-':
        return '--'
    text = re.sub(r'(?<=\d)\.\.(?=\d)', '--', re.sub(r'(?<![\w.])([+-])(?=\d)', r'$\1$', text))
    return f'{{{text}}}' if text.startswith('[') else text


def _width(text: str) -> int:
    """Return the number of terminal columns that a text takes."""
    return sum((unicodedata.east_asian_width(character) in 'WF') + 1 - bool(unicodedata.combining(character))
               for character in text)
