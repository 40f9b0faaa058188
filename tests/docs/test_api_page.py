"""docs/api.md is up to date with the docstrings."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_api_page_is_current():
    for package in ('mmdet', 'mmpretrain'):
        pytest.importorskip(package)
    page = runpy.run_path(str(ROOT / 'docs/make_api.py'))['make_page']()
    assert (ROOT / 'docs/api.md').read_text(encoding='utf-8') == page, 'run python docs/make_api.py'
