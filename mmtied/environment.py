"""Describe an installation, as a bug report needs it."""

import platform
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from .version import __version__

#: Import names of the packages to name.
_PACKAGES = ('torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'numpy', 'pycocotools', 'orjson', 'matplotlib', 'jinja2',
             'cv2', 'onnxruntime')


def describe_environment() -> str:
    """Return a line for each package that a bug report needs, with PyTorch's devices and the compiled libraries."""
    distributions = packages_distributions()
    lines = [f'mmtied {__version__} in {Path(__file__).parent}, native library {_native()}',
             f'Python {platform.python_version()}, {platform.platform()}', _torch()]
    for name in _PACKAGES:
        found = [_version(distribution) for distribution in sorted(set(distributions.get(name, ())))]
        operators = f', operators {_mmcv_operators()}' if name == 'mmcv' and found else ''
        lines.append(f'{name}: {" and ".join(found) or "not installed"}{operators}')
    return '\n'.join(lines)


def _version(distribution: str) -> str:
    try:
        return f'{distribution} {version(distribution)}'
    except PackageNotFoundError:
        return f'{distribution} of unknown version'


def _torch() -> str:
    try:
        import torch
    except ImportError as error:
        return f'torch: {error}'
    cuda = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f'torch: {torch.__version__}, {cuda}, {", ".join(devices) or "no GPU"}, {torch.get_num_threads()} threads'


def _native() -> str:
    try:
        from .native import library
        return 'loaded' if library() else 'not compiled, or turned off'
    except ImportError as error:
        return f'not loaded ({error})'


def _mmcv_operators() -> str:
    folder = Path(find_spec('mmcv').origin).parent
    return 'compiled' if any(folder.glob('_ext.*')) else 'missing'
