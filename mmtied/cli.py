"""What every tool does with a user's mistake: one line on stderr and exit code 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Set this environment variable to see where an error came from.
TRACEBACK_VARIABLE = 'MMTIED_TRACEBACK'

_PACKAGE = str(Path(__file__).parent)
#: What a wrong setting raises in the libraries that read it.
_SETTING_ERRORS = (ValueError, ImportError, OSError, KeyError, TypeError, AttributeError, AssertionError)


@contextmanager
def user_errors(only_own: bool = False) -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2.

    With the environment variable ``MMTIED_TRACEBACK=1`` the error is raised as it is.

    Args:
        only_own: Leave errors alone that mmtied did not raise itself. For work that runs for hours, where an error from
            elsewhere is not a mistake in the settings and needs its traceback.
    """
    try:
        yield
    except _SETTING_ERRORS as error:
        own = _raised_here(error)
        if os.environ.get(TRACEBACK_VARIABLE) or (only_own and not own):
            raise
        message = _one_line(error)
        print(f'error: {message}' + ('' if own else f' ({TRACEBACK_VARIABLE}=1 shows where)'), file=sys.stderr)
        sys.exit(2)


def warn(message: str) -> None:
    """Tell the user on stderr, in one line, of something that may be a mistake; the work goes on."""
    print(f'warning: {message}', file=sys.stderr)


def _raised_here(error: BaseException | None) -> bool:
    """Whether the error, or one that mmengine wrapped into it, was raised by a line of this package."""
    while error is not None:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is not None and frame.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            return isinstance(error, ValueError | ImportError | OSError)
        error = error.__cause__ or error.__context__
    return False


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    message = ' '.join(str(error).split())
    return message if isinstance(error, ValueError | ImportError | OSError) else f'{type(error).__name__}: {message}'
