"""Seconds of several ways of doing something, measured in turns: A B C A B C ...

What else the machine does, or how warm it is, then meets all of them alike, and a ratio of two within one turn says more than
the ratio of two numbers taken minutes apart.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Spread(NamedTuple):
    """Median, lowest and highest of some values."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Spread':
        """The spread of values, of which there must be one at least."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """As the tables have it.

        Example:
            >>> Spread.of([3., 1., 2.]).text(1)
            '2.0 [1.0, 3.0]'
        """
        return f'{self.median:.{digits}f} [{self.lowest:.{digits}f}, {self.highest:.{digits}f}]'


@dataclass(frozen=True)
class Times:
    """What `time_in_turns` measured.

    Attributes:
        seconds: Seconds of one call, one value for each turn, by contender.
    """

    seconds: Mapping[str, Sequence[float]]

    def spread(self, name: str, scale: float = 1.) -> Spread:
        """Seconds of a call times `scale`."""
        return Spread.of(value * scale for value in self.seconds[name])

    def rate(self, name: str, items: int) -> Spread:
        """Items in a second, where a call handles `items` of them."""
        return Spread.of(items / value for value in self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """How many times the seconds of another contender this one took, turn by turn.

        Example:
            >>> Times({'a': [2., 6.], 'b': [1., 2.]}).ratio('a', to='b')
            Spread(median=2.5, lowest=2.0, highest=3.0)
        """
        return Spread.of(own / other for own, other in zip(self.seconds[name], self.seconds[to], strict=True))

    def fastest(self, names: Iterable[str]) -> str:
        """The contender with the lowest median."""
        return min(names, key=lambda name: self.spread(name).median)


def time_in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int, *, device: str = 'cpu',
                  least_seconds: float = .02, warmups: int = 2, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Measure each contender once a turn.

    Every contender first runs `warmups` times and then in larger and larger lots, until a lot takes `least_seconds`; lots of
    that size are what a turn measures.

    Args:
        contenders: Calls without arguments, by name.
        repeats: Number of turns.
        device: On CUDA the clock is read when the device has finished.
        least_seconds: What one measurement takes at least, against the clock's and the synchronisation's own cost.
        warmups: Calls before anything counts, 1 at least; the last of them is the first lot.
        clock: Seconds, as from `time.perf_counter`.

    Raises:
        ValueError: No turns or no warm-up.
    """
    if repeats < 1 or warmups < 1:
        raise ValueError(f'repeats={repeats}, warmups={warmups}: expected 1 at least of both')
    on_cuda = torch.device(device).type == 'cuda'

    def synchronize() -> None:
        if on_cuda:  # elsewhere a call has finished when it returns
            torch.cuda.synchronize(device)

    def measure(call: Callable[[], object], calls: int) -> float:
        synchronize()
        start = clock()
        for _ in range(calls):
            call()
        synchronize()
        return clock() - start

    lots = {}
    for name, call in contenders.items():
        for _ in range(warmups - 1):
            call()
        lots[name] = _lot(lambda calls: measure(call, calls), least_seconds)  # noqa: B023
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            seconds[name].append(measure(call, lots[name]) / lots[name])
    return Times(seconds)


def _lot(measure: Callable[[int], float], least_seconds: float) -> int:
    """How many calls take `least_seconds`, found by running them."""
    calls = 1
    while (taken := measure(calls)) < least_seconds:
        calls = max(2 * calls, min(int(calls * least_seconds / max(taken, 1e-9)), 100 * calls))
    return calls
