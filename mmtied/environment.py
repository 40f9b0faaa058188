"""Describe an installation, as a bug report needs it."""

import platform
from importlib.util import find_spec
from pathlib import Path

from .compat import DISTRIBUTIONS, installed_version
from .version import __version__

#: Packages to name, and the distributions that install them.
_PACKAGES = {
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


def describe_environment() -> str:
    """Return a line for each package that a bug report needs, with PyTorch's devices and the compiled libraries."""
    lines = [f'mmtied {__version__} in {Path(__file__).parent}, native library {_native()}',
             f'Python {platform.python_version()}, {platform.platform()}', _torch()]
    for name, distributions in _PACKAGES.items():
        found = [f'{distribution} {number}' for distribution in distributions if (number := installed_version(distribution))]
        operators = f', operators {_mmcv_operators()}' if name == 'mmcv' and found else ''
        lines.append(f'{name}: {" and ".join(found) or "not installed"}{operators}')
    return '\n'.join(lines)


def processor_name() -> str:
    """Return the processor's name as the system knows it."""
    cpu_info = Path('/proc/cpuinfo')
    lines = cpu_info.read_text(encoding='utf-8').splitlines() if cpu_info.exists() else []
    names = (line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


def _torch() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load
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


def _mmcv_operators() -> str:
    found = find_spec('mmcv')
    return 'compiled' if found and any(Path(found.origin).parent.glob('_ext.*')) else 'missing'
