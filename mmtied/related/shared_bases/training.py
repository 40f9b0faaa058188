"""Training with shared filter bases: the orthogonality term (Eq. 7), and a record of the gradients (Figure 3)."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.compat import unwrap_model
from mmtied.layers.blocks import check_positive
from mmtied.training.loss_hook import LossHook, is_number

from .figures import COLUMNS, GRADIENTS_FILE
from .layers import FilterBasis, SharedBasisConv, filter_rows, squared_deviation

#: The authors' factor of the mean.
_LAMBDA = 10


@HOOKS.register_module()
@suggest_arguments
class OrthogonalityHook(LossHook):
    """Add the distance of the shared bases from orthonormality to the loss, logged as ``loss_orthogonality``.

    By default the term is that of the authors' code: 10 times the mean of the squared entries of ``W'W - I`` over all stages. If
    the two bases of a stage have filters of the same size (ResNet-34-S48U1, the CIFAR networks with two bases), they are also
    compared with each other; otherwise the means of the two roles are added. With ``weight``, the term is Eq. 7 as printed,
    ``weight * sum_g ||W_g' W_g - I||^2``, with each basis on its own.

    Each basis counts once, however many layers use it. Excluded are frozen bases, whose term is constant, and those of stages
    after the last of out_indices, which no loss depends on (``find_unused_parameters``). The term is computed in float32 (float64
    for a float64 model), also under AMP.

    The mean is far weaker than the sum: for ResNet-50-Shared, 10 times the mean is 2.9e-5 times the sum. With the sum, a gradient
    step moves a singular value s of a basis by ``4 * weight * lr * s * (s**2 - 1)``; with momentum 0.9 a nearly orthonormal basis
    is stable while ``weight * lr`` is below 0.47, and larger initial singular values need a smaller weight.

    Args:
        weight: Factor of Eq. 7's sum, positive and finite; None for the mean.
        mean_weight: Factor of the mean, lambda, positive and finite; None is 10 unless there is a weight.
        unique: With the mean, also compare the elements that a layer adds with each other and with the shared ones, as the
            authors do on CIFAR-10.

    Raises:
        ValueError: A factor is not positive, both are given, unique is given with a sum, or, before training, the model has no
            shared bases or two such hooks.

    Example:
        In a config: ``default_hooks = dict(orthogonality=dict(type='mmtied.OrthogonalityHook'))``.
    """

    log_names = ('loss_orthogonality', )

    def __init__(self, weight: float | None = None, *, mean_weight: float | None = None, unique: bool = False) -> None:
        for name, value in (('weight', weight), ('mean_weight', mean_weight)):
            if value is not None and not (is_number(value) and value > 0):
                raise ValueError(f'OrthogonalityHook: {name}={value!r}, expected a positive number; to train without the term, '
                                 'leave the hook out')
        if weight is not None and (mean_weight is not None or unique):
            raise ValueError(f'OrthogonalityHook: weight={weight} with mean_weight={mean_weight}, unique={unique}; weight is for '
                             'the sum of Eq. 7, the others are for the mean')
        self.weight = weight
        self.mean_weight = _LAMBDA if mean_weight is None and weight is None else mean_weight
        self.unique = unique

    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model without shared bases."""
        if not any(isinstance(module, FilterBasis) for module in model.modules()):
            raise ValueError(f'OrthogonalityHook: {type(model).__name__} has no shared filter bases; use a backbone with them, '
                             'mmtied.SharedResNet, SharedResNetCIFAR or SharedMobileNetV2 with num_bases of 1 or more')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the term."""
        if self.weight is None:
            factor, parts = self.mean_weight, mean_deviations(model, self.unique)
        else:
            factor, parts = self.weight, basis_deviations(model)
        term = factor * torch.stack([part.to(loss.device) for part in parts.values()]).sum() if parts else loss.new_zeros(())
        return loss + term, {'loss_orthogonality': term}


def trained_bases(model: nn.Module) -> dict[str, FilterBasis]:
    """Return the trainable shared bases of a model by name."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, FilterBasis) and module.weight.requires_grad}


def basis_deviations(model: nn.Module) -> dict[str, Tensor]:
    """Compute ``||W'W - I||^2`` of each trainable shared basis in use, by name; scalars with gradients.

    Example:
        >>> from mmtied.backbones import SharedResNet
        >>> sorted(basis_deviations(SharedResNet(50, base_channels=8)))[:2]
        ['layer1.bases.middle', 'layer2.bases.middle']
    """
    return {name: module.deviation() for name, module in _bases_in_use(model)}


