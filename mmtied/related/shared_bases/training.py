"""Orthogonality regularization of shared filter bases (Kang & Kim, Eq. 7)."""

from collections.abc import Iterator

import torch
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.training.loss_hook import LossHook, is_number

from .layers import FilterBasis


@HOOKS.register_module()
@suggest_arguments
class OrthogonalityHook(LossHook):
    """Add ``weight * sum_g ||W_g' W_g - I||^2`` over the shared bases g to the loss (Eq. 7), logged as ``loss_orthogonality``.

    Each basis counts once, however many layers use it. Frozen bases are left out, since their term is constant, and so are those
    of stages after the last of out_indices, on which no loss depends (``find_unused_parameters``). The term is computed in
    float32 (float64 for a float64 model), under AMP too.

    The paper does not print its factor, lambda. The default suits the paper's learning rate of 0.1: a gradient step moves a
    singular value s of a basis by ``4 * weight * lr * s * (s**2 - 1)``, and with momentum 0.9 a nearly orthonormal basis stays
    stable while ``weight * lr`` is below 0.47. Bases with larger singular values at the start need a smaller weight.

    Args:
        weight: The factor, lambda; positive and finite.

    Raises:
        ValueError: The weight is not positive, or, as training begins, the model has no shared bases or two such hooks.

    Example:
        In a config: ``default_hooks = dict(orthogonality=dict(type='mmtied.OrthogonalityHook'))``.
    """

    log_names = ('loss_orthogonality', )

    def __init__(self, weight: float = 0.1) -> None:
        if not is_number(weight) or not weight > 0:
            raise ValueError(f'OrthogonalityHook: weight={weight!r}, expected a positive number; to train without the term, '
                             'leave the hook out')
        self.weight = weight

    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model without shared bases."""
        if not any(isinstance(module, FilterBasis) for module in model.modules()):
            raise ValueError(f'OrthogonalityHook: {type(model).__name__} has no shared filter bases; use a backbone that has '
                             'them, mmtied.SharedResNet, SharedResNetCIFAR or SharedMobileNetV2 with num_bases of 1 or more')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the term."""
        deviations = [deviation.to(loss.device) for deviation in basis_deviations(model).values()]
        term = self.weight * torch.stack(deviations).sum() if deviations else loss.new_zeros(())
        return loss + term, {'loss_orthogonality': term}


def basis_deviations(model: nn.Module) -> dict[str, Tensor]:
    """Compute ``||W'W - I||^2`` of each trainable shared basis in use, by its name in the model; scalars with gradients.

    Example:
        >>> from mmtied.backbones import SharedResNet
        >>> sorted(basis_deviations(SharedResNet(50, base_channels=8)))[:2]
        ['layer1.bases.middle', 'layer2.bases.middle']
    """
    unused = set(_modules_after_outputs(model))
    return {name: module.deviation() for name, module in model.named_modules()
            if isinstance(module, FilterBasis) and module.weight.requires_grad and module not in unused}


def _modules_after_outputs(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what lies in stages after the last one that a backbone returns."""
    for network in model.modules():
        stages = getattr(network, 'stage_names', None) or getattr(network, 'layers', None)
        if isinstance(stages, list) and isinstance(getattr(network, 'out_indices', None), (tuple, list)):
            for name in stages[max(network.out_indices) + 1:]:
                yield from getattr(network, name).modules()
