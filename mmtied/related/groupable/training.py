"""Training of learned groups: the resource constraint (Eq. 8 and 9), and a record of the groups (Figures 5 and 6)."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmtied.arguments import suggest_arguments
from mmtied.atomic import save_text
from mmtied.compat import unwrap_model
from mmtied.layers.blocks import check_positive
from mmtied.training.loss_hook import LossHook, is_number

from .layers import DGConv, gated_layers, is_open


@HOOKS.register_module()
@suggest_arguments
class GroupResourceHook(LossHook):
    """Multiply the loss by ``(o / zeta) ** alpha`` while zeta exceeds o.

    zeta is the number of channel pairs that the `DGConv` layers connect (Eq. 8); the bound o is ``sum(C_in * C_out) / b`` over
    these layers, the pairs that they would connect with b groups each. Neither includes layers without gates. Logged as ``zeta``,
    ``zeta_bound`` (o) and ``resource_factor``.

    The hook scales the whole loss, including the terms of earlier hooks.

    Args:
        b: Reduction of the layers' size relative to dense ones, at least 1; 32 is the complexity of ResNeXt-32x4d.
        alpha: Exponent, negative; the paper uses -0.02.

    Raises:
        ValueError: A setting is out of range, or, before training, the model has no trainable gates or more than o connections
            even with every gate closed.

    Example:
        In a config: ``default_hooks = dict(resource=dict(type='mmtied.GroupResourceHook', b=32))``.
    """

    log_names = ('zeta', 'zeta_bound', 'resource_factor')

    def __init__(self, b: float = 32, alpha: float = -0.02) -> None:
        if not is_number(b) or not b >= 1:
            raise ValueError(f'GroupResourceHook: b={b!r}, expected a number >= 1; 1 is the complexity of dense convolutions')
        if not is_number(alpha) or not alpha < 0:
            raise ValueError(f'GroupResourceHook: alpha={alpha!r}, expected a negative number, for example -0.02; to train '
                             'without the constraint, leave the hook out')
        self.b = b
        self.alpha = alpha

    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model without trainable gates, or with a bound that it cannot meet."""
        layers = list(gated_layers(model).values())
        if not any(layer.gates.requires_grad for layer in layers):
            found = 'only frozen gates' if layers else 'no DGConv with gates'
            raise ValueError(f'GroupResourceHook: {type(model).__name__} has {found}; use the backbone mmtied.GResNeXt without '
                             "groups, or conv_cfg=dict(type='DGConv')")
        least, bound = int(_sizes(layers).sum()), resource_bound(layers, self.b)
        if least > bound:
            raise ValueError(f'GroupResourceHook: b={self.b} bounds zeta by {bound:.0f}, but {type(model).__name__} has '
                             f'{least} connections with every gate closed; use b up to {bound * self.b / least:.1f}')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scale the loss while there are too many connections."""
        layers = list(gated_layers(model).values())
        zeta = connections(layers).sum().to(loss.device)
        bound = zeta.new_tensor(resource_bound(layers, self.b))
        factor = torch.where(zeta > bound, (bound / zeta)**self.alpha, 1.)
        return loss * factor.to(loss.dtype), {'zeta': zeta.detach(), 'zeta_bound': bound, 'resource_factor': factor.detach()}


def resource_bound(layers: list[DGConv], b: float) -> float:
    """Compute the bound o of these layers: the sum of C_in * C_out, divided by b."""
    return sum(layer.in_channels * layer.out_channels for layer in layers) / b


def connections(layers: list[DGConv]) -> Tensor:
    """Count the channel pairs that each of L layers connects (zeta, Eq. 9), shape (L,), float64; gradients reach the gates.

    Example:
        >>> layer = DGConv(8, 8, 1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., 1., -1.]))
        >>> connections([layer]).item()  # 8 * 2 * 2 * 1
        32.0
    """
    device = layers[0].gates.device
    gates = pad_sequence([layer.gates.to(device, torch.float64) for layer in layers], batch_first=True, padding_value=-1.)
    factors = 1 + is_open(gates).to(gates.dtype) + (gates - gates.detach())  # a straight-through gradient of the sign function
    return _sizes(layers).to(device) * factors.prod(1)


def _sizes(layers: list[DGConv]) -> Tensor:
    """Count the connections with every gate closed, shape (L,), float64."""
    return torch.tensor([layer.in_channels * layer.out_channels / 2**len(layer.gates) for layer in layers], dtype=torch.float64)


@dataclass
class GroupHistory:
    """Gates of every layer over the course of training.

    Attributes:
        channels: Output channels of each layer, by its name in the model.
        iterations: Completed iterations at each record.
        gates: Real gates of each layer at each record.

    Example:
        >>> history = GroupHistory({'conv': 8})
        >>> history.record(0, [DGConv(8, 8, 1)])
        >>> history.iterations, len(history.gates[0][0])
        ([0], 3)
    """

    channels: dict[str, int]
    iterations: list[int] = field(default_factory=list)
    gates: list[list[list[float]]] = field(default_factory=list)

    def record(self, iteration: int, layers: list[DGConv]) -> None:
        """Add the current gates of the layers, given in the order of `channels`."""
        self.iterations.append(iteration)
        gates = torch.cat([layer.gates.detach() for layer in layers]).cpu()  # one transfer from the device
        self.gates.append([part.tolist() for part in gates.split([len(layer.gates) for layer in layers])])

    def group_numbers(self) -> list[list[int]]:
        """Return the number of groups of each layer at each record."""
        return [[2**sum(gate < 0 for gate in gates) for gates in layers] for layers in self.gates]

    def forget_from(self, iteration: int) -> None:
        """Drop the records of this iteration and later ones."""
        kept = sum(recorded < iteration for recorded in self.iterations)
        del self.iterations[kept:], self.gates[kept:]

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON file atomically."""
        save_text(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'GroupHistory':
        """Read a file that `save` wrote; a damaged one raises a ValueError."""
        try:
            return cls(**json.loads(Path(path).read_bytes()))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f'{path}: not a history of groups; move it away to start a new one') from None


