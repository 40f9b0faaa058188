"""Files are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes the place of `path` when the block ends without an error.

    The temporary name keeps the suffix, so writers that choose a format by suffix work. On an error the temporary file is
    removed and whatever stood at `path` stays as it was. Parent folders are made.

    Example:
        >>> with atomic_path('/tmp/numbers.csv') as temporary:
        ...     _ = temporary.write_text('1,2,3')
        >>> Path('/tmp/numbers.csv').read_text()
        '1,2,3'
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


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
