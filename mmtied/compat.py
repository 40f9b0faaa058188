"""Find and name OpenMMLab's packages, and look through mmengine's wrappers.

The maintained forks (onedl-*) and the upstream packages install under the same import names, so only the advice differs.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

_INSTALL = {
    'mmengine': 'onedl-mmengine==0.10.12 (or mmengine==0.10.7)',
    'mmcv': 'onedl-mmcv==2.3.6 (or mmcv==2.1.0)',
    'mmdet': 'onedl-mmdetection==3.5.1 (or mmdet==3.3.0)',
    'mmpretrain': 'onedl-mmpretrain==1.3.6 (or mmpretrain==1.2.0)',
}

#: End of every advice about OpenMMLab's packages.
MAKE_ADVICE = ', or run make setup in the repository, which installs everything'


def is_installed(*packages: str) -> bool:
    """Return True if all the named top-level packages can be imported, without importing them."""
    return all(find_spec(package) is not None for package in packages)


def require(package: str, purpose: str) -> None:
    """Raise an ImportError with an install command when a package is missing.

    Args:
        package: Import name, such as mmengine, mmcv, mmdet or mmpretrain.
        purpose: What needs the package, as the start of the message, for example ``'TiedResNet'``.

    Raises:
        ImportError: The package is not installed.
    """
    if not is_installed(package):
        raise ImportError(f'{purpose} needs {package}, which is not installed: pip install {_INSTALL.get(package, package)}'
                          f'{MAKE_ADVICE if package in _INSTALL else ""}')


def unwrap_model(model):
    """Return the model inside a wrapper for distributed training, or the model itself.

    Args:
        model: The `torch.nn.Module` of a Runner.
    """
    from mmengine.model import is_model_wrapper
    return model.module if is_model_wrapper(model) else model


def forward_names(package: str, modules: dict[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package (PEP 562) that also offers names of `mmtied.related`.

    Args:
        package: Name of the package.
        modules: Module that defines each name, relative to `mmtied.related`; imported when the name is first used.

    Example:
        >>> get, _ = forward_names('mmtied.layers', {'IGC': 'interleaved'})
        >>> get('IGC').__module__
        'mmtied.related.interleaved.layers'
    """

    def __getattr__(name: str) -> object:  # noqa: N807
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(f'mmtied.related.{modules[name]}'), name)

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__
