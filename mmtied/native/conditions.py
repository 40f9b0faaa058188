"""When compiled functions may stand in for PyTorch's operators: for ordinary tensors, and nobody else wants to see the calls."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mmtied.layers.choice import is_automatic, is_exporting

from .loading import library


def is_plain(x: object) -> bool:
    """Whether this is an ordinary float32 tensor in the CPU's memory."""
    return (type(x) in (Tensor, nn.Parameter) and x.dtype == torch.float32 and x.device.type == 'cpu'
            and x.layout == torch.strided and not x.is_neg())


def may_stand_in(*tensors: Tensor) -> bool:
    """Whether there are compiled functions, and calls are neither recorded, transformed nor watched nor wanted as they are."""
    return not (torch.compiler.is_compiling() or is_exporting() or not is_automatic() or library() is None
                or is_transformed(*tensors)
                or torch.is_autocast_enabled('cpu') or nn.modules.module._has_any_global_hook())


def is_transformed(*tensors: Tensor) -> bool:
    """Whether PyTorch hands operators to others: function transforms, forward-mode gradients, dispatch modes."""
    try:
        return (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
                or torch._C._len_torch_dispatch_stack() > 0
                or any(map(torch._C._functorch.is_legacy_batchedtensor, tensors)))
    except AttributeError:  # no public call says so
        return True
