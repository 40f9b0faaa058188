"""Write files and folders atomically, and check paths before anything is written."""

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and killed processes leave temporary files behind
    fcntl = None

#: Name prefix of temporary folders.
_PREFIX = '.mmtied-'


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces `path` when the block ends without an error.

    The temporary name keeps the suffix, for writers that choose a format by it. On an error the temporary file is removed and
    `path` is unchanged. Missing parent folders are created.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(f'{folder}/numbers.csv') as temporary:
        ...         _ = temporary.write_text('1,2,3')
        ...     print(Path(folder, 'numbers.csv').read_text())
        1,2,3
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_temporary = path.parent.name.startswith(_PREFIX)  # already locked by this process: locking it again would deadlock
    with ExitStack() as named:
        named.enter_context(_naming(path))
        with nullcontext() if is_temporary else _locked(path.parent):  # no other process may sweep it before it is locked
            if not is_temporary:
                _sweep(path.parent, re.compile(re.escape(f'.{path.stem}.') + r'[a-z0-9_]{8}' + re.escape(path.suffix)))
            temporary = path.with_name(f'.{path.stem}.{secrets.token_hex(4)}{path.suffix}')
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            named.enter_context(_naming(path, temporary))
            if fcntl is None:
                os.close(handle)  # Windows cannot move open files
            else:
                _lock(handle)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            if fcntl is not None:
                os.close(handle)


def save_text(path: str | os.PathLike, text: str) -> Path:
    """Write text as UTF-8 atomically, and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
    return Path(path)


@contextmanager
def atomic_files(folder: str | os.PathLike, last: str, replaces: str) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block ends without an error.

    On an error nothing in `folder` changes. The file `last` is removed before the others move and moves last: if it exists, the
    set is complete and from one run, even if a process was killed. Concurrent processes move their files one after the other.
    Existing files that the block did not write are removed if their names match the pattern `replaces`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder), ExitStack() as in_use:
        with _locked(folder):  # no other process may sweep the new folder before it is locked
            _sweep(folder, re.compile(re.escape(_PREFIX) + r'[a-z0-9_]{8}'))
            temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_PREFIX))
            in_use.enter_context(_locked(temporary))
        in_use.enter_context(_naming(folder, temporary))
        try:
            yield temporary
            written = sorted(temporary.iterdir(), key=lambda file: file.name == last)
            for file in written:
                if (folder / file.name).is_dir():
                    raise IsADirectoryError(f'{folder / file.name} is a folder; remove it, or name another folder to write')
            with _locked(folder):
                (folder / last).unlink(missing_ok=True)
                for old in list(folder.iterdir()):
                    if re.fullmatch(replaces, old.name) and old.is_file() and not (temporary / old.name).exists():
                        old.unlink()
                for file in written:
                    file.replace(folder / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that replaces `path` when the block ends without an error.

    On an error the temporary folder is removed and `path` is unchanged. Missing parent folders are created; a non-empty folder is
    replaced only with `overwrite`.
    """
    path = real_path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f'{path} is a file; name a folder')
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileExistsError(f'{path} is not empty; name another folder, or empty this one')
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as temporary, \
            _naming(path, Path(temporary, 'new')):
        folder = Path(temporary, 'new')
        folder.mkdir()
        yield folder
        old = Path(temporary, 'old')
        try:
            if path.exists():
                path.rename(old)
            folder.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise


def is_full_disk(error: BaseException) -> bool:
    """Return True if an error reports a full disk, or an exceeded quota or file-size limit."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def real_path(path: str | os.PathLike) -> Path:
    """Return an absolute path with symbolic links resolved; unlike Path.resolve, accepts links that form a loop."""
    return Path(os.path.realpath(path))


def check_can_read(path: str | os.PathLike, name: str | None = None) -> None:
    """Raise a ValueError unless a path is a regular, readable file; the message uses `name` (default: the path).

    Example:
        >>> check_can_read('/dev/null')
        Traceback (most recent call last):
        ValueError: /dev/null: is a pipe or a device, expected a file
    """
    name = str(path) if name is None else name
    if os.path.isdir(path):  # noqa: PTH112, unlike Path.is_dir it returns False for names that are too long
        raise ValueError(f'{name}: is a folder, expected a file')
    if not os.path.exists(path):  # noqa: PTH110
        raise ValueError(f'{name}: no such file')
    if not os.path.isfile(path):  # noqa: PTH113
        raise ValueError(f'{name}: is a pipe or a device, expected a file')
    if not os.access(path, os.R_OK):
        raise ValueError(f'{name}: cannot be read, permission denied')


def check_can_write(path: str | os.PathLike, flag: str, folder: bool = False) -> None:
    """Raise a ValueError unless a file, or files in a folder, can be written; creates nothing, and folders may be missing.

    Example:
        >>> check_can_write('/dev/null/report.json', '--out')
        Traceback (most recent call last):
        ValueError: --out /dev/null/report.json: cannot be written, as /dev/null is not a folder
    """
    path = Path(path)
    if not folder and path.is_dir():
        raise ValueError(f'{flag} {path}: expected a file, got a folder')
    place = path.absolute() if folder else path.absolute().parent
    while not place.exists() and place != place.parent:  # on Windows a missing drive is its own parent
        place = place.parent
    if not place.is_dir():
        raise ValueError(f'{flag} {path}: cannot be written, as {place} is not a folder')
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f'{flag} {path}: cannot be written, no permission to write into {place}')


@contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name `path` in OSErrors that name no file, such as a full disk, or that name its temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        elif temporary is not None and isinstance(error.filename, str):
            error.filename = error.filename.replace(str(temporary), str(path))
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process, waiting for other processes to release it."""
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if handle is not None:
            _lock(handle)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int, wait: bool = True) -> bool:
    """Try to lock an open file or folder and return True on success; without file-system locks, return `wait`."""
    if fcntl is None:
        return wait
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return wait
    return True


def _sweep(folder: Path, name: re.Pattern) -> None:
    """Remove temporary files and folders that killed processes left; running processes hold a lock on theirs."""
    for path in [path for path in folder.iterdir() if name.fullmatch(path.name)] if fcntl else ():
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # already gone, or not ours to open
            continue
        try:
            if _lock(handle, wait=False):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        finally:
            os.close(handle)
