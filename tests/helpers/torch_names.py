"""Names of torch that the package uses, to compare with the oldest torch that it supports.

``tests/data/torch_2.1_names.txt`` lists those that were seen to exist in torch 2.1. A new name is added by running this file in
the environment of ``make test-openmmlab``: ``PYTHONPATH=. .venv-openmmlab/bin/python tests/helpers/torch_names.py``.
"""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / 'tests' / 'data' / 'torch_2.1_names.txt'
#: The module that looks newer names up itself.
EXEMPT = ROOT / 'mmtied' / 'torch_compat.py'
#: Classes whose attributes are recognized by their name alone, whatever object they are read from.
CLASSES = {'torch.Tensor': torch.Tensor, 'torch.nn.Module': torch.nn.Module}
#: Classes whose attributes cannot be told from theirs.
OTHERS = (str, list, dict, set, Path)


def used_names() -> dict[str, str]:
    """Return the names of torch in the package and its tools, each with a file that uses it."""
    files = sorted({*(ROOT / 'mmtied').rglob('*.py'), *(ROOT / 'tools').glob('*.py')} - {EXEMPT})
    return {name: str(path.relative_to(ROOT)) for path in files
            for name in names_in(ast.parse(path.read_text(encoding='utf-8')))}


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of torch in a module, and the attributes that tensors and modules have."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                aliases[name.asname or name.name.partition('.')[0]] = name.name if name.asname else name.name.partition('.')[0]
                if name.name.partition('.')[0] == 'torch':
                    yield name.name
        elif isinstance(node, ast.ImportFrom) and (node.module or '').partition('.')[0] == 'torch' and not node.level:
            for name in node.names:
                aliases[name.asname or name.name] = f'{node.module}.{name.name}'
                yield f'{node.module}.{name.name}'
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node, aliases)
            if name.partition('.')[0] == 'torch':
                yield name
            if not name and not node.attr.startswith('__') and not any(hasattr(other, node.attr) for other in OTHERS):
                yield from (f'{kind}.{node.attr}' for kind, cls in CLASSES.items() if hasattr(cls, node.attr))


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """Return the full dotted name of an expression such as ``F.conv2d``, or an empty string."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, '')
    parent = dotted(node.value, aliases) if isinstance(node, ast.Attribute) else ''
    return f'{parent}.{node.attr}' if parent else ''


def exists(name: str) -> bool:
    """Return whether the running torch has a dotted name."""
    parts = name.split('.')
    value = torch
    for end in range(2, len(parts) + 1):
        if not hasattr(value, parts[end - 1]):
            try:
                import_module('.'.join(parts[:end]))
            except ImportError:
                return False
        value = getattr(value, parts[end - 1])
    return True


if __name__ == '__main__':
    if not torch.__version__.startswith('2.1.'):
        raise SystemExit(f'torch {torch.__version__} cannot say what torch 2.1 has')
    LIST.write_text(''.join(f'{name}\n' for name in sorted(used_names()) if exists(name)), encoding='utf-8')
