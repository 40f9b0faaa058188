"""Wait for the other processes of a distributed run, and name the one that hangs instead of waiting for the group's timeout.

A thread of each process publishes in the group's store how much CPU time the process has used. One that is late and works, such
as the main process while it computes a large evaluation, is waited for; one that is late and has done nothing for a minute hangs.
"""

import atexit
import os
import threading
import time

from mmengine.dist import get_dist_info
from torch import distributed as torch_dist

#: Environment variable with the seconds after which a process that does nothing counts as hanging.
PATIENCE_VARIABLE = 'MMTIED_PATIENCE'
_DEFAULT_PATIENCE = 60.
#: A process works if it uses this share of a core; its threads that only wait use less.
_LEAST_SHARE = .01
#: Seconds between two publications, and those that the end of the process waits for one.
_INTERVAL, _LAST_WAIT = 1., 5.
_KEY = 'mmtied/meeting'


def meet(where: str) -> None:
    """Wait until all processes have come here; all must call it in the same order, and `where` says in messages what they do.

    Raises:
        ValueError: A process has not come and has done nothing for a minute, or as long as ``MMTIED_PATIENCE`` says. Every
            process that waits raises it.
    """
    rank, world_size = get_dist_info()
    if world_size > 1:
        publish_work()
        wait_for_others(_store(), rank, world_size, where, float(os.environ.get(PATIENCE_VARIABLE, _DEFAULT_PATIENCE)))


def wait_for_others(store: 'torch_dist.Store', rank: int, world_size: int, where: str, patience: float) -> None:
    """Do what `meet` does: the main process watches the others, and they watch the main process.

    Only `store.add` is used, which never waits; adding 0 reads a number.
    """
    number, key = store.add(f'{_KEY}/arrived/{rank}', 1), 'released' if rank else 'arrived'
    watched, seen, pause = list(range(1, world_size)) if rank == 0 else [0], {}, .001
    while True:
        now = time.monotonic()
        watched = [other for other in watched if store.add(f'{_KEY}/{key}/{other}', 0) < number]
        if not watched:
            break
        if rank == 0:  # it waits, and does not hang
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
    """Start the thread that publishes this process's CPU time, unless it runs or there is only one process.

    It ends with its store, and is stopped before the interpreter ends, which would end it inside the store's C++ code and so
    abort the process.
    """
    global _publisher, _publishing_in
    rank, world_size = get_dist_info()
    if world_size > 1 and not (_publisher and _publisher.is_alive() and _publishing_in is _store()):
        ends, _publishing_in = threading.Event(), _store()
        _publisher = threading.Thread(target=_publish, args=(_publishing_in, rank, ends), daemon=True)
        _publisher.start()
        atexit.register(_publisher.join, _LAST_WAIT)
        atexit.register(ends.set)  # called before the other


def _publish(store: 'torch_dist.Store', rank: int, ends: threading.Event) -> None:
    """Publish the CPU time of this process every second until its store is gone, or the process ends."""
    published = 0
    while not ends.is_set() and torch_dist.is_initialized() and _store() is store:
        worked = _units(time.process_time())
        try:
            store.add(f'{_KEY}/worked/{rank}', worked - published)
        except RuntimeError:  # the process that keeps the store has ended
            return
        published = worked
        ends.wait(_INTERVAL)


_publisher, _publishing_in = None, None


def _units(seconds: float) -> int:
    """Return seconds in the units that are published."""
    return round(1000 * seconds)


def _store() -> 'torch_dist.Store':
    return torch_dist.distributed_c10d._get_default_store()
