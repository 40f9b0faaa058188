"""Run the evaluation on several CPU threads, and synchronize the processes of a distributed run.

`meet` is a barrier that names the process that hangs instead of waiting for the group's timeout. A thread of each process
publishes the process's CPU time in the group's store. A late process whose CPU time grows is waited for, such as the main process
while it computes a large evaluation; one that has used none for a minute counts as hanging.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as torch_dist

#: Environment variable: seconds without work after which a process counts as hanging.
PATIENCE_VARIABLE = 'MMTIED_PATIENCE'
_DEFAULT_PATIENCE = 60.
#: Share of a core above which a process counts as working; threads that only wait use less.
_LEAST_SHARE = .01
#: Seconds between two publications, and seconds that the interpreter waits at exit for the publishing thread.
_INTERVAL, _LAST_WAIT = 1., 5.
_KEY = 'mmtied/meeting'
_outer_threads: int | None = None  # thread count outside the outermost `operations_in_one_thread`


def for_each(work: Callable[[Tensor], None], parts: Sequence[Tensor], threads: int) -> None:
    """Call `work` on every part, on the CPU in `threads` threads."""
    if threads == 1 or len(parts) < 2 or parts[0].is_cuda:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, parts))


@contextmanager
def operations_in_one_thread() -> Iterator[int]:
    """Run each torch operation in one thread; yield the previous thread count. Also works as a decorator.

    The evaluation consists of many small operations, and a multithreaded operation waits for its slowest thread: on idle cores
    threads gain nothing, on busy cores they take up to ten times as long. A nested block yields 1.
    """
    global _outer_threads
    outer, threads = _outer_threads, torch.get_num_threads()
    _outer_threads = outer or threads
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
        _outer_threads = outer


def available_threads() -> int:
    """Return the thread count outside `operations_in_one_thread`, for long loops that share their work dynamically."""
    return _outer_threads or torch.get_num_threads()


def meet(where: str) -> None:
    """Wait for all processes. Every process must call it in the same order; `where` describes the step in messages.

    Raises:
        ValueError: A missing process has done nothing for ``MMTIED_PATIENCE`` seconds (60). Every waiting process raises it.
    """
    rank, world_size = _rank_and_world_size()
    if world_size > 1:
        publish_work()
        wait_for_others(_store(), rank, world_size, where, float(os.environ.get(PATIENCE_VARIABLE, _DEFAULT_PATIENCE)))


def wait_for_others(store: 'torch_dist.Store', rank: int, world_size: int, where: str, patience: float) -> None:
    """Implement `meet`: the main process watches the others, and they watch the main process.

    Only `store.add` is used, as it never blocks; adding 0 reads a number.
    """
    number, key = store.add(f'{_KEY}/arrived/{rank}', 1), 'released' if rank else 'arrived'
    watched, seen, pause = list(range(1, world_size)) if rank == 0 else [0], {}, .001
    while True:
        now = time.monotonic()
        watched = [other for other in watched if store.add(f'{_KEY}/{key}/{other}', 0) < number]
        if not watched:
            break
        if rank == 0:  # waiting counts as work
            store.add(f'{_KEY}/worked/0', _units(pause))
        for other in watched:
            worked = store.add(f'{_KEY}/worked/{other}', 0)
            if other not in seen or worked - seen[other][0] >= _units(patience * _LEAST_SHARE):
                seen[other] = worked, now
        idle = [other for other in watched if now - seen[other][1] > patience]
        culprit = store.add(f'{_KEY}/culprit', idle[0] + 1 if idle and rank == 0 else 0) - 1
        if culprit >= 0 or idle:
            raise ValueError(f'{where}: process {culprit if culprit >= 0 else idle[0]} of {world_size} hangs or has ended, '
                             f'as it has done nothing for {patience:g} seconds; {PATIENCE_VARIABLE}=600 waits longer')
        time.sleep(pause)
        pause = min(2 * pause, .5, patience / 20)
    if rank == 0:
        store.add(f'{_KEY}/released/0', 1)


def publish_work() -> None:
    """Start the thread that publishes this process's CPU time, unless it is running or there is only one process.

    The thread ends with its store. It is stopped before the interpreter exits: killed inside the store's C++ code, it would abort
    the process.
    """
    global _publisher, _publishing_in
    rank, world_size = _rank_and_world_size()
    if world_size > 1 and not (_publisher and _publisher.is_alive() and _publishing_in is _store()):
        ends, _publishing_in = threading.Event(), _store()
        _publisher = threading.Thread(target=_publish, args=(_publishing_in, rank, ends), daemon=True)
        _publisher.start()
        atexit.register(_publisher.join, _LAST_WAIT)
        atexit.register(ends.set)  # exit handlers run in reverse order


def _publish(store: 'torch_dist.Store', rank: int, ends: threading.Event) -> None:
    """Publish this process's CPU time every second until its store is gone or the process ends."""
    published = 0
    while not ends.is_set() and torch_dist.is_initialized() and _store() is store:
        worked = _units(time.process_time())
        try:
            store.add(f'{_KEY}/worked/{rank}', worked - published)
        except RuntimeError:  # the process that hosts the store has ended
            return
        published = worked
        ends.wait(_INTERVAL)


_publisher, _publishing_in = None, None


def _units(seconds: float) -> int:
    """Convert seconds to milliseconds, the unit of the store."""
    return round(1000 * seconds)


def _rank_and_world_size() -> tuple[int, int]:
    if not torch_dist.is_available() or not torch_dist.is_initialized():
        return 0, 1
    return torch_dist.get_rank(), torch_dist.get_world_size()


def _store() -> 'torch_dist.Store':
    return torch_dist.distributed_c10d._get_default_store()
