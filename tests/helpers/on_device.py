"""Record copies from the device to the host; on a CPU, the calls that would copy from a GPU."""

import torch
from torch.overrides import TorchFunctionMode

_LEAVING = (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__iter__)


class Departures(TorchFunctionMode):
    """Record the sizes of tensors that are copied to the CPU, as arrays or numbers, within the block."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _LEAVING:
            self.sizes.append(args[0].numel())
        return function(*args, **(kwargs or {}))
