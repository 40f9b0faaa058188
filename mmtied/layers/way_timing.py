"""Time the ways of a tied convolution once for each kind of call, and keep the fastest, as cudnn.benchmark does."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .tied_ways import WAYS, Geometry, possible_ways

#: Runs of each way, the first of which is not counted.
RUNS = 4
#: Kinds of calls that are measured; with images of ever new sizes it would not end, and the rule serves the rest.
MOST_KINDS = 512

_fastest: dict[tuple, tuple[str, str]] = {}


def can_measure(x: Tensor) -> bool:
    """Whether calls can be timed now: not of empty inputs, under torch.func, or while a CUDA graph is captured."""
    return (x.numel() > 0 and not torch._C._are_functorch_transforms_active()
            and not (x.is_cuda and torch.cuda.is_current_stream_capturing()))


def fastest_way(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> tuple[str, str] | None:
    """The fastest way for calls like this one, measured at the first of them, and why; None after `MOST_KINDS` other ones.

    Calls are alike when device, dtype (autocast's where it is on), shape, memory format, threads, layer geometry and the need for
    gradients are. Where gradients are needed, forward and backward are timed together.

    Args:
        x: Input of shape (N, C_in, H, W), for which `can_measure` holds; it is not changed.
        weight: The thin weight; its grad is not touched.
        bias: The tied bias or None.
        geometry: The rest of the layer.
    """
    key = _kind_of_call(x, weight, bias, geometry)
    if key not in _fastest and len(_fastest) < MOST_KINDS:
        seconds = sorted(_measure(x, weight, bias, geometry).items(), key=lambda item: item[1])
        _fastest[key] = seconds[0][0], 'measured: ' + ', '.join(f'{way} {1e3 * took:.3f} ms' for way, took in seconds)
    return _fastest.get(key)


def forget_measurements() -> None:
    """Measure again from now on: after the number of threads or the machine's load has changed."""
    _fastest.clear()


def _kind_of_call(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> tuple:
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    return (x.device, dtype, x.shape, x.stride(), weight.shape, bias is None, geometry, torch.get_num_threads(),
            _trains(x, weight), x.requires_grad, weight.requires_grad)


def _trains(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def _measure(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> dict[str, float]:
    inputs = [None if tensor is None else tensor.detach().requires_grad_(tensor.requires_grad) for tensor in (x, weight, bias)]
    ways = possible_ways(weight, geometry)
    best = dict.fromkeys(ways, float('inf'))
    # Hooks on what is saved for the backward pass belong to the call, not to its measurement: checkpointing counts what it saves.
    with torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is):
        for run in range(RUNS):
            for way in ways:
                try:
                    seconds = _time(lambda way=way: _run(WAYS[way], inputs, geometry, _trains(x, weight)), x.device)
                except torch.OutOfMemoryError:
                    continue
                if run:
                    best[way] = min(best[way], seconds)
    return best


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


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
