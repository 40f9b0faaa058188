"""What the tools print around a run: a user error's line without the log before it, and Ctrl-C."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from mmtied.cli import full_disk_named, is_user_error


class _Held:
    """A stream that keeps what is written until it is released, and then passes it on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.kept: list[str] | None = []

    def write(self, text: str) -> int:
        if self.kept is None:
            return self.stream.write(text)
        self.kept.append(text)
        return len(text)

    def flush(self) -> None:
        if self.kept is None:
            self.stream.flush()

    def release(self) -> None:
        kept, self.kept = self.kept, None
        self.stream.write(''.join(kept or []))

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def log_after_checks(work_dir: str = '.') -> Iterator[None]:
    """Hold what is printed on stdout until the block is left; a user error's line then stands alone.

    mmengine logs a config of hundreds of lines before it builds anything. The log file has it in any case.

    Args:
        work_dir: Folder of the run, which errors of a full disk name where they name no file.
    """
    stream, held = sys.stdout, _Held(sys.stdout)
    sys.stdout = held  # mmengine's logger keeps it
    try:
        with full_disk_named(work_dir):
            yield
    except BaseException as error:
        if is_user_error(error):
            held.kept = []
        raise
    finally:
        sys.stdout = stream
        held.release()
