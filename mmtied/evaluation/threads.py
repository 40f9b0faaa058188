"""Threads of the evaluation on a CPU: one for each operation, several for independent parts."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor


def for_each(work: Callable[[Tensor], None], parts: Sequence[Tensor], threads: int) -> None:
    """Do every part; on the CPU in that many threads."""
    if threads == 1 or len(parts) < 2 or parts[0].is_cuda:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, parts))


@contextmanager
def operations_in_one_thread() -> Iterator[int]:
    """Let each of torch's operations use one thread, and yield the number that it may use; also a decorator.

    An operation that threads share waits for the slowest of them. The evaluation consists of many small ones: on idle cores they
    gain nothing, and on busy ones they take up to ten times as long. Within another such block the number is 1.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
