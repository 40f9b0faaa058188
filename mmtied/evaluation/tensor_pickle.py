"""Read pickles of tensors, arrays and plain containers without running what else a pickle may hold.

Unpickling calls whatever the file names, so a foreign .pkl file can run any program. Here only the functions that rebuild
tensors, NumPy arrays and plain containers are admitted, and a tensor's bytes, a pickle of their own, are read with
``torch.load(weights_only=True)``.
"""

import builtins
import codecs
import collections
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_tensor_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickle of tensors, NumPy arrays, numbers, texts, lists, tuples, sets and dicts; tensors on the CPU.

    Raises:
        ValueError: The file is missing, empty, truncated or no pickle, or needs a class or function that is not admitted,
            which the message names.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'numbers.pkl')
        ...     _ = path.write_bytes(pickle.dumps([{'scores': torch.tensor([0.5, 1.])}]))
        ...     print(read_tensor_pickle(path))
        [{'scores': tensor([0.5000, 1.0000])}]
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    try:
        with path.open('rb') as file:
            return _Unpickler(file).load()
    except _RefusedError as error:
        raise ValueError(f'{path}: refused, as the pickle needs {error}, and reading that could run foreign code; only tensors, '
                         'NumPy arrays and plain containers are read') from None
    except Exception as error:  # what a broken pickle raises depends on the byte where it breaks
        state = 'empty' if path.stat().st_size == 0 else 'not a complete pickle'
        raise ValueError(f'{path}: the file is {state} ({type(error).__name__}: {error})') from None


class _RefusedError(Exception):
    """Names a class or function that is not admitted."""


def _tensor_storage(data: bytes) -> Any:
    """In place of torch.storage._load_from_bytes, which would unpickle anything."""
    try:
        return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise _RefusedError(f"a tensor whose bytes are not only a tensor's ({str(error).splitlines()[0]})") from None


def _admitted() -> dict[tuple[str, str], Callable]:
    """What a pickle may call, by module and name, under the names that old and new versions write."""
    reconstruct, from_buffer = (np.empty(0).__reduce_ex__(protocol)[0] for protocol in (4, 5))
    scalar = np.float64(0).__reduce__()[0]
    known = {('collections', 'OrderedDict'): collections.OrderedDict,
             ('_codecs', 'encode'): codecs.encode,
             ('numpy', 'ndarray'): np.ndarray,
             ('numpy', 'dtype'): np.dtype,
             ('torch.storage', '_load_from_bytes'): _tensor_storage,
             ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2}
    for package in ('numpy.core', 'numpy._core'):
        known[f'{package}.multiarray', '_reconstruct'] = reconstruct
        known[f'{package}.multiarray', 'scalar'] = scalar
        known[f'{package}.numeric', '_frombuffer'] = from_buffer
    for name in ('bool', 'bytearray', 'bytes', 'complex', 'dict', 'float', 'frozenset', 'int', 'list', 'set', 'str', 'tuple'):
        known |= {(module, name): getattr(builtins, name) for module in ('builtins', '__builtin__')}
    return known


class _Unpickler(pickle.Unpickler):
    """An unpickler that looks every class and function up in a list instead of importing it."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file)
        self._admitted = _admitted()

    def find_class(self, module_name: str, global_name: str) -> Callable:
        """The admitted function or class of that name."""
        if (module_name, global_name) not in self._admitted:
            raise _RefusedError(f'{module_name}.{global_name}')
        return self._admitted[module_name, global_name]
