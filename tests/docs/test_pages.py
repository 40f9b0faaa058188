"""All pages: links lead somewhere, commands name tools and options that exist, generated pages are current."""

import itertools
import re
import runpy
import shlex
from pathlib import Path

import pytest

from mmtied.__main__ import COMMANDS
from mmtied.launch.config import load_config, parse_options
from tests.helpers.pages import ROOT, read_page

PAGES = sorted([*(path.relative_to(ROOT) for path in (ROOT / 'docs').glob('*.md')), *(
    (ROOT / name).relative_to(ROOT) for name in ('README.md', 'CONTRIBUTING.md'))])
#: What adds options that several tools share.
SHARED_OPTIONS = ''.join((ROOT / 'mmtied' / name).read_text(encoding='utf-8') for name in ('cli.py', 'evaluation/options.py'))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_links_and_pictures_exist(page):
    for target in re.findall(r'\]\((?!https?:)([^)]+)\)', (ROOT / page).read_text(encoding='utf-8')):
        name, _, anchor = target.partition('#')
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f'{page} links to {target}'
        if anchor:
            assert anchor in anchors(path.read_text(encoding='utf-8')), f'{page} links to {target}'


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_commands_name_scripts_and_options_that_exist(page):
    text = (ROOT / page).read_text(encoding='utf-8')
    for line in re.findall(r'^(python (?:tools|benchmarks|docs)/\S+\.py.*)$', text, re.MULTILINE):
        script, *arguments = shlex.split(line, comments=True)[1:]
        assert (ROOT / script).is_file(), f'{page}: {line}'
        source = (ROOT / script).read_text() + (ROOT / 'benchmarks/reporting.py').read_text() + SHARED_OPTIONS
        for option in (argument for argument in arguments if argument.startswith('--')):
            assert option.partition('=')[0] in source or script in ('tools/train.py', 'tools/test.py'), f'{page}: {line}'


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_commands_of_mmtied_exist(page):
    blocks = '\n'.join(re.findall(r'^```\w*\n(.*?)^```', (ROOT / page).read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL))
    for line in re.findall(r'^(mmtied [a-z].*)$', blocks, re.MULTILINE):
        command, *arguments = shlex.split(line, comments=True)[1:]
        source = (ROOT / f'tools/{COMMANDS[command][0]}.py').read_text(encoding='utf-8') + SHARED_OPTIONS
        assert all(f"'{option}'" in source for option in arguments if option.startswith('--')), f'{page}: {line}'


def printed_options(path: Path) -> list[list[str]]:
    """Return what a page or a config's comments print after each --cfg-options, as far as it has KEY=VALUE words."""
    found = []
    for rest in re.findall(r'--cfg-options ([^`\n]+)', path.read_text(encoding='utf-8')):
        words = itertools.takewhile(lambda word: '=' in word, shlex.split(rest, comments=True))
        found.append([word.rstrip('.') for word in words])
    return found


@pytest.mark.parametrize('path', [path for path in [
    *(ROOT / page for page in PAGES), *sorted((ROOT / 'configs').rglob('*.py'))] if printed_options(path)],
    ids=lambda path: str(path.relative_to(ROOT)))
def test_printed_options_are_accepted(path, capsys):
    for words in printed_options(path):
        assert words and parse_options(words)
        if path.suffix == '.py':
            pytest.importorskip('mmpretrain')
            load_config(str(path), words)
            assert 'the config has no' not in capsys.readouterr().err


def test_every_page_is_in_a_table_of_contents():
    tables = re.findall(r'```[{]toctree[}]\n(.*?)```', read_page('index.md'), re.DOTALL)
    listed = [line for table in tables for line in table.splitlines() if line and not line.startswith(':')]
    assert sorted(listed) == sorted({path.stem for path in (ROOT / 'docs').glob('*.md')} - {'index'})


def test_api_page_is_current():
    for package in ('mmdet', 'mmpretrain'):
        pytest.importorskip(package)
    assert runpy.run_path(str(ROOT / 'docs/make_api.py'))['make_page']() == read_page('api.md'), 'run python docs/make_api.py'


def test_api_page_lists_methods_and_properties():
    result = read_page('api.md').partition('### EvaluationResult')[2].partition('### ')[0]
    listed = re.findall(r'^- `\.(\w+)(\(.*\))?`: \S', result, re.MULTILINE)
    names = {'rows', 'table', 'plot', 'save', 'latex', 'with_intervals', 'saved_run', 'category_rows'}
    assert {name for name, _ in listed} == names
    assert dict(listed)['plot'] == '(iou_type=None, path=None, hide_empty=False)'
    assert '- `.buckets`: ' in read_page('api.md')  # a property


def test_readme_table_matches_the_model_zoo():
    zoo = read_page('model_zoo.md')
    for config, network, box, mask in re.findall(r'^\| \[(\w+)\].*? \| (\S+) \|.*\| ([\d.]+) \| ([\d.]+) \|$',
                                                 read_page('README.md'), re.MULTILINE):
        row, = (line for line in zoo.splitlines() if f'[{config}]' in line)
        assert f'| {network} |' in row and f'| {box} | {mask} |' in row
