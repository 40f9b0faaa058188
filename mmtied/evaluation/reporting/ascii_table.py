"""Tables as plain text, for terminals and logs."""

import io
from collections.abc import Sequence


def ascii_table(title: str, header: Sequence[str], rows: Sequence[Sequence], width: int = 120,
                rule_after_first: bool = False) -> str:
    """A table with its title; the first column to the left, the others to the right.

    Args:
        title: The line above it.
        header: A name for each column.
        rows: The cells of each row, written as `str` writes them.
        width: Characters of a line at most; cells that do not fit are folded.
        rule_after_first: Draw a line below the first row, for a row of totals.

    Raises:
        ImportError: rich is not installed.

    Example:
        >>> print(ascii_table('found', ('r', 'images'), [('all', 7)]))
        found
        +-----+--------+
        | r   | images |
        +=====+========+
        | all |      7 |
        +-----+--------+
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    table = Table(title=title, box=box.ASCII_DOUBLE_HEAD, title_justify='left', title_style='')
    for number, name in enumerate(header):
        table.add_column(name, justify='right' if number else 'left')
    for number, row in enumerate(rows):
        table.add_row(*map(str, row), end_section=rule_after_first and number == 0)
    console.print(table, markup=False)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines())
