"""Read pickles of tensors, arrays and plain containers without running any code in them.

Unpickling calls whatever the file names, and its BUILD opcode changes objects through ``__setstate__`` or their attributes, so a
foreign .pkl file can run any program. Here every name resolves to a `Part`, which accepts only plain data and has fixed
attributes; parts are replaced by tensors and arrays once the whole pickle has been read.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtied.atomic import check_can_read
from mmtied.unpickling import MOST_REPEATED, RefusedError, load_tensors, unpickle

from .content import PACKED, read_bytes
from .faults import one_line


def read_tensor_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle, optionally gzipped, of tensors, arrays of numbers, numbers, strings and containers.

    Tensors are on the CPU, without gradients and hooks. An OrderedDict becomes a dict.

    Raises:
        ValueError: The file is missing, empty, truncated, not a pickle, or needs a class or function that is not allowed, which
            the message names.

    Example:
        >>> import pickle, tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'numbers.pkl')
        ...     _ = path.write_bytes(pickle.dumps([{'scores': torch.tensor([0.5, 1.])}]))
        ...     print(read_tensor_pickle(path))
        [{'scores': tensor([0.5000, 1.0000])}]
    """
    path = Path(path)
    check_can_read(path)
    with path.open('rb') as file:
        content = read_bytes(path) if file.read(2) == PACKED else None
    size = path.stat().st_size if content is None else len(content)
    try:
        return _settle(unpickle(path, parts(size), content), {})
    except RefusedError as error:
        raise ValueError(f'{path}: refused, as the pickle needs {error}, and reading that could run arbitrary code; only '
                         'tensors, NumPy arrays of numbers and plain containers are read') from None
    except Exception as error:  # a broken pickle can raise almost anything
        state = 'empty' if size == 0 else 'not a complete pickle'
        raise ValueError(f'{path}: the file is {state} ({type(error).__name__}: {one_line(error)})') from None


def _settle(value: Any, settled: dict[int, tuple]) -> Any:
    """Replace every part in a value by its content; lists and dicts are changed in place, once each.

    `settled` maps the id of each visited container to the container, which keeps the id in use, and its replacement.
    """
    if isinstance(value, Part):
        return value.restore()
    if id(value) in settled:
        return settled[id(value)][1]
    if isinstance(value, tuple):
        settled[id(value)] = value, tuple([_settle(item, settled) for item in value])
    elif isinstance(value, list | dict):
        settled[id(value)] = value, value
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            if isinstance(item, list | dict | tuple | Part):
                value[key] = _settle(item, settled)
    else:
        return value
    return settled[id(value)][1]


class Part:
    """Stand-in for an object while its pickle is read; the base class accepts no state, has no content and is not hashable."""

    __slots__ = ()
    __hash__ = None

    def __setstate__(self, state: Any) -> None:
        raise RefusedError(f'a change of {self._name()}')

    def restore(self) -> Any:
        """Return the object that replaces this part once the pickle has been read."""
        raise RefusedError(f'{self._name()} as a value')

    def _name(self) -> str:
        return type(self).__name__.strip('_').lower()


class _Function(Part):
    """Callable without attributes that a pickle could set."""

    __slots__ = ('_call', '_spend')

    def __init__(self, call: Callable, spend: Callable[[int], None]) -> None:
        self._call, self._spend = call, spend

    def __call__(self, *args: Any) -> Any:
        self._spend(sum(len(value) for value in args if hasattr(value, '__len__')))
        made = self._call(*args)
        if isinstance(made, _Tensor):
            self._spend(made.content.numel())
        elif isinstance(made, _Array):
            made.spend = self._spend
        return made


class _DType(Part):
    """Data type of numbers; its state may only set the byte order."""

    __slots__ = ('dtype',)

    def __init__(self, name: str, *_: bool) -> None:
        if not isinstance(name, str) or len(name) > 4 or np.dtype(name).kind not in 'biufc':
            raise RefusedError(f'the NumPy data type {str(name)[:40]!r}')
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
            raise RefusedError('a NumPy data type that is not of plain numbers')
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Part):
    """Array whose content is its state."""

    __slots__ = ('array', 'spend')

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, data = state[-4:]
        self.spend(len(data))
        self.array = _array(data, dtype, shape, 'F' if fortran else 'C')

    def restore(self) -> np.ndarray:
        return self.array


class _Storage(Part):
    """Memory of a tensor, not a value by itself."""

    __slots__ = ('content',)

    def __init__(self, content: torch.storage.TypedStorage | torch.Tensor) -> None:
        self.content = content


