#!/usr/bin/env python
"""Write docs/api.md from the docstrings of the public names.

A name is public if its package lists it in ``__all__``. A test checks that the page is up to date.

    python docs/make_api.py
"""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmtied.atomic import save_text  # noqa: E402

PAGE = Path(__file__).resolve().parent / 'api.md'
PACKAGES = ('mmtied.layers', 'mmtied.plugins', 'mmtied.backbones', 'mmtied.evaluation', 'mmtied.surgery', 'mmtied.training',
            'mmtied.related.shared_bases', 'mmtied.related.interleaved', 'mmtied.related.groupable', 'mmtied.datasets')
SECTIONS = ('Args', 'Attributes', 'Shape', 'Returns', 'Yields', 'Raises', 'Example', 'Examples', 'Note')
#: Packages that also export names of `mmtied.related`.
FORWARDING = ('mmtied.layers', 'mmtied.backbones', 'mmtied.training')
ROOMS = 'mmtied.related'
LISTS = ('Args', 'Attributes', 'Raises')
HEAD = """# API

Written by `python docs/make_api.py` from the docstrings; edit those. In a config, a registered class is `type='mmtied.NAME'`.
"""


def make_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for name in PACKAGES:
        package = import_module(name)
        parts.append(f'## {name}\n\n{summary(package)}\n')
        for public in public_names(name):
            item = getattr(package, public, None) or next(getattr(import_module(other), public) for other in FORWARDING
                                                          if public in import_module(other).__all__)
            parts.append(describe(f'{home(name, item)}.{public}', item, public))
    return '\n'.join(parts)


def public_names(name: str) -> list[str]:
    """Return a package's public names; a room of `mmtied.related` also has those that other packages forward to it."""
    package = import_module(name)
    names = set(getattr(package, '__all__', ()))
    if name.startswith(ROOMS):
        for other in map(import_module, FORWARDING):
            names |= {public for public in other.__all__ if _module(getattr(other, public)).startswith(name)}
    else:
        names = {public for public in names if not _module(getattr(package, public)).startswith(ROOMS)}
    return sorted(names, key=str.lower)


def home(name: str, item: object) -> str:
    """Return the package to import a name from."""
    if not name.startswith(ROOMS):
        return name
    return next((other for other in FORWARDING if getattr(item, '__name__', '') in import_module(other).__all__), name)


def describe(path: str, item: object, name: str) -> str:
    """Return a public name's signature and docstring as Markdown."""
    doc = inspect.getdoc(item) if callable(item) else None
    return f'### {name}\n\n`{path}{signature(item)}`\n\n{markdown(doc) if doc else "A constant."}\n{members(item)}'


def members(item: object) -> str:
    """Return a list of a class's own public methods and properties, each with the first paragraph of its docstring.

    What a class of another package defines, such as torch's Module, is left out; so is what only takes part in its protocol,
    which has the name of a method there, and what has no docstring.
    """
    if not inspect.isclass(item):
        return ''
    ours = [base for base in item.__mro__ if base.__module__.startswith('mmtied')]
    theirs = {name for base in item.__mro__ if base not in ours and base is not object for name in vars(base)}
    lines = {}
    for name, member in ((name, member) for base in reversed(ours) for name, member in vars(base).items()):
        bare = getattr(member, '__func__', member)
        if name.startswith('_') or name in theirs or not inspect.getdoc(member):
            continue
        if isinstance(bare, property):
            lines[name] = f'- `.{name}`: {summary(bare)}'
        elif inspect.isfunction(bare) and bare.__name__ == name:  # an alias has the name of another
            own = isinstance(member, staticmethod)
            lines[name] = f'- `.{name}{signature(bare, skip_first=not own)}`: {summary(bare)}'
    return '\n**Methods and properties**\n\n' + '\n'.join(lines.values()) + '\n' if lines else ''


def signature(item: object, skip_first: bool = False) -> str:
    """Return parameters and plain defaults, without annotations and, for a method, without its ``self``."""
    try:
        parameters = list(inspect.signature(item).parameters.values())[skip_first:]
    except (TypeError, ValueError):
        return ''
    plain = [parameter.replace(annotation=parameter.empty, default=_plain(parameter.default)) for parameter in parameters]
    text = str(inspect.Signature(plain))
    return re.sub(r"'(\.\.\.)'", r'\1', text)


def summary(item: object) -> str:
    """Return the first paragraph of a docstring on one line."""
    return ' '.join((inspect.getdoc(item) or '').partition('\n\n')[0].split())


def markdown(doc: str) -> str:
    """Convert a Google-style docstring: sections in bold, their entries as lists, examples as code."""
    lines, section = [], ''
    for line in doc.splitlines():
        found = re.fullmatch(rf'({"|".join(SECTIONS)}):', line)
        if found:
            section = found[1]
            lines += [f'**{section}**', '']
            if section.startswith('Example'):
                lines.append('```')
        elif section and line and not line.startswith(' '):
            section = _close(lines, section)
            lines.append(line)
        elif section.startswith('Example'):
            lines.append(line[4:])
        elif section in LISTS and re.match(r' {4}\*{0,2}\w[\w.]*(, \w+)*( \(.*?\))?:', line):
            entry, _, text = line.strip().partition(':')
            lines.append(f'- `{entry}`:{text}')
        else:
            indent = '  ' if section in LISTS else ''
            lines.append(f'{indent}{line.strip()}'.rstrip() if section else line)
    _close(lines, section)
    return '\n'.join(lines).strip()


def _close(lines: list[str], section: str) -> str:
    """End an example's code block."""
    if section.startswith('Example'):
        while lines and not lines[-1]:
            lines.pop()
        lines += ['```', '']
    return ''


def _module(item: object) -> str:
    return getattr(item, '__module__', '')


def _plain(default: object) -> object:
    """Return a default whose repr is the same on every machine."""
    simple = default is inspect.Parameter.empty or isinstance(default, (int, float, str, bool, type(None), tuple, list, dict))
    return default if simple and ' at 0x' not in repr(default) else '...'


if __name__ == '__main__':
    save_text(PAGE, make_page())
