"""Load the compiled library that fits this processor."""

import ctypes
import os
import sysconfig
import warnings
from functools import cache
from pathlib import Path

import torch

from .builds import fingerprint

_is_forked = False


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they were not compiled, or are turned off by ``MMTIED_NATIVE=0``."""
    return None if os.environ.get('MMTIED_NATIVE') == '0' else _load()


def num_threads() -> int:
    """How many threads the functions may use: PyTorch's number, and 1 in a forked process, which has none of its parent's."""
    return 1 if _is_forked else torch.get_num_threads()


@cache
def _load() -> ctypes.CDLL | None:
    name = f'_{torch.backends.cpu.get_cpu_capability().lower()}{sysconfig.get_config_var("EXT_SUFFIX")}'
    path = Path(__file__).parent / name
    if not path.is_file():
        return None
    try:
        functions = ctypes.CDLL(str(path))
        functions.mmtied_fingerprint.restype = ctypes.c_char_p
        compiled_from = functions.mmtied_fingerprint().decode()
    except (OSError, AttributeError) as error:
        return _go_without(f'cannot be loaded ({error})')
    if fingerprint() not in (None, compiled_from):
        return _go_without('was compiled from other code')
    return functions


def _go_without(reason: str) -> None:
    warnings.warn(f"mmtied's compiled library {reason}; going on without it, which is slower. `make setup`, or installing mmtied "
                  'again, compiles it anew', RuntimeWarning, stacklevel=4)


def _after_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
