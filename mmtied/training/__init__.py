"""Training terms that one line in a config's ``custom_hooks`` adds to any model, and a record of learned groups."""

from .group_history import GroupHistory, GroupHistoryHook
from .group_resource import GroupResourceHook
from .loss_hook import LossHook
from .orthogonality import OrthogonalityHook

__all__ = ['GroupHistory', 'GroupHistoryHook', 'GroupResourceHook', 'LossHook', 'OrthogonalityHook']
