"""A hook that changes the total loss of any model: what the training terms of this package have in common.

mmengine's ``BaseModel.train_step`` and that of its DistributedDataParallel both hand the dict of losses to the model's
``parse_losses``, which adds them up, outside autocast and before gradients are scaled or accumulated. While training runs, a
`LossHook` stands in that place, so one line in ``custom_hooks`` serves every mmdet detector and every mmpretrain classifier.
"""

from abc import abstractmethod
from math import isfinite

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn


class LossHook(Hook):
    """Changes the total loss from before_train to after_train; several such hooks follow one another in their order.

    A subclass says which models it works for (`check_model`) and what becomes of the loss (`change_loss`). It keeps no reference
    to the model, so that copies of a model (EMA) are independent of it.

    The change is made in each iteration, each process and each step of a gradient accumulation, which mmengine averages: a term
    that depends on the parameters alone counts once.

    Two hooks under one name would both change the loss while the log shows one of them, so `before_train` raises a ValueError.

    Attributes:
        log_names: The entries for the log that the hook makes. For names that are not here an overlap is noticed in the first
            iteration, not before.
    """

    priority = 'NORMAL'
    log_names: tuple[str, ...] = ()

    @abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model that the hook cannot serve."""

    @abstractmethod
    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Give the new total loss; called with autocast off.

        Args:
            model: The model without wrappers.
            loss: The total so far, a scalar.

        Returns:
            The new total, and entries for the log by name.
        """

    def before_train(self, runner: Runner) -> None:
        """Put the hook into the model's ``parse_losses``."""
        model = _unwrap(runner.model)
        if not hasattr(model, 'parse_losses'):
            raise ValueError(f'{type(self).__name__}: {type(model).__name__} has no parse_losses, expected a model of mmengine '
                             '(a detector of mmdet, a classifier of mmpretrain, or another BaseModel)')
        self.check_model(model)
        attach(self, model)

    def after_train(self, runner: Runner) -> None:
        """Take the hook out again."""
        detach(self, _unwrap(runner.model))


def attach(hook: LossHook, model: nn.Module) -> None:
    """Let a hook change what a model's ``parse_losses`` returns; once, however often it is attached.

    Raises:
        ValueError: Another hook in the model logs under the same name. All are taken out then.
    """
    parse = vars(model).get('parse_losses')
    if not isinstance(parse, _ParseLosses):
        parse = _ParseLosses(model, parse)
        model.parse_losses = parse
    if hook in parse.hooks:
        return
    for other in parse.hooks:
        shared = [name for name in hook.log_names if name in other.log_names]
        if shared:
            for attached in list(parse.hooks):  # training does not begin; what is left would stand in the way of a next run
                detach(attached, model)
            raise ValueError(_clash(hook, shared[0]) + '. A hook that an interrupted run had left in the model is taken out by '
                             'now, and training can be started again')
    parse.hooks.append(hook)


def detach(hook: LossHook, model: nn.Module) -> None:
    """Undo `attach`; with the last hook the model is as it was."""
    parse = vars(model).get('parse_losses')
    if not isinstance(parse, _ParseLosses) or hook not in parse.hooks:
        return
    parse.hooks.remove(hook)
    if not parse.hooks:
        del model.parse_losses
        if parse.previous is not None:
            model.parse_losses = parse.previous


def is_number(value: object) -> bool:
    """Whether a setting is a whole or a real number, neither boolean nor infinite nor nan."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


class _ParseLosses:
    """Stands in for a model's ``parse_losses``; copies and pickles together with the model."""

    def __init__(self, model: nn.Module, previous: object) -> None:
        self.model = model
        self.previous = previous  # what another package had put there
        self.hooks = []

    def __call__(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        parse = self.previous or type(self.model).parse_losses.__get__(self.model)
        total, log_vars = parse(losses)
        logged = set()
        for hook in self.hooks:
            with torch.autocast(total.device.type, enabled=False):
                total, entries = hook.change_loss(self.model, total)
            for name in logged.intersection(entries):
                raise ValueError(_clash(hook, name))
            logged.update(entries)
            log_vars.update(entries)
        log_vars['loss'] = total
        return total, log_vars


def _clash(hook: LossHook, name: str) -> str:
    return (f'{type(hook).__name__}: another hook changes the loss and logs {name!r} too, expected one under each name; leave '
            'one of them out of custom_hooks')


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
