"""Peak memory of a call, counted from the allocator and not from the process.

On CUDA the allocator keeps the count. On a CPU the profiler hears of every block that PyTorch's allocator gives and takes back,
workspaces of oneDNN included, and its trace has the running total. So both count the same thing, to the byte and the same in
every run. The resident memory of the process does not: it has the pages that malloc keeps for later.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
#: The trace's number for the CPU.
_CPU = 0

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # or the profiler writes lines to stderr


def peak_bytes(call: Callable[[], object], device: str = 'cpu') -> int:
    """The most memory that a call holds on top of what is allocated before it.

    Example:
        >>> peak_bytes(lambda: torch.zeros(1000, dtype=torch.uint8) + torch.ones(1000, dtype=torch.uint8))
        3000
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = [event['args'] for event in json.loads(path.read_text())['traceEvents'] if event.get('name') == '[memory]']
    events = [event for event in events if event['Device Type'] == _CPU]
    before = events[0]['Total Allocated'] - events[0]['Bytes'] if events else 0
    return max((event['Total Allocated'] - before for event in events), default=0)


def weight_bytes(model: nn.Module) -> int:
    """Memory of a model's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
