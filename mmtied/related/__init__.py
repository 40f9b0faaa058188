"""Other networks that share or group filters, one package for each paper.

`shared_bases` (Kang & Kim, 2021), `interleaved` (Zhang et al., ICCV 2017) and `groupable` (Zhang et al., ICCV 2019) each hold
their layers, blocks, backbones and training terms. Importing one of them needs only torch; its ``backbones`` and ``training``
need mmengine and mmcv, and `mmtied` imports them where these are installed.
"""

from collections.abc import Callable
from importlib import import_module


def forward_names(package: str, modules: dict[str, str]) -> Callable[[str], object]:
    """Return a module-level ``__getattr__`` (PEP 562) for names that live in another module.

    Args:
        package: Name of the package that offers the names, for the error message.
        modules: Module that defines each name, relative to `mmtied.related`.

    Example:
        >>> forward_names('mmtied.layers', {'IGC': 'interleaved'})('IGC').__module__
        'mmtied.related.interleaved.layers'
    """

    def __getattr__(name: str) -> object:  # noqa: N807
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(f'{__name__}.{modules[name]}'), name)

    return __getattr__
