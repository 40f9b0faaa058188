"""Read pickle and torch.save files without running code in them; the only module that unpickles.

Unpickling calls whatever a file names. Here a file may name only tensors and plain values, and in checkpoints also mmengine's
history of losses. `safe_loading` makes mmengine load with the same restrictions.
"""

import io
import mmap
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch

from .torch_compat import TENSOR_PARTS, full_name, has_named_safe_globals, only_safe_globals

#: First bytes of torch.save's old format, before zip files.
TORCH_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
#: Option of the tools that read checkpoints.
TRUST_FLAG = '--trust-checkpoint'
#: Elements that a tensor may have beyond its storage's, by repetition (`torch.Tensor.expand`).
MOST_REPEATED = 1 << 20
_CHECKPOINT = f'expected tensors and plain values, so save its state_dict alone, or use {TRUST_FLAG} if you trust its source'

_TRUSTED: ContextVar[bool] = ContextVar('trusted', default=False)
_TORCH_LOAD = torch.load
_REFUSED = re.compile(r'GLOBAL (\w+(?:\.\w+)*)')
#: Pickle's opcodes: regular expressions for arguments of fixed width, widths of length fields, and numbers of text lines.
_FIXED = [re.escape(op.code.encode('latin1')) + b'.' * (op.arg.n if op.arg else 0) for op in pickletools.opcodes
          if op.code not in 'r.' and (op.arg is None or op.arg.n >= 0)]
_COUNTED = {op.code.encode('latin1'): {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
                                       pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}[op.arg.n]
            for op in pickletools.opcodes if op.arg and op.arg.n < pickletools.UP_TO_NEWLINE}
_LINES = {op.code.encode('latin1'): 2 if 'pair' in op.arg.name else 1 for op in pickletools.opcodes
          if op.arg and op.arg.n == pickletools.UP_TO_NEWLINE}
#: Bytes that a zip file may unpack to beyond four times its size; torch.save does not compress.
_ZIP_MARGIN = 1 << 20


class RefusedError(ValueError):
    """Raised for a file that names a class or function that is not allowed."""


def unpickle(path: str | os.PathLike, names: Mapping[str, Any], content: bytes | None = None) -> Any:
    """Unpickle a file, or its `content`, which may name only the classes and functions in `names`, such as ``'numpy.dtype'``.

    Raises:
        RefusedError: The file names another one; the message is its name.
        Exception: The file is broken, or would fill the memory.
    """
    if content is not None:
        check_memo(content)
        return _restricted(names)(io.BytesIO(content)).load()
    with Path(path).open('rb') as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                check_memo(content)
        return _restricted(names)(file).load()


def _restricted(names: Mapping[str, Any]) -> type[pickle.Unpickler]:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = f'{"builtins" if module == "__builtin__" else module}.{name}'
            if full not in names:
                raise RefusedError(full)
            return names[full]

    return Unpickler


def check_memo(content: bytes | mmap.mmap) -> None:
    r"""Raise a ValueError if a pickle uses a memo index that only a longer pickle can need.

    pickle allocates all lower indices too, so nine bytes can take gigabytes.

    Example:
        >>> check_memo(b']r\x00\x00\x00\x10.')
        Traceback (most recent call last):
        ValueError: it stores object number 268435456, and is 7 bytes long
    """
    size = len(content)
    third, fourth = (min(255, size >> 16), 0) if size < 1 << 24 else (255, min(255, size >> 24))
    near = b'r..[\\x00-\\x%02x][\\x00-\\x%02x]' % (third, fourth)
    if not re.search(b'r(?!..[\\x00-\\x%02x][\\x00-\\x%02x])|p[0-9]{7}' % (third, fourth), content, re.DOTALL):
        return
    fixed = re.compile(b'(?:' + b'|'.join([near, *_FIXED]) + b'){0,1000}', re.DOTALL)
    place = 0
    while place < size:
        place = fixed.match(content, place).end()
        code = content[place:place + 1]
        if code in _COUNTED:
            width = _COUNTED[code]
            place += 1 + width + int.from_bytes(content[place + 1:place + 1 + width], 'little')
        elif code in _LINES:
            ends = place
            for _ in range(_LINES[code]):
                ends = content.find(b'\n', ends) + 1
                if not ends:
                    return  # truncated; pickle reports it
            if code == b'p' and int(content[place + 1:ends][:20] or b'0') > size:
                raise ValueError(f'it stores object number {content[place + 1:ends - 1][:20].decode()}, and is {size} bytes long')
            place = ends
        elif code == b'r' and place + 5 <= size:
            number = int.from_bytes(content[place + 1:place + 5], 'little')
            raise ValueError(f'it stores object number {number}, and is {size} bytes long')
        elif not fixed.match(content, place).end() > place:
            return  # the end, or an opcode that pickle refuses


def load_checkpoint(file: str | os.PathLike | IO[bytes], **settings: Any) -> Any:
    """Load a checkpoint of tensors, plain values and mmengine's history; any checkpoint inside a trusted `safe_loading`.

    Tensors are on the CPU, memory-mapped if possible, unless `settings` of `torch.load` override that.

    Raises:
        RefusedError: The file needs something else, which the message names.
        ValueError: The file is not a checkpoint, or would unpack to more than its size allows.
    """
    mapped = {'mmap': True} if isinstance(file, str | os.PathLike) and zipfile.is_zipfile(file) else {}
    return _load(file, {'map_location': 'cpu', **mapped, **settings}, history_parts(), _CHECKPOINT, _TRUSTED.get())


