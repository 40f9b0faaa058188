"""Text files are UTF-8 on every system: without an explicit encoding, Windows uses its language's code page."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ('mmtied', 'tools', 'benchmarks', 'docs', 'requirements') for path in (ROOT / folder).rglob('*.py')
           if '.mim' not in path.parts] + [ROOT / 'setup.py']
#: Position of the mode in the arguments of functions and methods that open files.
MODES = {'read_text': None, 'write_text': None, 'open': 0, 'fdopen': 1}
#: Functions that do not open text files.
OTHERS = ('Image.open', 'tarfile.open', 'webbrowser.open', 'os.open', 'gzip.open')


def text_without_encoding(source: str) -> list[int]:
    """Return the lines that read or write text without an encoding."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, 'attr', None) or getattr(call.func, 'id', None)
        if name not in MODES or ast.unparse(call.func) in OTHERS:
            continue
        position = 1 if ast.unparse(call.func) == 'open' else MODES[name]
        modes = [keyword.value for keyword in call.keywords if keyword.arg == 'mode']
        modes += call.args[position:position + 1] if position is not None else []
        binary = any('b' in ast.unparse(mode) for mode in modes)
        if not binary and all(keyword.arg != 'encoding' for keyword in call.keywords):
            found.append(call.lineno)
    return found


@pytest.mark.parametrize(('code', 'count'), [
    ("Path('a').read_text()", 1), ("path.write_text('x')", 1), ("open('a')", 1), ("path.open('w', newline='')", 1),
    ("open('a', 'rb')", 0), ("path.open(mode='wb')", 0), ("path.read_text(encoding='utf-8')", 0), ("Image.open('a')", 0)])
def test_finds_what_it_looks_for(code, count):
    assert len(text_without_encoding(code)) == count


def test_every_text_file_has_an_encoding():
    assert [(str(path.relative_to(ROOT)), lines) for path in SOURCES
            if (lines := text_without_encoding(path.read_text(encoding='utf-8')))] == []
