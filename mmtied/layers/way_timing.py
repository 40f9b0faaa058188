"""Time the ways of a tied convolution once for each kind of call, and keep the fastest, as cudnn.benchmark does."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .tied_ways import WAYS, Geometry, possible_ways

#: Runs of each way, the first of which is not counted.
RUNS = 4

_seconds: dict[tuple, dict[str, float]] = {}


def fastest_way(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> tuple[str, str]:
    """The fastest way for calls like this one, measured at the first of them, and why.

    Calls are alike when device, dtype (autocast's where it is on), shape, memory format, threads, layer geometry and the need for
    gradients are. Where gradients are needed, forward and backward are timed together.

    Args:
        x: Input of shape (N, C_in, H, W), not empty; it is not changed.
        weight: The thin weight; its grad is not touched.
        bias: The tied bias or None.
        geometry: The rest of the layer.
    """
    key = _kind_of_call(x, weight, bias, geometry)
    if key not in _seconds:
        _seconds[key] = _measure(x, weight, bias, geometry)
    fastest_first = sorted(_seconds[key].items(), key=lambda item: item[1])
    return fastest_first[0][0], 'measured: ' + ', '.join(f'{way} {1e3 * seconds:.3f} ms' for way, seconds in fastest_first)


def forget_measurements() -> None:
    """Measure again from now on: after the number of threads or the machine's load has changed."""
    _seconds.clear()


def _kind_of_call(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> tuple:
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    return (x.device, dtype, x.shape, x.stride(), weight.shape, bias is None, geometry, torch.get_num_threads(),
            _trains(x, weight), x.requires_grad)


def _trains(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def _measure(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> dict[str, float]:
    inputs = [None if tensor is None else tensor.detach().requires_grad_(tensor.requires_grad) for tensor in (x, weight, bias)]
    ways = possible_ways(weight, geometry)
    best = dict.fromkeys(ways, float('inf'))
    for run in range(RUNS):
        for way in ways:
            seconds = _time(lambda way=way: _run(WAYS[way], inputs, geometry, _trains(x, weight)), x.device)
            if run:
                best[way] = min(best[way], seconds)
    return best


def _run(way: Callable, inputs: list[Tensor | None], geometry: Geometry, trains: bool) -> None:
    y = way(*inputs, geometry)
    if trains:
        torch.autograd.grad(y, [tensor for tensor in inputs if tensor is not None and tensor.requires_grad], torch.ones_like(y))


def _time(run: Callable[[], None], device: torch.device) -> float:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
