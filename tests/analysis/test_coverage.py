"""docs/coverage.md lists every table and figure of the papers, and every file that it names exists."""

import itertools
import re

import coverage_page
import pytest
from coverage_page import load_coverage, render_page
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.detectors import ROOT, load_recipe

#: Tables and figures of each paper, counted in the papers.
TABLES = {'tied_block_convolution': ['1', '2', '3', '4', '5', '6', 'A.1', 'A.2'], 'shared_filter_bases': [*'12345'],
          'interleaved_group_convolution': [*'1234567'], 'groupable_convolution': [*'123456']}
FIGURES = {'tied_block_convolution': [*'123456789', 'A.1', 'A.2'], 'shared_filter_bases': [*'1234'],
           'interleaved_group_convolution': [*'123'], 'groupable_convolution': [*'123456']}


def expanded_configs(item):
    """Return each config of an item, whose name may have alternatives in braces, with its options."""
    found = []
    for entry in item.configs:
        pattern, _, options = entry.partition(' ')
        parts = [part.split(',') if number % 2 else [part] for number, part in enumerate(re.split(r'\{([^}]*)\}', pattern))]
        found += [(''.join(words), options) for words in itertools.product(*parts)]
    return found


ITEMS = [item for items in load_coverage().values() for item in items]
WITH_OPTIONS = sorted({(name, options) for item in ITEMS for name, options in expanded_configs(item) if options})


def test_page_is_up_to_date():
    assert (ROOT / 'docs/coverage.md').read_text() == render_page(), 'stale: run python docs/coverage_page.py'


def test_script_writes_page(monkeypatch, tmp_path):
    monkeypatch.setattr(coverage_page, 'PAGE', tmp_path / 'coverage.md')
    coverage_page.main([])
    assert (tmp_path / 'coverage.md').read_text() == render_page()
    with pytest.raises(SystemExit):
        coverage_page.main(['--check'])


def test_every_table_and_figure_is_listed():
    for paper, items in load_coverage().items():
        expected = [f'Table {number}' for number in TABLES[paper]] + [f'Figure {number}' for number in FIGURES[paper]]
        assert [item.item for item in items if item.item.startswith(('Table', 'Figure'))] == expected
    assert load_coverage().keys() == TABLES.keys()


def test_no_cell_is_empty():
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in render_page().splitlines() if line.startswith('| ')]
    assert len(rows) == len(ITEMS) + 2 * len(TABLES)
    assert all(len(row) == 4 and all(row) for row in rows)
    assert all(row[2] != '-' or row[3] != 'nothing' for row in rows)


def test_every_named_file_exists():
    """test_configs.py loads, trains and runs every config; test_pages.py checks the anchors of the links to pages."""
    for item in ITEMS:
        files = [f'configs/{name}.py' for name, _ in expanded_configs(item)]
        files += [*item.tools, *(f'docs/{page.partition("#")[0]}' for page in item.pages)]
        missing = [file for file in files if not (ROOT / file).is_file()]
        assert not missing, item.item


@pytest.mark.parametrize(('name', 'options'), WITH_OPTIONS, ids=' '.join)
def test_options_load_and_build(name, options):
    cfg = load_recipe(name, options.split())
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(cfg.model.backbone)
    last = getattr(backbone, backbone.stage_names[-1])[-1].exit.conv
    assert last.out_channels == cfg.model.head.in_channels
    for option in options.split():
        key, _, value = option.rpartition('=')
        found = cfg
        for part in key.split('.'):
            found = found[part]
        assert str(found) == value
