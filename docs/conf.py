"""Settings of the documentation site; `make docs` builds it into build/docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = 'mmtied'
author = copyright = 'The mmtied developers'
version = release = re.search(r"__version__ = '(.+)'", (ROOT / 'mmtied/version.py').read_text(encoding='utf-8'))[1]

extensions = ['myst_parser']
myst_heading_anchors = 4  # as on GitHub
exclude_patterns = ['figures', 'benchmarks']
html_theme = 'furo'
html_title = f'mmtied {version}'


def add_readme(app: object, page: str, source: list[str]) -> None:
    """Put the README before the tables of contents in index.md, with its links seen from docs/."""
    if page == 'index':
        readme = (ROOT / 'README.md').read_text(encoding='utf-8')
        readme = re.sub(r'(?<=\]\()([A-Z]+)(?=\.md\))', lambda name: name[1].lower(), readme)  # changelog.md, contributing.md
        readme = re.sub(r'(?<=\]\()(?=configs/|LICENSE)', '../', readme)
        source[0] = readme.replace('](docs/', '](') + '\n' + source[0]


def setup(app: object) -> None:
    """Connect the function above; Sphinx calls this."""
    app.connect('source-read', add_readme)
