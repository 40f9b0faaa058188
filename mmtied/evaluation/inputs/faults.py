"""Collect invalid entries, and report them in one line or leave them out."""

import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

#: Maximum number of entries named in a message.
_MAX_NAMED = 3
#: True and false in files; -1 is Open Images' "unknown".
_YES, _NO = ('1', '1.0', 'true', 'yes'), ('', '0', '0.0', '-1', '-1.0', 'false', 'no', 'none', 'unspecified')


def as_flag(value: Any, where: str) -> bool:
    """Parse a boolean that a file states as a number or in words; `where` names it in messages.

    Example:
        >>> [as_flag(value, 'difficult') for value in ('True', 0, None, '1')]
        [True, False, False, True]
    """
    text = '' if value is None else str(value).strip().lower()
    if text not in (*_YES, *_NO):
        raise ValueError(f'{where} must be 0 or 1, got {shown(value)}')
    return text in _YES


class _Unusable:
    """Counts invalid parts of a source, and keeps the messages of the first ones by position.

    Args:
        source: Name of the list, file or folder in messages.
        skip: Leave out invalid parts instead of refusing the source; None if they cannot be left out.
    """

    def __init__(self, source: str, skip: bool | None = False) -> None:
        self.source, self.skip, self.num = source, skip, 0
        self._messages: dict[int, str] = {}

    def settle(self) -> str | None:
        """Describe and count the parts left out, or return None; raise a ValueError if they must not be left out."""
        if not self.num:
            return None
        first, is_one = self._messages[min(self._messages)], self.num == 1
        if self.skip:
            ends = 'is left out (skip_invalid):' if is_one else 'are left out (skip_invalid), the first:'
            return f'{self._count()} of {self.source} cannot be used and {ends} {first}'
        advice = '' if self.skip is None else f'; --skip-invalid (skip_invalid=True) leaves {"it" if is_one else "them"} out'
        raise ValueError((first if is_one else self._several()) + advice)

    def _places(self) -> list[int]:
        return sorted(self._messages)[:_MAX_NAMED]


class Faults(_Unusable):
    """Faulty entries of a list of length N.

    Attributes:
        bad: Marks faulty entries, shape (N,) bool.
        exempt: Marks entries whose later faults do not count, as they are left out anyway, shape (N,) bool.
    """

    def __init__(self, source: str, num: int, skip: bool | None = False) -> None:
        super().__init__(source, skip)
        self.bad, self.exempt = np.zeros((2, num), dtype=bool)

    def add(self, bad: np.ndarray, describe: Callable[[int], str]) -> None:
        """Mark entries as faulty, shape (N,) bool; `describe` returns the message of one, which follows ``source[index]``."""
        new = bad & ~self.bad & ~self.exempt
        for number in np.flatnonzero(new)[:_MAX_NAMED].tolist():
            self._messages[number] = f'{self.source}[{number}]{describe(number)}'
        self.bad |= new
        self.num = int(self.bad.sum())

    def _count(self) -> str:
        return f'{self.num} of {len(self.bad)} entries'

    def _several(self) -> str:
        first, *_ = places = self._places()
        return f'{self._messages[first]}; {self._count()} cannot be used, such as {", ".join(f"[{place}]" for place in places)}'


class Broken(_Unusable):
    """Unreadable records of a file or folder.

    Example:
        >>> broken = Broken('a.txt', skip=True)
        >>> for number, text in enumerate(('1', 'b', '3'), 1):
        ...     with broken.at(f'a.txt: line {number}'):
        ...         value = int(text)
        >>> broken.settle()
        "1 record of a.txt cannot be used and is left out (skip_invalid): a.txt: line 2: invalid literal for int() with \
base 10: 'b'"
    """

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Read one record; on an error, record it as broken and prefix the message with its location."""
        try:
            yield
        except Exception as error:
            if type(error).__name__ in _UNEXPECTED:
                self.add(f'{where}: a value is missing or of an unexpected kind ({type(error).__name__}: {one_line(error)})')
            elif isinstance(error, ValueError):
                message = str(error)
                self.add(message if message.startswith(where) else f'{where}: {message}')
            else:
                raise

    def add(self, message: str) -> None:
        """Count a broken record."""
        self.num += 1
        if self.num <= _MAX_NAMED:
            self._messages[self.num] = message

    def _count(self) -> str:
        return '1 record' if self.num == 1 else f'{self.num} records'

    def _several(self) -> str:
        return '; '.join([*(self._messages[place] for place in self._places()), f'{self._count()} cannot be used'])


#: Errors that values of an unexpected kind raise in Python or in a page's template.
_UNEXPECTED = ('KeyError', 'TypeError', 'AttributeError', 'IndexError', 'OverflowError', 'RecursionError', 'ZeroDivisionError',
               'UndefinedError')


class _Short(reprlib.Repr):
    """Abbreviates values of any size and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 6, 6, 4
        self.maxstring, self.maxother, self.maxlong = 80, 80, 60

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if value.bit_length() < 4000 else f'an integer of {value.bit_length()} bits'


_SHORT = _Short()


def shown(value: Any, longest: int = 100) -> str:
    r"""Return a value's repr for messages, in one line and shortened.

    Example:
        >>> shown('a'), shown([1] * 100), shown(10 ** 5000)
        ("'a'", '[1, 1, 1, 1, 1, 1, ...]', 'an integer of 16610 bits')
    """
    return one_line(_SHORT.repr(value), longest)


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Turn errors that values of an unexpected kind raise into a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in _UNEXPECTED:
            raise
        reason = 'it is nested too deeply' if isinstance(error, RecursionError) else f'{type(error).__name__}: {one_line(error)}'
        raise ValueError(f'{source}: cannot be read, as a value is of an unexpected kind ({reason})') from error


def one_line(text: object, longest: int = 160) -> str:
    r"""Return a text in one line, with the middle cut if it is long.

    Example:
        >>> one_line("a\n  b")
        'a b'
    """
    line = re.sub(r'\s+', ' ', str(text)).strip()
    return line if len(line) <= longest else f'{line[:longest // 2]} ... {line[-longest // 2:]}'
