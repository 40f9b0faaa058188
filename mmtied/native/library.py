"""Load the compiled library that fits this processor."""

import ctypes
import os
from functools import cache
from pathlib import Path

import torch


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they were not compiled, or are turned off by ``MMTIED_NATIVE=0``."""
    return None if os.environ.get('MMTIED_NATIVE') == '0' else _load()


@cache
def _load() -> ctypes.CDLL | None:
    name = f'_{torch.backends.cpu.get_cpu_capability().lower()}'
    found = sorted(Path(__file__).parent.glob(f'{name}*.so'))
    return ctypes.CDLL(str(found[0])) if found else None
