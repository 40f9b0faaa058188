"""Shared by the command-line tools: common options, and user errors as one line on stderr with exit code 2.

Imports nothing heavy, so that --help is quick.
"""

import argparse
import gc
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .atomic import is_full_disk

if TYPE_CHECKING:
    from .analysis.example_images import Choice

#: Environment variable that turns tracebacks on.
TRACEBACK_VARIABLE = 'MMTIED_TRACEBACK'

_PACKAGE = str(Path(__file__).parent)
#: Exceptions that libraries raise for wrong settings.
_SETTING_ERRORS = (ValueError, ImportError, OSError, KeyError, TypeError, AttributeError, AssertionError, OverflowError)
#: Maximum length of an error or warning line; long values from files are cut.
LONGEST = 300
#: Seconds that ranks other than 0 wait before they report an error.
SECONDS = 5
#: Seconds that a rank waits for the launcher to end it after a peer has died.
SECONDS_TO_END = 30
#: Exceptions that mmtied raises for user errors; any other exception from its own code is a bug.
_USER_ERRORS = (ValueError, ImportError, OSError)


@contextmanager
def user_errors(only_own: bool = False, after_interrupt: Callable[[], str] | None = None,
                longest: int = LONGEST) -> Iterator[None]:
    """Turn a user error into one line on stderr and exit code 2, and Ctrl-C into one line and exit code 130.

    Set the environment variable ``MMTIED_TRACEBACK=1`` to see the traceback instead.

    Args:
        only_own: Catch only mmtied's own errors and full disks. Once training runs, any other error is a bug or a hardware
            fault, and needs its traceback.
        after_interrupt: Returns a hint on how to continue, printed after Ctrl-C.
        longest: Maximum length of the line; longer ones lose their middle.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # for example `mmtied eval ... | head`
        if only_own:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print('\nstopped by Ctrl-C' + (f'; {after_interrupt()}' if after_interrupt else ''), file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if _lost_other_process(error):
            time.sleep(SECONDS_TO_END)  # the failed process reports the cause, and the launcher ends this one
        if os.environ.get(TRACEBACK_VARIABLE) or not (isinstance(error, RecursionError) or is_out_of_memory(error)):
            raise
        reason, text = 'nested too deeply' if isinstance(error, RecursionError) else 'out of memory', ' '.join(str(error).split())
        _exit(f'error: {reason}{f" ({text})" if text else ""} ({TRACEBACK_VARIABLE}=1 shows where)', longest)
    except _SETTING_ERRORS as error:
        own = is_own(error)
        if os.environ.get(TRACEBACK_VARIABLE) or (only_own and not own and not is_full_disk(error)):
            raise
        _exit(f'error: {_one_line(error)}' + ('' if own else f' ({TRACEBACK_VARIABLE}=1 shows where)'), longest)


def _exit(line: str, longest: int) -> None:
    """Print a line and exit with code 2; rank 0 goes first, after which the launcher ends the others."""
    if os.environ.get('RANK', '0') != '0' and os.environ.get('WORLD_SIZE', '1') != '1':
        time.sleep(SECONDS)
    print(_short(line, longest), file=sys.stderr)
    sys.exit(2)


def _lost_other_process(error: BaseException) -> bool:
    """Return True if an error reports that another process of a distributed run has died."""
    return os.environ.get('WORLD_SIZE', '1') != '1' and any(text in str(error) for text in (
        'Connection closed by peer', 'Connection reset by peer', 'remote worker', 'Broken pipe', 'Connection was likely closed'))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error reports that the machine or a GPU is out of memory."""
    return isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError' or (
        isinstance(error, RuntimeError) and 'allocate' in str(error) and 'memory' in str(error))


def warn(message: str) -> None:
    """Print a one-line warning about a possible mistake on stderr."""
    print(_short(f'warning: {message}'), file=sys.stderr)


