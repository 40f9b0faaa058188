"""Training hooks: losses added to any model, and exact resuming."""

from mmtied.compat import forward_names

from .distillation import DistillationHook
from .loss_hook import LossHook
from .resume import ExactResumeHook

__all__ = ['BasisGradientHook', 'DistillationHook', 'ExactResumeHook', 'GroupHistory', 'GroupHistoryHook',  # noqa: F822
           'GroupResourceHook', 'LossHook', 'OrthogonalityHook']

__getattr__, __dir__ = forward_names(__name__, {
    'groupable.training': ['GroupHistory', 'GroupHistoryHook', 'GroupResourceHook'],
    'shared_bases.training': ['BasisGradientHook', 'OrthogonalityHook'],
})
