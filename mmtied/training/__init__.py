"""Training terms that one line in a config's ``custom_hooks`` adds to any model."""

from .group_resource import GroupResourceHook
from .loss_hook import LossHook
from .orthogonality import OrthogonalityHook

__all__ = ['GroupResourceHook', 'LossHook', 'OrthogonalityHook']
