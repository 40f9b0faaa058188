"""Processes for distributed tests, forked from one that has imported what they need, once for all tests of a worker."""

import multiprocessing
from collections.abc import Callable

from torch.multiprocessing import start_processes

#: As with 'spawn' the processes are clean, without the threads of the tests.
START = 'forkserver'
_PRELOADED = ['hypothesis', 'pytest', 'torch.distributed', 'mmengine.runner', 'mmengine.evaluator', 'torchmetrics',
              'mmtied.evaluation.metric', 'mmtied.evaluation.mean_ap', 'mmtied.training', 'mmtied.backbones']


def run_processes(function: Callable, arguments: tuple, number: int = 2) -> None:
    """Call ``function(rank, *arguments)`` in several processes, and raise the error of one that fails."""
    multiprocessing.set_forkserver_preload(_PRELOADED)
    start_processes(function, arguments, nprocs=number, start_method=START)