@HOOKS.register_module()
@suggest_arguments
class GroupHistoryHook(Hook):
    """Log the number of groups of every `DGConv` during training, and draw Figures 5 and 6 of the paper.

    Group numbers go to the visualizer (such as TensorBoard) as ``groups/<layer>``. At every checkpoint and at the end, the hook
    writes to ``<work_dir>/groups/``: ``history.json`` (`GroupHistory`), ``group_numbers.png`` (Figure 5) and
    ``learning_dynamics.png`` (groups and gates over the iterations, Figure 6). The last record in ``history.json`` matches the
    checkpoint. A resumed run continues the file.

    Args:
        interval: Recording interval in iterations. The hook also records before training, at checkpoints and at the end.

    Raises:
        ValueError: The interval is not a positive integer, or, before training, the model has no gates.

    Example:
        In a config: ``default_hooks = dict(history=dict(type='mmtied.GroupHistoryHook'))``.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 100) -> None:
        check_positive('GroupHistoryHook', interval=interval)
        self.interval = interval
        self.history: GroupHistory | None = None
        self._trained = 0  # completed iterations; runner.iter may be one behind when a checkpoint is saved

    def before_train(self, runner: Runner) -> None:
        """Start a history, or continue that of a resumed run."""
        model = unwrap_model(runner.model)
        layers = gated_layers(model)
        if not layers:
            raise ValueError(f'GroupHistoryHook: {type(model).__name__} has no DGConv with gates; use the backbone '
                             'mmtied.GResNeXt without groups')
        self.history = GroupHistory({name: layer.out_channels for name, layer in layers.items()})
        path = _folder(runner) / 'history.json'
        if runner.iter > 0 and path.is_file():
            before = GroupHistory.load(path)
            if before.channels == self.history.channels:
                self.history = before
                self.history.forget_from(runner.iter)
        self._trained = runner.iter
        self._record(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Record at the interval."""
        self._trained = runner.iter + 1
        if self.every_n_train_iters(runner, self.interval):
            self._record(runner)
            numbers = zip(self.history.channels, self.history.group_numbers()[-1], strict=True)
            runner.visualizer.add_scalars({f'groups/{name}': number for name, number in numbers}, step=runner.iter + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write the files up to the saved state, unless nothing was trained."""
        if self.history is not None:
            self._record(runner)
            self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the files, and pass the pictures to the visualizer."""
        self._record(runner)
        self._write(runner, show=True)

    def _record(self, runner: Runner) -> None:
        """Record the current gates, once per iteration."""
        if self._trained not in self.history.iterations[-1:]:
            self.history.record(self._trained, list(gated_layers(unwrap_model(runner.model)).values()))

    @master_only
    def _write(self, runner: Runner, show: bool = False) -> None:
        from mmtied.plotting import to_rgb, write_figure

        from .plots import plot_group_numbers, plot_learning_dynamics

        self.history.save(_folder(runner) / 'history.json')
        figures = {'group_numbers': plot_group_numbers(self.history), 'learning_dynamics': plot_learning_dynamics(self.history)}
        for name, figure in figures.items():
            write_figure(figure, _folder(runner) / f'{name}.png')
            if show:
                runner.visualizer.add_image(name, to_rgb(figure), step=runner.iter)


def _folder(runner: Runner) -> Path:
    return Path(runner.work_dir) / 'groups'
