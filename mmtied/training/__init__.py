"""Hooks for a config's default_hooks that change the training loss of any model."""

from mmtied.compat import forward_names

from .distillation import DistillationHook
from .loss_hook import LossHook

__all__ = ['DistillationHook', 'GroupHistory', 'GroupHistoryHook', 'GroupResourceHook', 'LossHook', 'OrthogonalityHook']  # noqa: F822

__getattr__, __dir__ = forward_names(__name__, {
    'GroupHistory': 'groupable.training',
    'GroupHistoryHook': 'groupable.training',
    'GroupResourceHook': 'groupable.training',
    'OrthogonalityHook': 'shared_bases.training',
})