class _Tensor(_Storage):
    """Tensor, hidden from the pickle."""

    __slots__ = ()

    def restore(self) -> torch.Tensor:
        return self.content


def _sides(values: Sequence[int], name: str) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f'{name} must be a tuple of non-negative integers, got {str(values)[:40]}')
    return values


def _array(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str = 'C') -> np.ndarray:
    """Copy bytes to an array; for bool, any byte other than 0 is True."""
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _DType):
        raise RefusedError('an array that is not made of the bytes of numbers')
    of_bytes = np.dtype(np.uint8) if dtype.dtype.kind == 'b' else dtype.dtype
    if math.prod(_sides(shape, 'shape')) * of_bytes.itemsize != len(data):
        raise ValueError(f'{len(data)} bytes are not an array of shape {shape}')
    array = np.ndarray(shape, of_bytes, bytes(data), order=order)
    return array != 0 if dtype.dtype.kind == 'b' else array.copy(order)


def _buffer_array(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str,
                  axes: tuple[int, ...] | None = None) -> np.ndarray:
    """Safe version of NumPy's _frombuffer."""
    array = _array(data, dtype, shape, 'F' if order == 'F' else 'C')
    return array.transpose(axes) if order == 'K' and axes is not None else array


def _tensor_storage(data: bytes) -> _Storage:
    """Safe version of torch.storage._load_from_bytes, which would unpickle anything."""
    try:
        storage = load_tensors(io.BytesIO(data))
    except ValueError as error:
        raise RefusedError(f"a tensor whose bytes are not only a tensor's ({one_line(error)})") from None
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedError(f"a tensor whose bytes are not a tensor's but a {type(storage).__name__}")
    return _Storage(storage)


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    """Safe version of torch._utils._rebuild_tensor_v2, which would enlarge a storage that is too small."""
    if type(storage) is not _Storage:
        raise RefusedError('a tensor without a storage')
    given, elements = storage.content, math.prod(_sides(size, 'size'))
    tensor = torch.empty(0, dtype=given.dtype)
    there = given._untyped_storage.nbytes() // tensor.element_size()
    last = sum((count - 1) * step for count, step in zip(size, _sides(stride, 'stride'), strict=True))
    if elements > there + MOST_REPEATED or (elements and _sides((offset,), 'offset')[0] + last >= there):
        raise ValueError(f'a tensor of size {size} does not fit its storage of {there} elements')
    if not elements:
        return _Tensor(tensor.new_empty(size))
    tensor.set_(given._untyped_storage, offset, size, stride)  # untyped() warns
    return _Tensor(tensor.view(torch.uint8) != 0 if tensor.dtype == torch.bool else tensor)


def _latin1(text: str, encoding: str = 'latin1') -> bytes:
    """Return the bytes that old protocols write as text."""
    if encoding not in ('latin1', 'latin-1') or not isinstance(text, str):
        raise RefusedError('another encoding than latin1')
    return text.encode('latin1')


def _bytearray(content: str | bytes = b'', *encoding: str) -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _latin1(content, *encoding))


#: Bytes and elements that a pickle may create: per byte of the file, which it can reuse, and for any file.
_AMPLIFIED, _ALLOWANCE = 64, 1 << 26


def parts(size: int) -> dict[str, Part]:
    """Return the parts that a pickle may name, under the names of old and new library versions.

    The file's `size` in bytes limits the memory that it can take.
    """
    spent, limit = 0, _AMPLIFIED * size + _ALLOWANCE

    def spend(number: int) -> None:
        nonlocal spent
        spent += number
        if spent > limit:
            raise ValueError(f'more than {limit} bytes from a file of {size}')

    calls: dict[str, Callable] = {
        'collections.OrderedDict': lambda: {},
        '_codecs.encode': _latin1,
        'numpy.ndarray': lambda *_: _Array(),
        'numpy.dtype': _DType,
        'torch.storage._load_from_bytes': _tensor_storage,
        'torch._utils._rebuild_tensor_v2': _tensor,
        'builtins.set': set, 'builtins.frozenset': frozenset, 'builtins.complex': complex,
        'builtins.bytes': lambda: b'', 'builtins.bytearray': _bytearray}
    for package in ('numpy.core', 'numpy._core'):
        calls[f'{package}.multiarray._reconstruct'] = calls['numpy.ndarray']
        calls[f'{package}.multiarray.scalar'] = lambda dtype, data: _array(data, dtype, ())[()]
        calls[f'{package}.numeric._frombuffer'] = _buffer_array
    return {name: _Function(call, spend) for name, call in calls.items()}
