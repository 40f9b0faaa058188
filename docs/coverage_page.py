#!/usr/bin/env python
"""Write docs/coverage.md, which lists each table and figure of the papers, from ``mmtied/analysis/papers/coverage.yml``.

Run ``python docs/coverage_page.py``.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from mmtied.analysis import published
from mmtied.analysis.published import load_paper
from mmtied.atomic import save_text
from mmtied.cli import user_errors
from mmtied.tables import markdown_table

PAGE = Path(__file__).resolve().parent / 'coverage.md'
_INTRODUCTION = """# Coverage of the papers

Find the config, tool or page for every table and figure of the papers, and what is left out. Train a config with
`python tools/train.py`; pass the options listed after a config with `--cfg-options`. The [model zoo](model_zoo.md) has the
printed figures and the computed sizes. Nothing on this page has been trained here as the papers train it;
[Evidence](evidence.md) lists what has been trained, at a small scale.

`python docs/coverage_page.py` writes this page. A test checks that every file exists and that every config loads with its
options.
"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A table, figure or other experiment of a paper, such as 'Table 1'.

    Attributes:
        configs: Configs that train it, relative to ``configs`` and without ``.py``; ``{a,b}`` lists alternatives, and words
            after a config are its options.
        tools: Scripts that draw or compute it, relative to the repository root.
        pages: Pages of ``docs`` that show or explain it, optionally with an anchor.
        left_out: Parts that cannot be reproduced, with the reason.
    """

    item: str
    shows: str
    configs: Sequence[str] = ()
    tools: Sequence[str] = ()
    pages: Sequence[str] = ()
    left_out: str = 'nothing'


@cache
def load_coverage() -> dict[str, tuple[Item, ...]]:
    """Read the items of each paper, by the paper's name in `published.PAPERS`."""
    text = Path(published.__file__).with_name('papers').joinpath('coverage.yml').read_text(encoding='utf-8')
    return {paper: tuple(Item(**row) for row in rows) for paper, rows in yaml.safe_load(text).items()}


def render_page() -> str:
    """Return the text of docs/coverage.md."""
    sections = [_INTRODUCTION]
    for name, items in load_coverage().items():
        paper = load_paper(name)
        rows = [(item.item, item.shows, _here(item) or '-', item.left_out) for item in items]
        table = markdown_table(('item', 'shows', 'here', 'left out'), rows, numbers=False)
        sections.append(f'## {paper.title}\n\n[{paper.paper}]({paper.url})\n\n{table}\n')
    return '\n'.join(sections)


def _here(item: Item) -> str:
    """Return links to the configs, tools and pages of an item."""
    shown = []
    for entry in item.configs:
        pattern, _, options = entry.partition(' ')
        name = f'`{pattern}`' if '{' in pattern else f'[{pattern}](../configs/{pattern}.py)'
        shown.append(f'{name} `{options}`' if options else name)
    shown += [f'[{tool}](../{tool})' for tool in item.tools]
    shown += [f'[{page.partition("#")[0].removesuffix(".md")}]({page})' for page in item.pages]
    return ', '.join(shown)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    with user_errors():
        save_text(PAGE, render_page())


if __name__ == '__main__':
    main()
