"""Benchmarks write their own sections of one page, each between markers, and leave the others' as they are."""

import os
import re
from pathlib import Path

from mmtied.atomic import atomic_path


def check_page(path: Path) -> None:
    """Raise a ValueError unless a page can be written there: to be asked before a measurement that takes long."""
    if path.is_dir():
        raise ValueError(f'--docs {path}: this is a folder; name a Markdown page')
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f'--docs {path}: expected a page in a folder that is there and can be written')


def write_section(path: Path, name: str, text: str) -> None:
    """Replace the section of a Markdown page between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    A page or section that is not there yet is made, the section at the end.

    Args:
        path: The page; written whole or not at all.
        name: The section's name in its markers.
        text: Its Markdown, without the markers.

    Raises:
        ValueError: The page has only one of the two markers, or has them twice.
    """
    page = path.read_text(encoding='utf-8') if path.exists() else '# Benchmarks\n'
    begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
    section = f'{begin}\n\n{text.strip()}\n\n{end}'
    found = re.findall(f'{re.escape(begin)}.*?{re.escape(end)}', page, flags=re.DOTALL)
    if not page.count(begin) == page.count(end) == len(found) <= 1:
        raise ValueError(f'{path}: {begin} and {end} must come once each, in this order')
    page = page.replace(found[0], section) if found else f'{page.rstrip()}\n\n{section}\n'
    with atomic_path(path) as partial:
        partial.write_text(page, encoding='utf-8')


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; numbers stand right, the first column left.

    Example:
        >>> print(markdown_table(['tool', 's'], [['ours', '1.5']]))
        | tool | s |
        |---|---:|
        | ours | 1.5 |
    """
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join('|' + '|'.join(cell if cell.startswith('---') else f' {cell} ' for cell in line) + '|' for line in lines)
