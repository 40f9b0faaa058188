"""Detect installed packages, advise how to install missing ones, and describe the environment for bug reports.

The maintained forks (onedl-*) and OpenMMLab's own packages share their import names, so only the installation advice differs.
"""

import platform
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .version import __version__

#: Tested release of the fork, and OpenMMLab's last release.
RELEASES = {
    'mmengine': ('onedl-mmengine==0.10.12', 'mmengine==0.10.7'),
    'mmcv': ('onedl-mmcv==2.3.6', 'mmcv==2.1.0'),
    'mmdet': ('onedl-mmdetection==3.5.1', 'mmdet==3.3.0'),
    'mmpretrain': ('onedl-mmpretrain==1.3.6', 'mmpretrain==1.2.0'),
}
#: Distributions that provide each package.
DISTRIBUTIONS = {
    'mmengine': ['onedl-mmengine', 'mmengine', 'mmengine-lite'],
    'mmcv': ['onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'],
    'mmdet': ['onedl-mmdetection', 'mmdet'],
    'mmpretrain': ['onedl-mmpretrain', 'mmpretrain'],
}
#: Extra in setup.py that installs a package.
_EXTRAS = {'matplotlib': 'report', 'jinja2': 'report', 'PIL': 'report', 'cv2': 'shapes', 'onnxscript': 'onnx',
           'onnxruntime': 'onnx', 'pytorch_grad_cam': 'cam'}
#: Packages listed in bug reports, and the distributions that provide them.
_REPORTED = {
    'torchvision': ['torchvision'],
    **DISTRIBUTIONS,
    'numpy': ['numpy'],
    'pycocotools': ['pycocotools'],
    'orjson': ['orjson'],
    'matplotlib': ['matplotlib'],
    'jinja2': ['jinja2'],
    'cv2': ['opencv-python', 'opencv-python-headless', 'opencv-contrib-python'],
    'onnxruntime': ['onnxruntime', 'onnxruntime-gpu'],
}
#: Ends all advice about OpenMMLab's packages.
MAKE_ADVICE = ', or run make setup in the repository, which installs everything'


def is_installed(*packages: str) -> bool:
    """Return True if all the named top-level packages can be imported, without importing them."""
    return all(find_spec(package) is not None for package in packages)


def require(packages: str | Sequence[str], purpose: str) -> None:
    """Raise an ImportError with one install command for all missing packages, given by import name.

    Example:
        >>> require(['json', 'no_such_package'], 'The example')
        Traceback (most recent call last):
        ImportError: The example needs no_such_package, which is not installed: pip install no_such_package
    """
    missing = [name for name in ([packages] if isinstance(packages, str) else packages) if not is_installed(name)]
    if not missing:
        return
    extras = sorted({_EXTRAS[name] for name in missing if name in _EXTRAS})
    advice = [release(name) if name in RELEASES else name for name in missing if name not in _EXTRAS]
    advice += [f"'mmtied[{','.join(extras)}]'"] if extras else []
    make = MAKE_ADVICE if any(name in RELEASES for name in missing) else ''
    raise ImportError(f'{purpose} needs {_join(missing)}, which {"is" if len(missing) == 1 else "are"} not installed: '
                      f'pip install {" ".join(advice)}{make}')


def release(package: str) -> str:
    """Return the release of an OpenMMLab package that matches the installed family; the fork's if none is installed."""
    forked, original = RELEASES[package]
    return original if not installed_distribution('onedl-') and installed_distribution('mm') else forked


