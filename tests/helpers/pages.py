"""Documentation pages and the snippets on them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read_page(name: str) -> str:
    """Return the text of a page in docs/, or of one in the repository's root such as README.md."""
    path = ROOT / 'docs' / name
    return (path if path.exists() else ROOT / name).read_text(encoding='utf-8')


def snippets(page: str, language: str = 'python') -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf'```{language}\n(.*?)```', page, re.DOTALL)


def named_configs(page: str) -> dict[str, str]:
    """Return the Python blocks whose first line is a comment with a file name, by that name."""
    return {match[1]: text for text in snippets(page) if (match := re.match(r'# (\S+\.py)\n', text))}
