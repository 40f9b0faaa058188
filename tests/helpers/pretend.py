"""A CUDA device that is not there: tensors on the CPU that claim to be on it, and errors where PyTorch would raise one."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

CUDA, CPU = torch.device('cuda', 0), torch.device('cpu')
_LEAVING = {'numpy', '__array__'}
_INDEXING = {'__getitem__', '__setitem__', 'index_put_', 'index_put', 'index_select'}


class PretendCuda(TorchFunctionMode):
    """Within the block, ``device='cuda'`` makes tensors on the CPU that say they are on a GPU.

    Operations on them give such tensors too; mixing them with tensors of the CPU raises the RuntimeError that a GPU would raise.
    What runs below Python (autograd, operators written in C++) is not watched.

    Attributes:
        transfers: Number of copies from the device to the CPU, as tensors or as numbers.
    """

    def __init__(self):
        super().__init__()
        self.on_device = WeakIdKeyDictionary()
        self.transfers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = (resolve_name(function) or getattr(function, '__name__', '')).rpartition('.')[2]
        if function == Tensor.device.__get__:
            return CUDA if args[0] in self.on_device else CPU
        if function == Tensor.is_cuda.__get__:
            return args[0] in self.on_device
        if name in ('to', 'cuda', 'cpu'):
            return self._move(name, function, args, kwargs)
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [tensor in self.on_device for tensor in tensors]
        if name in ('item', 'tolist', '__bool__', '__int__', '__float__', '__index__', 'nonzero') and any(there):
            self.transfers += 1
        if name in _LEAVING and any(there):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        device = kwargs.get('device')
        if device is None and name in ('as_tensor', 'tensor') and any(there):
            device = CUDA
        if device is not None:
            kwargs['device'] = CPU if torch.device(device).type == 'cuda' else device
            result = function(*args, **kwargs)
            return self._mark(result if result is not (tensors or [None])[0] else result.view_as(result),
                              torch.device(device).type == 'cuda')
        mixed = [tensor for tensor, is_there in zip(tensors, there, strict=True) if not is_there and tensor.dim() > 0]
        if any(there) and mixed and not (name in _INDEXING and there[0]) and name not in ('__get__', 'copy_', '__set__'):
            raise RuntimeError(f'{name}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 '
                               'and cpu!')
        if name in _INDEXING and any(there) and not there[0]:
            raise RuntimeError('indices should be either on cpu or on the same device as the indexed tensor (cpu)')
        result = function(*args, **kwargs)
        return self._mark(result, any(there)) if any(there) else result

    def _move(self, name, function, args, kwargs):
        tensor, *others = args
        if not isinstance(tensor, Tensor):  # a module
            return function(*args, **kwargs)
        target = {'cuda': CUDA, 'cpu': CPU}.get(name) or kwargs.pop('device', None)
        if others and isinstance(others[0], torch.device | str | int):
            target, *others = others
        elif others and isinstance(others[0], Tensor):
            target, *others = (CUDA if others[0] in self.on_device else CPU), others[0].dtype, *others[1:]
        here = tensor in self.on_device
        to_cuda = here if target is None else torch.device(target).type == 'cuda'
        self.transfers += here and not to_cuda
        if name != 'to':
            kwargs, others = {}, []
        kwargs.pop('non_blocking', None)
        result = tensor.to(*others, **kwargs) if others or kwargs else tensor
        if to_cuda != here and result is tensor:
            result = tensor.clone()
        return self._mark(result, to_cuda) if result is not tensor else tensor

    def _mark(self, result, on_device):
        def mark(value):
            if isinstance(value, Tensor):
                if on_device:
                    self.on_device[value] = True
                else:
                    self.on_device.pop(value, None)
            return value
        return tree_map(mark, result)
