"""Figures printed in the papers, copies independent of those that the package reads."""

import json
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / 'data'


def printed_tables(paper: str) -> dict:
    """Return the tables of one paper by name."""
    return json.loads((DATA / 'published_tables.json').read_text(encoding='utf-8'))[paper]
