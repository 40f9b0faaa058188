"""Write files and folders atomically: whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes the place of `path` when the block ends without an error.

    The temporary name keeps the suffix, for writers that choose a format by it. On an error the temporary file is removed and
    `path` stays as it was. Missing parent folders are created.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(f'{folder}/numbers.csv') as temporary:
        ...         _ = temporary.write_text('1,2,3')
        ...     print(Path(folder, 'numbers.csv').read_text())
        1,2,3
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}.', suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes the place of `path` when the block ends without an error.

    On an error the temporary folder is removed and `path` stays as it was. Missing parent folders are created.

    Args:
        path: Folder to create. It may exist if it is empty.
        overwrite: Replace a folder that is not empty.

    Raises:
        FileExistsError: `path` is a file, or a folder that is not empty and `overwrite` is not set.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f'{path} is a file; name a folder')
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileExistsError(f'{path} is not empty; name another folder, or empty this one')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as temporary:
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


def check_can_write(path: str | os.PathLike, flag: str, folder: bool = False) -> None:
    """Raise a ValueError unless a file, or the files of a folder, can be written; nothing is made.

    Args:
        path: File or folder; it and folders above it may be missing.
        flag: Name of the argument that gave the path, for the message.
        folder: Whether `path` is a folder.

    Example:
        >>> check_can_write('/dev/null/report.json', '--out')
        Traceback (most recent call last):
        ValueError: --out /dev/null/report.json: cannot be written, as /dev/null is not a folder
    """
    path = Path(path)
    if not folder and path.is_dir():
        raise ValueError(f'{flag} {path}: is a folder, a file is needed')
    place = path.absolute() if folder else path.absolute().parent
    while not place.exists() and place != place.parent:  # a missing drive of Windows is its own parent
        place = place.parent
    if not place.is_dir():
        raise ValueError(f'{flag} {path}: cannot be written, as {place} is not a folder')
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f'{flag} {path}: cannot be written, as there is no permission to write into {place}')


def _umask() -> int:
    """Return the umask of the process, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