def installed_distribution(prefix: str, *packages: str) -> str:
    """Return the first installed distribution of some OpenMMLab packages (default: all), or ''.

    The prefix selects the forks (``'onedl-'``), OpenMMLab's own (``'mm'``), or either (``''``).
    """
    names = [name for package in packages or DISTRIBUTIONS for name in DISTRIBUTIONS[package] if name.startswith(prefix)]
    return next((name for name in names if installed_version(name)), '')


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_mmcv(purpose: str, *packages: str, operators: bool = True) -> None:
    """Raise an ImportError with the fixing command unless mmcv is installed in a version that `packages` accept.

    With `operators`, mmcv must also have its compiled operators, which mmdet's detectors need.
    """
    require(['mmengine', 'mmcv', *packages], purpose)
    number = _read(_folder('mmcv') / 'version.py', r"__version__ = '([^']+)'")
    for package in packages:
        limit = _read(_folder(package) / '__init__.py', r"mmcv_maximum_version = '([^']+)'")
        if limit and number and _numbers(number) >= _numbers(limit):
            raise ImportError(f'{purpose} needs an mmcv below {limit}, as {package} does, and {number} is installed: '
                              f'{_how_to_compile()}{MAKE_ADVICE}')
    if operators and not _has_operators():
        installed = f'{installed_distribution("", "mmcv") or "mmcv"} {number or ""}'.strip()
        raise ImportError(f"{purpose} needs mmcv's compiled operators, and the installed {installed} has none: "
                          f'{_how_to_compile()}{MAKE_ADVICE}')


def _how_to_compile() -> str:
    """Return the commands that replace the installed mmcv by a compiled one that the installed mmdet accepts."""
    installed = installed_distribution('', 'mmcv')
    return (f'{f"pip uninstall {installed}, then " if installed else ""}with MMCV_WITH_OPS=1 in the environment, '
            f'pip install --no-build-isolation {release("mmcv")}')


def _has_operators() -> bool:
    """Return True if the installed mmcv has its compiled operators."""
    return is_installed('mmcv') and any(_folder('mmcv').glob('_ext.*'))


def _folder(package: str) -> Path:
    return Path(find_spec(package).submodule_search_locations[0])


def _read(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text(encoding='utf-8')) if path.is_file() else None
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 2, 0) for '2.2.0rc1'."""
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*', version)[0].split('.'))


def describe_environment() -> str:
    """Return the environment for a bug report: a line per package, with PyTorch's devices and the compiled libraries."""
    lines = [f'mmtied {__version__} in {Path(__file__).parent}, native library {_native()}',
             f'Python {platform.python_version()}, {platform.platform()}', _torch()]
    for name, distributions in _REPORTED.items():
        found = [f'{distribution} {number}' for distribution in distributions if (number := installed_version(distribution))]
        operators = f', operators {"compiled" if _has_operators() else "missing"}' if name == 'mmcv' and found else ''
        lines.append(f'{name}: {" and ".join(found) or "not installed"}{operators}')
    return '\n'.join(lines)


def processor_name() -> str:
    """Return the system's name for the processor."""
    cpu_info = Path('/proc/cpuinfo')
    lines = cpu_info.read_text(encoding='utf-8').splitlines() if cpu_info.exists() else []
    names = (line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


def _torch() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch does not load
        return f'torch: {" ".join(str(error).split())}'
    cuda = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f'torch: {torch.__version__}, {cuda}, {", ".join(devices) or "no GPU"}, {torch.get_num_threads()} threads'


def _native() -> str:
    try:
        from .native import library
        return 'loaded' if library() else 'not compiled, or turned off'
    except (ImportError, OSError) as error:
        return f'not loaded ({" ".join(str(error).split())})'


def _join(names: Sequence[str]) -> str:
    *others, last = names
    return f'{", ".join(others)} and {last}' if others else last


def unwrap_model(model):
    """Return the model inside a wrapper for distributed training, or the model itself."""
    from mmengine.model import is_model_wrapper
    return model.module if is_model_wrapper(model) else model


def forward_names(package: str, offered: dict[str, Sequence[str]]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` (PEP 562) for a package that re-exports names of `mmtied.related` lazily.

    `offered` maps modules, relative to `mmtied.related`, to their names, which are imported on first use.

    Example:
        >>> get, _ = forward_names('mmtied.layers', {'interleaved': ['IGC']})
        >>> get('IGC').__module__
        'mmtied.related.interleaved.layers'
    """
    modules = {name: module for module, names in offered.items() for name in names}

    def __getattr__(name: str) -> object:  # noqa: N807
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(f'mmtied.related.{modules[name]}'), name)

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__
