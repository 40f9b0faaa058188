"""Check that the installed mmcv is one that detectors can use, without importing anything."""

import re
from importlib.util import find_spec
from pathlib import Path

from .compat import MAKE_ADVICE, require

#: The last release that mmdet 3.3.0 accepts, compiled.
_COMPILE = 'MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0'


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
                              f'{_COMPILE}{MAKE_ADVICE}')
    if operators and not any(_folder('mmcv').glob('_ext.*')):
        raise ImportError(f"{purpose} needs mmcv's compiled operators, and the installed mmcv {version or ''} has none (it is "
                          f'mmcv-lite, or was built without them): pip uninstall mmcv-lite mmcv, then {_COMPILE}{MAKE_ADVICE}')


def _folder(package: str) -> Path:
    return Path(find_spec(package).submodule_search_locations[0])


def _read(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text(encoding='utf-8')) if path.is_file() else None
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 2, 0) of '2.2.0rc1'."""
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*', version)[0].split('.'))
