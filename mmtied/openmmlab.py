"""Check that the installed mmcv is one that detectors can use, without importing anything."""

import re
from importlib.util import find_spec
from pathlib import Path

from .compat import MAKE_ADVICE, installed_distribution, release, require


def check_mmcv(purpose: str, *packages: str, operators: bool = True) -> None:
    """Raise an ImportError unless mmcv is installed, with its operators, in a version that some packages accept.

    Args:
        purpose: What needs mmcv, as the start of the message.
        *packages: Packages that must be installed and have a limit for mmcv's version, such as mmdet.
        operators: Whether the compiled operators are needed, as mmdet's detectors do.

    Raises:
        ImportError: With what is missing, and what to type.
    """
    require(['mmengine', 'mmcv', *packages], purpose)
    version = _read(_folder('mmcv') / 'version.py', r"__version__ = '([^']+)'")
    for package in packages:
        limit = _read(_folder(package) / '__init__.py', r"mmcv_maximum_version = '([^']+)'")
        if limit and version and _numbers(version) >= _numbers(limit):
            raise ImportError(f'{purpose} needs an mmcv below {limit}, as {package} does, and {version} is installed: '
                              f'{_how_to_compile()}{MAKE_ADVICE}')
    if operators and not any(_folder('mmcv').glob('_ext.*')):
        installed = f'{installed_distribution("", "mmcv") or "mmcv"} {version or ""}'.strip()
        raise ImportError(f"{purpose} needs mmcv's compiled operators, and the installed {installed} has none: "
                          f'{_how_to_compile()}{MAKE_ADVICE}')


def _how_to_compile() -> str:
    """Return the commands that replace the installed mmcv by one with operators that the installed mmdet accepts."""
    installed = installed_distribution('', 'mmcv')
    return (f'{f"pip uninstall {installed}, then " if installed else ""}with MMCV_WITH_OPS=1 in the environment, '
            f'pip install --no-build-isolation {release("mmcv")}')


def _folder(package: str) -> Path:
    return Path(find_spec(package).submodule_search_locations[0])


def _read(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text(encoding='utf-8')) if path.is_file() else None
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 2, 0) of '2.2.0rc1'."""
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*', version)[0].split('.'))
