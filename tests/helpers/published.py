"""Figures printed in the papers, a copy independent of the one that the package reads."""

import json
from pathlib import Path


def printed_tables(paper: str) -> dict:
    """Return the tables of one paper by name."""
    path = Path(__file__).resolve().parents[1] / 'data/published_tables.json'
    return json.loads(path.read_text(encoding='utf-8'))[paper]
