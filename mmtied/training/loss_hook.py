"""Base class of hooks that change the total loss of any model.

``train_step`` of mmengine's BaseModel and DistributedDataParallel passes the losses to the model's ``parse_losses``, which sums
them outside autocast and before gradients are scaled or accumulated. During training a `LossHook` wraps that method, so one line
in a config's hooks serves every mmdet detector and mmpretrain classifier.
"""

from abc import abstractmethod
from math import isfinite

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.compat import unwrap_model


class LossHook(Hook):
    """Change the total loss between before_train and after_train; several hooks apply in order.

    A subclass keeps no reference to the model, so that copies of it (EMA) are independent. The change applies in each iteration,
    process and step of gradient accumulation; mmengine averages over these, so a parameter-only term is counted once.

    Attributes:
        log_names: Entries that the hook adds to the log. Two hooks with a name in common raise a ValueError in `before_train`;
            names that are not listed here are compared in the first iteration.
    """

    priority = 'NORMAL'
    log_names: tuple[str, ...] = ()

    @abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model that the hook does not support."""

    @abstractmethod
    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the new total loss; called with autocast off.

        Args:
            model: The model without wrappers.
            loss: Total loss so far, a scalar.

        Returns:
            The new total, and entries for the log by name.
        """

    def before_train(self, runner: Runner) -> None:
        """Wrap the model's ``parse_losses``.

        Raises:
            ValueError: The model is not mmengine's, is sharded by FSDP, or is not supported by the hook.
        """
        kinds = {kind.__name__ for module in runner.model.modules() for kind in type(module).__mro__}
        if 'FullyShardedDataParallel' in kinds:
            raise ValueError(f'{type(self).__name__}: the model is sharded by FSDP, so no process has all the parameters that '
                             'the loss depends on; use DistributedDataParallel')
        model = unwrap_model(runner.model)
        if not hasattr(model, 'parse_losses'):
            raise ValueError(f'{type(self).__name__}: {type(model).__name__} has no parse_losses; use a model of mmengine '
                             '(a detector of mmdet, a classifier of mmpretrain, or another BaseModel)')
        self.check_model(model)
        attach(self, model)

    def after_train(self, runner: Runner) -> None:
        """Restore the model's ``parse_losses``."""
        detach(self, unwrap_model(runner.model))


def attach(hook: LossHook, model: nn.Module) -> None:
    """Apply a hook whenever the model's ``parse_losses`` is called; idempotent.

    If another hook logs under the same name, all hooks are detached, so that training can start again without one of them.
    """
    parse = vars(model).get('parse_losses')
    if not isinstance(parse, _ParseLosses):
        parse = model.parse_losses = _ParseLosses(model, parse)
    if hook in parse.hooks:
        return
    taken = [name for other in parse.hooks for name in other.log_names if name in hook.log_names]
    if taken:
        for attached in list(parse.hooks):
            detach(attached, model)
        raise ValueError(_describe_clash(hook, taken[0]) + '. If an interrupted run left the other hook, start training again')
    parse.hooks.append(hook)


def detach(hook: LossHook, model: nn.Module) -> None:
    """Undo `attach`; the last hook restores the model's own ``parse_losses``."""
    parse = vars(model).get('parse_losses')
    if not isinstance(parse, _ParseLosses) or hook not in parse.hooks:
        return
    parse.hooks.remove(hook)
    if not parse.hooks:
        del model.parse_losses
        if parse.previous is not None:
            model.parse_losses = parse.previous


def is_number(value: object) -> bool:
    """Return whether a setting is a finite int or float (not a bool)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


class _ParseLosses:
    """Replacement for a model's ``parse_losses`` that applies hooks; copied and pickled with the model."""

    def __init__(self, model: nn.Module, previous: object) -> None:
        self.model = model
        self.previous = previous  # set on the instance by another package
        self.hooks = []

    def __call__(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        parse = self.previous or type(self.model).parse_losses.__get__(self.model)
        total, log_vars = parse(losses)
        logged = set()
        for hook in self.hooks:
            with torch.autocast(total.device.type, enabled=False):
                total, entries = hook.change_loss(self.model, total)
            for name in logged.intersection(entries):
                raise ValueError(_describe_clash(hook, name))
            logged.update(entries)
            log_vars.update(entries)
        log_vars['loss'] = total
        return total, log_vars


def _describe_clash(hook: LossHook, name: str) -> str:
    return (f'{type(hook).__name__}: another hook changes the loss and logs {name!r} too; leave one of them out of the config')