def load_tensors(file: str | os.PathLike | IO[bytes]) -> Any:
    """Load tensors and plain values onto the CPU; raises as `load_checkpoint`, and ignores `safe_loading`."""
    return _load(file, {'map_location': 'cpu'}, [], 'only tensors and plain containers are read', kind='torch file')


@contextmanager
def safe_loading(trusted: bool | None = None) -> Iterator[None]:
    """Make `torch.load` read checkpoints as `load_checkpoint` does inside the block.

    mmengine unpickles checkpoints without restrictions, and executes the config text in them when it resumes or infers. In the
    block pickle is restricted and that text is removed.

    Args:
        trusted: True reads any file, which runs the code in it. None inherits from an enclosing block, and is False without one.
    """
    def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None,
             **settings: Any) -> Any:
        content = _load(f, {'map_location': map_location, **settings}, history_parts(), _CHECKPOINT, _TRUSTED.get())
        return content if _TRUSTED.get() else _without_configs(content)

    before, token = torch.load, _TRUSTED.set(_TRUSTED.get() if trusted is None else trusted)
    torch.load = load
    try:
        yield
    finally:
        torch.load = before
        _TRUSTED.reset(token)


def history_parts() -> list[tuple[Any, str]]:
    """Return the classes and functions in mmengine's history of losses and metrics, each with its name in files."""
    from mmengine.logging import HistoryBuffer

    def history_method(history: HistoryBuffer, name: str) -> Callable:
        """Return the method of a statistic; histories use `getattr` for nothing else."""
        if not (isinstance(history, HistoryBuffer) or history is HistoryBuffer) or str(name).startswith('_'):
            raise pickle.UnpicklingError('Unsupported global: GLOBAL builtins.getattr')
        return getattr(history, name)

    # NumPy 1.26 also has `_core`, but it is empty until something imports from it.
    multiarray = (np.core if np.lib.NumpyVersion(np.__version__) < '2.0.0' else np._core).multiarray
    allowed = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': history_method,
        'builtins.slice': slice,
        'collections.Counter': Counter,  # a scheduler's milestones; newer releases of torch allow it themselves
        'numpy.dtype': np.dtype,
        'numpy.ndarray': np.ndarray,
        **{f'numpy.{core}.multiarray.{name}': getattr(multiarray, name)
           for core in ('core', '_core') for name in ('_reconstruct', 'scalar')},
        **{f'numpy.dtypes.{kind.__name__}': kind for kind in (type(np.dtype(code)) for code in '?bhilqBHILQefd')},
    }
    return [(value, name) for name, value in allowed.items()]


def _load(file: Any, settings: dict, allowed: Sequence[tuple[Any, str]], advice: str, trusted: bool = False,
          kind: str = 'checkpoint') -> Any:
    """Load a file with the restrictions that this torch supports."""
    is_path = isinstance(file, str | os.PathLike)
    shown = str(file) if is_path else 'the data'
    if is_path:
        _check_file(Path(file), kind)
        file = os.fspath(file)  # PyTorch 2.1 cannot memory-map a Path
    try:
        if trusted:
            return _TORCH_LOAD(file, weights_only=False, **settings)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Detected pickle protocol')
            content = _load_safely(file, settings, allowed)
        _check_sizes(content, set())
        return content
    except Exception as error:
        refused = [str(error)] if isinstance(error, RefusedError) else _REFUSED.findall(str(error))
        if refused:
            raise RefusedError(f'{shown}: refused, as it needs {refused[0]}, which could run arbitrary code; {advice}') from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) if isinstance(
            error, _TooLargeError) else 'expected a file that torch.save wrote'
        raise ValueError(f'{shown}: not a readable {kind}; {reason}') from error


def _load_safely(file: Any, settings: dict, allowed: Sequence[tuple[Any, str]]) -> Any:
    if has_named_safe_globals():
        with only_safe_globals(allowed):
            return _TORCH_LOAD(file, weights_only=True, **settings)
    # This torch's ``weights_only=True`` cannot allow more names.
    unpickler = _restricted({**{full_name(kind): kind for kind in TENSOR_PARTS}, **{name: value for value, name in allowed}})
    return _TORCH_LOAD(file, pickle_module=SimpleNamespace(
        __name__='pickle', Unpickler=unpickler, load=lambda file, **names: unpickler(file, **names).load()), **settings)


class _TooLargeError(Exception):
    pass


def _check_file(path: Path, kind: str) -> None:
    """Raise a ValueError for a zip file that would unpack to much more than its size."""
    if zipfile.is_zipfile(path):  # torch itself reports a missing file
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
        if unpacked > 4 * path.stat().st_size + _ZIP_MARGIN:
            raise ValueError(f'{path}: not a readable {kind}; it would unpack to {unpacked} bytes, and torch.save does not '
                             'compress')


def _check_sizes(value: Any, seen: set[int]) -> None:
    """Raise an error for a tensor that repeats its elements so often that it would fill the memory when used."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and value.device.type != 'meta' and (
                value.numel() > value.untyped_storage().nbytes() // value.element_size() + MOST_REPEATED):
            raise _TooLargeError(f'a tensor of shape {tuple(value.shape)} repeats its elements too often')
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        for item in dict.values(value) if isinstance(value, dict) else value:  # the file may have replaced `value.values`
            _check_sizes(item, seen)


def _without_configs(content: Any) -> Any:
    """Remove the configs from a checkpoint's content: mmengine executes them as Python."""
    for *path, name in (('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg')):
        part = content
        for key in path:
            part = dict.get(part, key) if isinstance(part, dict) else None
        if isinstance(part, dict):
            type(part).pop(part, name, None)
    return content
