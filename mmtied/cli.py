"""What every tool does with a user's mistake: one line on stderr and exit code 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Set this environment variable to see where an error came from.
TRACEBACK_VARIABLE = 'MMTIED_TRACEBACK'


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a ValueError, a missing file or a missing package into one line on stderr and exit code 2.

    With the environment variable ``MMTIED_TRACEBACK=1`` the error is raised as it is.
    """
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        sys.exit(_exit_with(error))


def _exit_with(error: Exception) -> int:
    message = ' '.join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        message = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    print(f'error: {message}', file=sys.stderr)
    return 2
