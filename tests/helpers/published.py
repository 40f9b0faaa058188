"""Figures printed in the papers, typed independently of the copies in the package."""

import json
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / 'data'


def printed_tables(paper: str) -> dict:
    """Return the tables of one paper by name."""
    return json.loads((DATA / 'published_tables.json').read_text(encoding='utf-8'))[paper]