def mean_deviations(model: nn.Module, unique: bool = False) -> dict[str, Tensor]:
    """Compute the mean squared entry of ``W'W - I`` for each role, or joined roles, of the bases; scalars with gradients.

    W contains the bases of one module whose filters have the same size; the mean is over all such W of the model. With `unique`,
    the elements that each layer adds are also compared with the bases and with each other.

    Example:
        >>> from mmtied.backbones import SharedResNet
        >>> list(mean_deviations(SharedResNet(50, base_channels=8, num_bases=2)))
        ['middle', 'exit']
        >>> list(mean_deviations(SharedResNet(18, base_channels=16, num_bases=2, unique_elements=4)))
        ['entry+exit']
    """
    groups = defaultdict(list)
    for name, basis in _bases_in_use(model):
        holder, _, role = name.rpartition('.')
        groups[holder, basis.weight.shape[1:]].append((role, basis))
    layers = [layer for layer in model.modules() if isinstance(layer, SharedBasisConv) and layer.unique is not None]
    sums = defaultdict(lambda: [0, 0])
    for members in groups.values():
        roles, bases = zip(*members, strict=True)
        shared = filter_rows(*bases)
        products = [(shared, shared)]
        for layer in layers if unique else ():
            if layer.filters in bases:
                own = filter_rows(layer.unique)
                products += [(shared, own), (own, own)]
        total = sums['+'.join(roles)]
        for one, other in products:
            total[0] = total[0] + squared_deviation(one, other).to(shared.device)
            total[1] += len(one) * len(other)
    return {roles: total / count for roles, (total, count) in sums.items()}


def _bases_in_use(model: nn.Module) -> Iterator[tuple[str, FilterBasis]]:
    """Yield the names and modules of the trainable shared bases that a loss can depend on."""
    unused = set(_modules_after_outputs(model))
    yield from ((name, basis) for name, basis in trained_bases(model).items() if basis not in unused)


def _modules_after_outputs(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules in stages after the last one that a backbone returns."""
    for network in model.modules():
        stages = getattr(network, 'stage_names', None) or getattr(network, 'layers', None)
        if isinstance(stages, list) and isinstance(getattr(network, 'out_indices', None), (tuple, list)):
            for name in stages[max(network.out_indices) + 1:]:
                yield from getattr(network, name).modules()


@HOOKS.register_module()
@suggest_arguments
class BasisGradientHook(Hook):
    """Record the mean, maximum and norm of each shared basis's gradient in ``basis_gradients.csv`` in the work_dir.

    Mean and maximum are of absolute values, as in Figure 3. The gradient is the optimizer's: of the whole loss with all terms,
    averaged over processes, accumulated and unscaled. A resumed run appends. `mmtied bases gradients` draws the file.

    Args:
        interval: Optimizer steps between records; the authors use 10.

    Raises:
        ValueError: The interval is not a positive integer, or, before training, the model has no trainable shared bases.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.BasisGradientHook')]``.
    """

    def __init__(self, interval: int = 10) -> None:
        check_positive('BasisGradientHook', interval=interval)
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Start recording at the optimizer's steps."""
        model = unwrap_model(runner.model)
        bases = trained_bases(model)
        if not bases:
            raise ValueError(f'BasisGradientHook: {type(model).__name__} has no trainable shared bases; use a backbone with '
                             'them, such as mmtied.SharedResNet with num_bases of 1 or more')
        path = Path(runner.work_dir) / GRADIENTS_FILE
        if is_main_process() and not (runner.iter and path.exists()):
            with path.open('w', newline='', encoding='utf-8') as file:
                csv.writer(file).writerow(COLUMNS)
        steps = [0]

        def record(*_: object) -> None:
            if steps[0] % self.interval == 0 and is_main_process():
                sizes = {name: basis.weight.grad.float().abs() for name, basis in bases.items() if basis.weight.grad is not None}
                rows = [(runner.iter, name, size.mean().item(), size.max().item(), size.norm().item())
                        for name, size in sizes.items()]
                with path.open('a', newline='', encoding='utf-8') as file:
                    csv.writer(file).writerows(rows)
            steps[0] += 1

        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(record)

    def after_train(self, runner: Runner) -> None:
        """Stop recording."""
        self._handle.remove()
