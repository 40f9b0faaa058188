"""Load the compiled library."""

import ctypes
import os
import sysconfig
import warnings
from functools import cache
from pathlib import Path

import torch

_in_forked_process = False


def library() -> ctypes.CDLL | None:
    """Return the compiled functions, or None if they were not compiled or are turned off by ``MMTIED_NATIVE=0``."""
    return None if os.environ.get('MMTIED_NATIVE') == '0' else _load()


def num_threads() -> int:
    """Return how many threads the functions may use: as many as PyTorch, but 1 in a forked process, where OpenMP would hang."""
    return 1 if _in_forked_process else torch.get_num_threads()


@cache
def _load() -> ctypes.CDLL | None:
    path = Path(__file__).parent / f'_run_lengths{sysconfig.get_config_var("EXT_SUFFIX")}'
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        warnings.warn(f'mmtied: cannot load the compiled library ({error}); evaluation of masks is slower without it. Run make '
                      'setup, or install mmtied again, to compile it', RuntimeWarning, stacklevel=3)
        return None


def _after_fork() -> None:
    global _in_forked_process
    _in_forked_process = True


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
