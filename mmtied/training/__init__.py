"""Hooks for a config's default_hooks that change the training loss of any model."""

from mmtied.compat import forward_names

from .distillation import DistillationHook
from .loss_hook import LossHook
from .resume import ExactResumeHook

__all__ = ['DistillationHook', 'ExactResumeHook', 'GroupHistory', 'GroupHistoryHook', 'GroupResourceHook', 'LossHook',  # noqa: F822
           'OrthogonalityHook']

__getattr__, __dir__ = forward_names(__name__, {
    'GroupHistory': 'groupable.training',
    'GroupHistoryHook': 'groupable.training',
    'GroupResourceHook': 'groupable.training',
    'OrthogonalityHook': 'shared_bases.training',
})