@contextmanager
def full_disk_named(folder: str | os.PathLike) -> Iterator[None]:
    """Add a folder to full-disk errors that name no file, and turn logging's tracebacks on a full disk into one warning."""
    handle, warned = logging.Handler.handleError, []

    def warn_once(handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not is_full_disk(error):
            handle(handler, record)
        elif not warned:
            warned.append(handler)
            warn(f'{getattr(handler, "baseFilename", folder)}: {error.strerror}; lines of the log are lost')

    logging.Handler.handleError = warn_once
    try:
        yield
    except OSError as error:
        if is_full_disk(error) and error.filename is None:
            error.filename = str(folder)
        raise
    finally:
        logging.Handler.handleError = handle


class _BufferedStream:
    """Stream that writes to `target`: a buffer at first, later the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.target = stream, io.StringIO()

    def __getattr__(self, name: str) -> object:
        return getattr(self.target if name in ('write', 'writelines', 'flush') else self.stream, name)


@contextmanager
def log_after_checks(work_dir: str = '.') -> Iterator[None]:
    """Buffer stdout until the block ends, and drop it on a user error, so that the user sees only the error line.

    mmengine prints the whole config, hundreds of lines, before it builds anything; the log file still gets it. Full-disk errors
    that name no file name the work_dir.
    """
    stream, buffered = sys.stdout, _BufferedStream(sys.stdout)
    sys.stdout = buffered  # mmengine's logger keeps it
    try:
        with full_disk_named(work_dir):
            yield
    except BaseException as error:
        one_line = isinstance(error, _SETTING_ERRORS) or is_out_of_memory(error)
        if one_line and not os.environ.get(TRACEBACK_VARIABLE):
            buffered.target = io.StringIO()
        raise
    finally:
        waiting, buffered.target, sys.stdout = buffered.target.getvalue(), stream, stream
        stream.write(waiting)


def _short(line: str, longest: int = LONGEST) -> str:
    """Cut the middle of a long line, and escape characters that the terminal cannot encode."""
    line = line.encode(sys.stderr.encoding or 'utf-8', 'backslashreplace').decode(sys.stderr.encoding or 'utf-8')
    return line if len(line) <= longest else f'{line[:longest * 2 // 3 - 5]} ... {line[-(longest // 3):]}'


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print Python's warnings as `warn` does, without their source location."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: warn(' '.join(str(message).split()))
        yield


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause garbage collection, which slows importing PyTorch and building millions of objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def repository_path(name: str) -> Path:
    """Return a path in ``configs`` or ``tools``, in the clone that the package is imported from or in the wheel's copy."""
    package = Path(__file__).parent
    is_clone = (package.parent / 'setup.py').is_file() and (package.parent / name).exists()
    return (package.parent if is_clone else package / '.mim') / name


def is_own(error: BaseException | None) -> bool:
    """Return True if this package or its scripts raised the error, or the one that mmengine wrapped in it."""
    own = (_PACKAGE, *(str(repository_path(folder)) for folder in ('tools', 'experiments')))
    while error is not None:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is not None and frame.tb_frame.f_code.co_filename.startswith(own):
            return isinstance(error, _USER_ERRORS)
        error = error.__cause__ or error.__context__
    return False


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    message = ' '.join(str(error).split())
    return message if isinstance(error, _USER_ERRORS) else f'{type(error).__name__}: {message}'


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument for a config."""
    parser.add_argument('config', help='config file, or package::folder/file.py for one inside a package (mmdet::...)')


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for several networks and their names."""
    parser.add_argument('networks', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='config and checkpoint of each network; a config may be package::folder/file.py')
    parser.add_argument('--names', nargs='+', help='name of each network in the figure')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option for the device on which networks run."""
    parser.add_argument('--device', help='for example cuda:1 (default: a GPU if there is one)')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of tools that read a config and a checkpoint."""
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help="override settings of the config, for example model.backbone.depth=101 'data.list=[a,b]'")
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option to load checkpoints that can run code."""
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='also read checkpoints with more than tensors and plain values, which can run the code inside')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the options for distributed runs; launchers pass the rank."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_choice(parser: argparse.ArgumentParser, count: int) -> None:
    """Add the options for choosing images by occlusion and for reading annotations."""
    from .evaluation.options import add_ratio_options, add_reading_options
    parser.add_argument('--bucket', nargs=2, type=float, default=(.8, .9), metavar=('LOW', 'HIGH'),
                        help='images with LOW <= r < HIGH (default: 0.8 0.9); 0 0 for images without occlusion')
    parser.add_argument('--num', type=int, default=count, help=f'number of images ({count})')
    parser.add_argument('--seed', type=int, default=0, help='random seed for choosing the images (0)')
    parser.add_argument('--skip-missing', action='store_true', help='skip images whose files are missing')
    add_ratio_options(parser)
    add_reading_options(parser)


def choice_of(args: argparse.Namespace) -> 'Choice':
    """Return the choice of images that the options of `add_choice` state."""
    from .analysis.example_images import Choice
    from .evaluation.buckets import bucket_between
    check_sampling(args.num, args.seed)
    return Choice(bucket_between(*args.bucket), args.num, args.definition, args.same_category, args.seed, args.skip_missing)


def check_sampling(num: int, seed: int) -> None:
    """Raise a ValueError unless --num is at least 1 and --seed at least 0."""
    if num < 1:
        raise ValueError(f'--num {num}: expected at least 1')
    if seed < 0:
        raise ValueError(f'--seed {seed}: expected 0 or more')
