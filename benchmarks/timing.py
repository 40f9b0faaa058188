"""Time several implementations in alternation (A B C A B C ...) and count peak memory in PyTorch's allocator.

Contenders that take turns run under the same load and temperature, so their ratio within a turn is more reliable than the ratio
of two numbers measured minutes apart.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
_CPU_DEVICE_TYPE = 0  # as numbered in the profiler's trace

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # otherwise the profiler writes to stderr


class Spread(NamedTuple):
    """Median, minimum and maximum of repeated measurements."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Spread':
        """Return the spread of a non-empty collection."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """Format as ``median [lowest, highest]``.

        Example:
            >>> Spread.of([3., 1., 2.]).text(1)
            '2.0 [1.0, 3.0]'
        """
        return f'{self.median:.{digits}f} [{self.lowest:.{digits}f}, {self.highest:.{digits}f}]'


@dataclass(frozen=True)
class Times:
    """Result of `time_in_turns`.

    Attributes:
        seconds: Seconds per call, one value per turn, by contender.
    """

    seconds: Mapping[str, Sequence[float]]

    def spread(self, name: str, scale: float = 1.) -> Spread:
        """Return the seconds per call, multiplied by `scale`."""
        return Spread.of(value * scale for value in self.seconds[name])

    def rate(self, name: str, items: int) -> Spread:
        """Return items per second of a contender whose call processes `items` of them."""
        return Spread.of(items / value for value in self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Divide a contender's seconds by another's, turn by turn.

        Example:
            >>> Times({'a': [2., 6.], 'b': [1., 2.]}).ratio('a', to='b')
            Spread(median=2.5, lowest=2.0, highest=3.0)
        """
        return Spread.of(own / other for own, other in zip(self.seconds[name], self.seconds[to], strict=True))


def time_in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int, *, device: str = 'cpu',
                  least_seconds: float = .02, warmups: int = 2, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Time each contender once per turn.

    After its warm-up each contender runs in batches of increasing size until one batch takes `least_seconds`; every turn then
    times a batch of that size.

    Args:
        contenders: Calls without arguments, by name.
        repeats: Number of turns.
        device: On CUDA the clock is read after synchronisation.
        least_seconds: Minimum duration of one measurement, which keeps clock and synchronisation overhead small.
        warmups: Calls before timing, at least 1; the last one is the first batch.
        clock: Returns seconds, like `time.perf_counter`.

    Returns:
        Seconds per call of each contender and turn.

    Raises:
        ValueError: `repeats` or `warmups` is below 1.
    """
    if repeats < 1 or warmups < 1:
        raise ValueError(f'time_in_turns: repeats={repeats} and warmups={warmups} must be 1 or more')

    def measure(call: Callable[[], object], calls: int) -> float:
        synchronize(device)
        start = clock()
        for _ in range(calls):
            call()
        synchronize(device)
        return clock() - start

    sizes = {}
    for name, call in contenders.items():
        for _ in range(warmups - 1):
            call()
        sizes[name] = _batch_size(lambda calls: measure(call, calls), least_seconds)  # noqa: B023
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            seconds[name].append(measure(call, sizes[name]) / sizes[name])
    return Times(seconds)


def synchronize(device: str) -> None:
    """Wait for the device; a no-op on the CPU."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def peak_bytes(call: Callable[[], object], device: str = 'cpu') -> int:
    """Measure the peak memory that a call allocates on top of existing memory.

    The count is exact and reproducible: the CUDA allocator keeps it, and on a CPU the profiler sees every allocation, oneDNN's
    workspaces included. Resident memory of the process would also include pages that malloc holds back.

    Example:
        >>> peak_bytes(lambda: torch.zeros(1000, dtype=torch.uint8) + torch.ones(1000, dtype=torch.uint8))
        3000
    """
    if torch.device(device).type == 'cuda':
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding='utf-8'))['traceEvents']
        events = [event['args'] for event in trace if event.get('name') == '[memory]']
    events = [event for event in events if event['Device Type'] == _CPU_DEVICE_TYPE]
    before = events[0]['Total Allocated'] - events[0]['Bytes'] if events else 0
    return max((event['Total Allocated'] - before for event in events), default=0)


def weight_bytes(model: nn.Module) -> int:
    """Count the memory of a model's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


@dataclass(frozen=True)
class Runner:
    """Inference and training step of a network, as calls to time.

    Attributes:
        network: Returns a tensor or a tuple of tensors.
        images: (N, 3, H, W), in the network's memory format.
        dtype: Anything but float32 turns autocast on; weights stay float32.
        graphed: Record each call as a CUDA graph and replay that.
    """

    network: nn.Module
    images: Tensor
    dtype: torch.dtype = torch.float32
    graphed: bool = False

    def inference(self) -> Callable[[], object]:
        """Switch to evaluation mode; the returned call computes the sum of all outputs."""
        self.network.eval()
        self.network.zero_grad(set_to_none=True)

        def call() -> Tensor:
            with torch.no_grad():
                return self._sum()

        return cuda_graph(call) if self.graphed else call

    def training(self) -> Callable[[], object]:
        """Switch to training mode; the returned call runs forward, backward and an SGD step.

        The learning rate is 0: the arithmetic is that of a real step, and random weights do not diverge.
        """
        self.network.train()
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0., momentum=.9, weight_decay=1e-4)

        def call() -> None:
            optimizer.zero_grad(set_to_none=True)
            self._sum().backward()
            optimizer.step()

        return cuda_graph(call) if self.graphed else call

    def peak(self, make: Callable[[], Callable[[], object]]) -> int:
        """Count the bytes of the weights and of the peak allocation in two calls of `inference` or `training`."""
        def run() -> None:
            call = make()
            call()
            call()

        return weight_bytes(self.network) + peak_bytes(run, str(self.images.device))

    def _sum(self) -> Tensor:
        mixed = self.dtype != torch.float32
        with torch.autocast(self.images.device.type, self.dtype) if mixed else nullcontext():
            outputs = self.network(self.images)
        return sum_of(outputs if isinstance(outputs, (tuple, list)) else (outputs, ))


def cuda_graph(call: Callable[[], object], warmups: int = 3) -> Callable[[], object]:
    """Record a call as a CUDA graph after warm-ups on a separate stream; the returned call replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmups):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def sum_of(outputs: Iterable[Tensor]) -> Tensor:
    """Sum all values in float32, so that no part of the computation can be skipped."""
    return torch.stack([output.sum(dtype=torch.float32) for output in outputs]).sum()


def _batch_size(measure: Callable[[int], float], least_seconds: float) -> int:
    """Find how many calls take `least_seconds`."""
    calls = 1
    while (taken := measure(calls)) < least_seconds:
        calls = max(2 * calls, min(int(calls * least_seconds / max(taken, 1e-9)), 100 * calls))
    return calls
