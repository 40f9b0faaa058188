"""Training terms that one line in a config's ``custom_hooks`` adds to any model."""

from .loss_hook import LossHook

__all__ = ['LossHook']
