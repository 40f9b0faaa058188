"""Wrappers for PyTorch functions newer than 2.1, the oldest supported release; the only module that calls them."""

import codecs
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn
from torch.utils import checkpoint


def is_compiling() -> bool:
    """Return whether `torch.compile` or `torch.export` is recording the call."""
    check = getattr(torch.compiler, 'is_compiling', None) or torch._dynamo.is_compiling
    return check()


def is_exporting() -> bool:
    """Return whether `torch.jit.trace` (and so the ONNX exporter) or `torch.export` is recording the call."""
    if torch.jit.is_tracing():
        return True
    check = getattr(torch.compiler, 'is_exporting', None)
    return check is not None and check()


def remove_reducer_hooks(wrapper: nn.parallel.DistributedDataParallel) -> None:
    """Stop a wrapper from reducing its model's gradients, so that another wrapper can replace it.

    Releases of PyTorch without a call for this do it when the wrapper is deleted.
    """
    remove = getattr(wrapper.reducer, '_remove_autograd_hooks', None)
    if remove is not None:
        remove()


def has_selective_checkpoint() -> bool:
    """Return whether PyTorch is 2.4 or newer, which `selective_checkpoint_contexts` needs."""
    return hasattr(checkpoint, 'create_selective_checkpoint_contexts')


def selective_checkpoint_contexts(keeps: Callable[[object], bool]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return contexts for `torch.utils.checkpoint` that save the results of some operators and recompute the others.

    `keeps` gets an operator such as `torch.ops.aten.convolution.default`. Needs `has_selective_checkpoint`.
    """
    policy = checkpoint.CheckpointPolicy

    def choose(context: object, operator: object, *args: object, **kwargs: object) -> checkpoint.CheckpointPolicy:
        return policy.MUST_SAVE if keeps(operator) else policy.PREFER_RECOMPUTE

    return checkpoint.create_selective_checkpoint_contexts(choose)


def onnx_needs_onnxscript() -> bool:
    """Return True if `export_onnx` uses the `torch.export`-based exporter of PyTorch 2.6 and newer."""
    return hasattr(getattr(torch.export, 'Dim', None), 'DYNAMIC')


def export_onnx(model: nn.Module, image: torch.Tensor, path: str | os.PathLike, output_names: Sequence[str] = ('output', ),
                dynamic_size: bool = False) -> None:
    """Write a model to a self-contained ONNX file with one input, 'image', of any batch size.

    PyTorch 2.6 and newer export through `torch.export`, older releases through TorchScript. The example image has shape
    (N, C, H, W) with N >= 2. With `dynamic_size`, height and width are dynamic too.
    """
    axes = {0: 'batch', 2: 'height', 3: 'width'} if dynamic_size else {0: 'batch'}
    if not onnx_needs_onnxscript():
        settings = {'dynamic_axes': {'image': axes, **dict.fromkeys(output_names, {0: 'batch'})}}
    else:
        shapes = axes if hasattr(torch.compiler, 'is_exporting') else dict.fromkeys(axes, torch.export.Dim.DYNAMIC)  # names: 2.7
        settings = {'dynamo': True, 'external_data': False, 'dynamic_shapes': (shapes, )}
    with torch.no_grad():
        torch.onnx.export(model, (image, ), str(path), input_names=['image'], output_names=list(output_names), verbose=False,
                          **settings)


def has_named_safe_globals() -> bool:
    """Return whether `torch.load` with ``weights_only=True`` can allow more classes by their names in files (2.6)."""
    release = tuple(int(part) for part in torch.__version__.split('.')[:2])
    return hasattr(torch.serialization, 'safe_globals') and release >= (2, 6)


@contextmanager
def only_safe_globals(allowed: Sequence[tuple[Callable, str]]) -> Iterator[None]:
    """Restrict `torch.load` to its own classes and functions and to these, each with its full name in files."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals(list(allowed))
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def full_name(value: type | Callable) -> str:
    """Return the name that a pickle uses for a class or function."""
    return f'{value.__module__}.{value.__qualname__}'


#: Callables in a pickled state_dict, other than the storages that torch.load handles itself.
TENSOR_PARTS = (OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, torch.Size, codecs.encode)
