"""docs/architecture.md names files and functions that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/architecture.md').read_text(encoding='utf-8')
FILES = sorted(set(re.findall(r'`((?:mmtied|tools)/[\w/.]*)`', PAGE)))
#: `name` (`file`), where the parentheses may follow after a line break.
NAMES = sorted(set(re.findall(r'`([A-Za-z_.]+)`\s+\(`((?:mmtied|tools)/[\w/]+\.py)`\)', PAGE)))


@pytest.mark.parametrize('path', FILES)
def test_file_exists(path):
    assert (ROOT / path).exists()


def test_page_names_functions():
    assert len(NAMES) > 15


@pytest.mark.parametrize(('name', 'path'), NAMES)
def test_function_is_defined_in_its_file(name, path):
    text = (ROOT / path).read_text(encoding='utf-8')
    for part in name.split('.'):
        assert re.search(rf'^\s*(?:def|class) {part}\b', text, re.MULTILINE), f'{part} is not defined in {path}'
