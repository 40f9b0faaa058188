"""Read pickles of tensors, arrays and plain containers without running what else a pickle may hold.

Unpickling calls whatever the file names and then changes what came of it, so a foreign .pkl file can run any program. Here a
name stands for an object of `pickle_parts`, which can be called with plain data and cannot be changed, and what it makes is
exchanged for tensors and arrays only when the pickle has ended.
"""

import os
import pickle
from pathlib import Path
from typing import Any

from .pickle_parts import Part, RefusedError, parts


def read_tensor_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickle of tensors, arrays of numbers, numbers, texts, lists, tuples, sets and dicts; tensors on the CPU.

    An OrderedDict comes as a dict, and tensors without their gradients and hooks.

    Raises:
        ValueError: The file is missing, empty, truncated or no pickle, or needs a class or function that is not admitted,
            which the message names.

    Example:
        >>> import tempfile, torch
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
            content = _Unpickler(file).load()
        return _settle(content, set(), {})
    except RefusedError as error:
        raise ValueError(f'{path}: refused, as the pickle needs {error}, and reading that could run foreign code; only tensors, '
                         'NumPy arrays of numbers and plain containers are read') from None
    except Exception as error:  # what a broken pickle raises depends on the byte where it breaks
        state = 'empty' if path.stat().st_size == 0 else 'not a complete pickle'
        raise ValueError(f'{path}: the file is {state} ({type(error).__name__}: {" ".join(str(error).split())})') from None


class _Unpickler(pickle.Unpickler):
    """An unpickler that looks every class and function up in a list instead of importing it."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._parts = parts()

    def find_class(self, module_name: str, global_name: str) -> Part:
        """The part of that name."""
        if (module_name, global_name) not in self._parts:
            raise RefusedError(f'{module_name}.{global_name}')
        return self._parts[module_name, global_name]


def _settle(value: Any, seen: set[int], tuples: dict[int, tuple]) -> Any:
    """The value with every part in it exchanged for what it holds; lists and dicts are changed in place.

    Args:
        value: What was unpickled.
        seen: Ids of the lists and dicts that were met.
        tuples: Each tuple that was met, which keeps its id taken, and what came of it, by id.
    """
    if isinstance(value, Part):
        return value.held()
    kind = type(value)
    if kind is tuple:
        if id(value) not in tuples:
            tuples[id(value)] = value, tuple([_settle(item, seen, tuples) for item in value])
        return tuples[id(value)][1]
    if kind not in (list, dict) or id(value) in seen:
        return value
    seen.add(id(value))
    for key, item in enumerate(value) if kind is list else value.items():
        if isinstance(item, list | dict):
            _settle(item, seen, tuples)
        elif isinstance(item, tuple | Part):
            value[key] = _settle(item, seen, tuples)
    return value
