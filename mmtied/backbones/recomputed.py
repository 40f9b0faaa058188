"""Normalised activations made anew in the backward pass from the input of their normalisation, in place of being kept.

A convolution, BatchNorm and ReLU keep two tensors of one size for the backward pass: BatchNorm its input z, ReLU and the next
convolution its result y. One cheap pass over z, with the statistics that BatchNorm keeps anyway, gives y again: on the CPU to the
bit, by PyTorch's operators as by the kernels of `fast_norm`. So within `recomputing` autograd is handed a recipe wherever it
would keep y, a part of its channels, or what `join` made of several such. It is the idea of Rota Bulò et al., "In-Place Activated
BatchNorm for Memory-Optimized Training of DNNs", https://arxiv.org/abs/1712.02616, the other way round: z is kept and y made,
which needs no invertible activation.

What is no BatchNorm2d, or is watched by a hook, is kept as ever. All is as ever in traces, compiled and exported graphs, function
transforms, where someone else's hooks say what becomes of saved tensors (offloading, checkpointing), and within
`mmtied.layers.tied_convolution_way` with anything but 'auto'.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.layers.choice import is_automatic, is_exporting
from mmtied.native.batch_norm import Channels, Then, apply

from .fast_norm import can_follow, can_normalise, is_fit, normalise_batch
from .watched import is_watched

_local = threading.local()


@contextmanager
def recomputing() -> Iterator[None]:
    """Within the block, let autograd keep recipes in place of what `normalise` and `join` return."""
    if not _may_recompute():
        yield
        return
    recorder, before = _Recorder(), _current()
    _local.recorder = recorder
    try:
        with torch.autograd.graph.saved_tensors_hooks(recorder.pack, _unpack):
            yield
    finally:
        _local.recorder = before
        recorder.recipes.clear()  # autograd holds the recorder, with `pack`, as long as the graph


def normalise(norm: nn.Module, activate: nn.Module | None, z: Tensor) -> Tensor:
    """activate(norm(z)), or norm(z) without an activation; within `recomputing` made anew in the backward pass where possible."""
    if can_normalise(norm) and (activate is None or can_follow(activate)) and is_fit(norm, z):
        return _normalise_fast(norm, Then.NOTHING if activate is None else Then.RELU, z)
    y = norm(z)
    recorder = _current()
    relu = type(activate) is nn.ReLU and activate.inplace
    if recorder is not None and (relu or activate is None) and _can_repeat(norm, z, y):
        # in place, ReLU counts the version up before it saves its result
        recorder.add(y, y._version + relu, _norm_recipe(norm, z, y, relu))
    return y if activate is None else activate(y)


def _normalise_fast(norm: nn.BatchNorm2d, then: Then, z: Tensor) -> Tensor:
    """By the kernels, with a recipe."""
    y, mean, inverse_std = normalise_batch(norm, z, then)
    recorder = _current()
    if recorder is not None and y.requires_grad:
        def make(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return apply(z, Channels(weight, bias, mean, inverse_std), then)

        recorder.add(y, y._version, _Recipe(y, make, [_Kept(z), _Kept(norm.weight), _Kept(norm.bias)]))
    return y


def join(parts: list[Tensor]) -> Tensor:
    """The parts side by side along the channels; within `recomputing` joined anew in the backward pass, if all can be."""
    joined = torch.cat(parts, dim=1)
    recorder = _current()
    if recorder is not None and joined.requires_grad:
        recipes = [recorder.find(part) for part in parts]
        if all(recipe is not None and part.shape == recipe.shape for recipe, part in zip(recipes, parts, strict=True)):
            recorder.add(joined, joined._version, _Recipe(joined, lambda *made: torch.cat(made, dim=1), recipes))
    return joined


class _Kept:
    """A tensor that is kept, without its history, and with autograd's check that nobody has changed it meanwhile."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        self.version = tensor._version

    def get(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: It was changed in place.
        """
        if self.tensor._version != self.version:
            raise RuntimeError('one of the variables needed for gradient computation has been modified by an inplace operation: '
                               f'{tuple(self.tensor.shape)} is at version {self.tensor._version}; expected version '
                               f'{self.version} instead')
        return self.tensor


class _Recipe:
    """How to make a tensor anew: a function of kept tensors and of other recipes' tensors.

    What was made is held until everyone has come for it that autograd packed it for, and is made again when a graph that was
    retained comes once more.
    """

    def __init__(self, tensor: Tensor, function: Callable[..., Tensor], sources: list['_Kept | _Recipe']) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.function = function
        self.sources = sources
        self.uses = self.left = 0
        self.made: Tensor | None = None

    def add_use(self) -> None:
        """Count one more who will come for the tensor; the first makes the recipe itself one more user of its sources."""
        if not self.uses:
            for source in self.sources:
                if isinstance(source, _Recipe):
                    source.add_use()
        self.uses += 1
        self.left += 1

    def get(self) -> Tensor:
        """The tensor, without history."""
        tensor = self.made
        if tensor is None:
            made = [source.get() for source in self.sources]
            with torch.no_grad(), torch.autocast(made[0].device.type, enabled=False):
                tensor = self.function(*made)
        self.left -= 1
        if self.left > 0:
            self.made = tensor
        else:
            self.made, self.left = None, self.uses
        return tensor


class _Packed(NamedTuple):
    """What autograd holds for a view of a tensor that will be made anew."""

    recipe: _Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Recorder:
    """The recipes of one forward pass, by the memory of the tensors that they make anew.

    It holds the tensors, so that no other can have the same memory meanwhile.
    """

    def __init__(self) -> None:
        self.recipes: dict[int, tuple[Tensor, int, _Recipe]] = {}

    def add(self, tensor: Tensor, version: int, recipe: _Recipe) -> None:
        """Note how a tensor can be made, as long as it has this version."""
        address = tensor.untyped_storage().data_ptr()
        if address:  # an empty tensor has none
            self.recipes[address] = (tensor.detach(), version, recipe)

    def find(self, tensor: Tensor) -> _Recipe | None:
        """The recipe for the memory that a tensor is a view of, or None if there is none or it was changed since."""
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
            return None
        _, version, recipe = self.recipes.get(tensor.untyped_storage().data_ptr(), (None, None, None))
        return recipe if recipe is not None and tensor._version == version and tensor.dtype == recipe.dtype else None

    def pack(self, tensor: Tensor) -> '_Kept | _Packed':
        """What autograd shall hold for a tensor."""
        recipe = self.find(tensor)
        if recipe is None:
            return _Kept(tensor)
        recipe.add_use()
        return _Packed(recipe, tensor.size(), tensor.stride(), tensor.storage_offset())


def _unpack(packed: '_Kept | _Packed') -> Tensor:
    if isinstance(packed, _Kept):
        return packed.get()
    return packed.recipe.get().as_strided(packed.size, packed.stride, packed.offset)


def _norm_recipe(norm: _BatchNorm, z: Tensor, y: Tensor, relu: bool) -> _Recipe:
    """How y came from z: with the statistics of the batch as autograd has them, or with a copy of the running ones."""
    if _uses_batch(norm):
        mean, inverse_std = y.grad_fn._saved_result1.detach(), y.grad_fn._saved_result2.detach()
    else:
        mean, inverse_std = norm.running_mean.clone(), torch.rsqrt(norm.running_var + norm.eps)

    def make(z: Tensor, *affine: Tensor) -> Tensor:
        # A variance of 1 leaves the scale as it is: on the CPU BatchNorm makes this product too, so the bits are the same.
        weight, bias = affine or (None, None)
        scale = inverse_std if weight is None else weight * inverse_std
        shift = torch.zeros_like(mean) if bias is None else bias.to(mean.dtype)
        made = F.batch_norm(z, mean, torch.ones_like(mean), scale.to(mean.dtype), shift, eps=0.)
        return made.relu_() if relu else made

    affine = [] if norm.weight is None else [_Kept(norm.weight), _Kept(norm.bias)]
    return _Recipe(y, make, [_Kept(z), *affine])


def _can_repeat(norm: nn.Module, z: Tensor, y: Tensor) -> bool:
    """Whether y is a BatchNorm2d of z, kept for a backward pass, and nothing else could have had a hand in it."""
    if type(norm) is not nn.BatchNorm2d or 'forward' in vars(norm) or is_watched(norm):
        return False
    if not y.requires_grad or type(y) is not Tensor or y.dtype != z.dtype or y.stride() != z.stride():
        return False
    if (norm.weight is None) != (norm.bias is None):
        return False
    return not _uses_batch(norm) or hasattr(y.grad_fn, '_saved_result2')


def _uses_batch(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def _current() -> _Recorder | None:
    return getattr(_local, 'recorder', None)


def _may_recompute() -> bool:
    """Whether autograd records, eagerly and by itself, and nobody else decides what it keeps."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_exporting() or not is_automatic():
        return False
    autograd = torch._C._autograd
    top = getattr(autograd, '_top_saved_tensors_default_hooks', None)  # no public call says whether there are hooks already
    return top is not None and autograd._saved_tensors_hooks_is_enabled() and top(False) is None
