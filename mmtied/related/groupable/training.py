"""How the groups of a network develop while it trains: kept, written as a file, and drawn.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867, Figures 5 and 6.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.rnn import pad_sequence

from mmtied.atomic import atomic_path
from mmtied.training.loss_hook import LossHook, is_number

from .layers import DGConv, gated_layers, is_open


@dataclass
class GroupHistory:
    """The gates of every layer at some iterations.

    Attributes:
        channels: Output channels of each layer, by its name in the model.
        iterations: How many iterations had been trained.
        gates: At each of these, for each layer, the real gates.

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
        """Add what the layers, in the order of `channels`, have now."""
        joined = torch.cat([layer.gates.detach() for layer in layers]).tolist()  # one transfer from the device
        values = iter(joined)
        self.iterations.append(iteration)
        self.gates.append([[next(values) for _ in layer.gates] for layer in layers])

    def group_numbers(self) -> list[list[int]]:
        """The number of groups at each iteration, for each layer."""
        return [[2**sum(gate < 0 for gate in gates) for gates in layers] for layers in self.gates]

    def forget_from(self, iteration: int) -> None:
        """Drop what was recorded at this iteration and later."""
        kept = sum(recorded < iteration for recorded in self.iterations)
        del self.iterations[kept:], self.gates[kept:]

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON file, whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding='utf-8')

    @classmethod
    def load(cls, path: str | os.PathLike) -> 'GroupHistory':
        """Read what `save` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding='utf-8')))


@HOOKS.register_module()
class GroupHistoryHook(Hook):
    """Logs the number of groups and the gates of every `DGConv` as they are learned, and draws Figures 5 and 6 of the paper.

    Numbers of groups go to the visualizer (TensorBoard and others) as ``groups/<layer>``. Whenever a checkpoint is saved, and at
    the end, these files are written into ``<work_dir>/groups/``: ``history.json`` (`GroupHistory`), ``group_numbers.png`` (the
    groups of each layer, as Figure 5) and ``learning_dynamics.png`` (groups and gates over the iterations, as Figure 6). Their
    last record is what the checkpoint has. A resumed run goes on with the file.

    Args:
        interval: Record every so many iterations; besides, before the first, at each checkpoint, and at the end.

    Raises:
        ValueError: An interval that is no positive integer, or, as training begins, a model without gates.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.GroupHistoryHook')]``.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 100) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ValueError(f'GroupHistoryHook: interval={interval!r}, expected 1 or more iterations, a whole number')
        self.interval = interval
        self.history: GroupHistory | None = None
        self._trained = 0  # iterations; while a checkpoint is saved runner.iter may be one behind

    def before_train(self, runner: Runner) -> None:
        """Start a history, or go on with that of the run that is resumed."""
        layers = gated_layers(_unwrap(runner.model))
        if not layers:
            raise ValueError(f'GroupHistoryHook: {type(_unwrap(runner.model)).__name__} has no DGConv with gates; the backbone '
                             'mmtied.GResNeXt has them, without its argument groups')
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
        """Write the files, up to the state that is saved; a checkpoint of a model that is not trained has none."""
        if self.history is not None:
            self._record(runner)
            self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the files, and hand the pictures to the visualizer."""
        self._record(runner)
        self._write(runner, show=True)

    def _record(self, runner: Runner) -> None:
        """Record the gates as they are, unless they are in the history."""
        if self._trained not in self.history.iterations[-1:]:
            self.history.record(self._trained, list(gated_layers(_unwrap(runner.model)).values()))

    @master_only
    def _write(self, runner: Runner, show: bool = False) -> None:
        from mmtied.plotting import to_rgb

        from .plots import plot_group_numbers, plot_learning_dynamics

        self.history.save(_folder(runner) / 'history.json')
        figures = {'group_numbers': plot_group_numbers(self.history), 'learning_dynamics': plot_learning_dynamics(self.history)}
        for name, figure in figures.items():
            with atomic_path(_folder(runner) / f'{name}.png') as temporary:
                figure.savefig(temporary)
            if show:
                runner.visualizer.add_image(name, to_rgb(figure), step=runner.iter)


def _folder(runner: Runner) -> Path:
    return Path(runner.work_dir) / 'groups'


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


@HOOKS.register_module()
class GroupResourceHook(LossHook):
    """Multiplies the loss by ``(o / zeta) ** alpha`` while zeta is more than o, and leaves it alone otherwise.

    zeta is the number of pairs of channels that the `DGConv` layers connect (Eq. 8), and o the bound, ``sum(C_in * C_out) / b``
    over these layers: what they would connect with b groups each. Layers without gates are left out of both. Logged as ``zeta``,
    ``zeta_bound`` (o) and ``resource_factor``.

    It scales the whole loss, the regularisation terms of hooks before it included.

    Args:
        b: How much smaller than dense the layers become, at least 1; 32 is the complexity of ResNeXt-32x4d.
        alpha: The exponent, negative; the paper's is -0.02.

    Raises:
        ValueError: Settings out of range, or, as training begins, a model without gates to train, or one that has more than o
            connections with every gate closed.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.GroupResourceHook', b=32)]``.
    """

    log_names = ('zeta', 'zeta_bound', 'resource_factor')

    def __init__(self, b: float = 32, alpha: float = -0.02) -> None:
        if not is_number(b) or not b >= 1:
            raise ValueError(f'GroupResourceHook: b={b!r}, expected at least 1, a number that is finite; 1 is the complexity of '
                             'dense convolutions')
        if not is_number(alpha) or not alpha < 0:
            raise ValueError(f'GroupResourceHook: alpha={alpha!r}, expected less than 0, a number that is finite, for example '
                             '-0.02; to train without the constraint leave the hook out')
        self.b = b
        self.alpha = alpha

    def check_model(self, model: nn.Module) -> None:
        """Raise a ValueError for a model without gates to train, or with a bound that it cannot meet."""
        layers = list(gated_layers(model).values())
        if not any(layer.gates.requires_grad for layer in layers):
            what = 'only gates that are frozen' if layers else 'no DGConv with gates'
            raise ValueError(f'GroupResourceHook: {type(model).__name__} has {what}; the backbone mmtied.GResNeXt has gates to '
                             "train (without its argument groups), and so has conv_cfg=dict(type='DGConv')")
        least, bound = int(_sizes(layers).sum()), resource_bound(layers, self.b)
        if least > bound:
            raise ValueError(f'GroupResourceHook: b={self.b} bounds zeta by {bound:.0f}, but {type(model).__name__} has '
                             f'{least} connections with every gate closed; b can be up to {bound * self.b / least:.1f}')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scale the loss while there are too many connections."""
        layers = list(gated_layers(model).values())
        zeta = connections(layers).sum().to(loss.device)
        bound = zeta.new_tensor(resource_bound(layers, self.b))
        factor = torch.where(zeta > bound, (bound / zeta)**self.alpha, 1.)
        return loss * factor.to(loss.dtype), {'zeta': zeta.detach(), 'zeta_bound': bound, 'resource_factor': factor.detach()}


def resource_bound(layers: list[DGConv], b: float) -> float:
    """The bound o for these layers: the sum of C_in * C_out, divided by b."""
    return sum(layer.in_channels * layer.out_channels for layer in layers) / b


def connections(layers: list[DGConv]) -> Tensor:
    """Zeta of each layer: how many pairs of channels it connects (Eq. 9), shape (L,), float64; gradients reach the gates.

    Example:
        >>> layer = DGConv(8, 8, 1)
        >>> _ = layer.gates.data.copy_(torch.tensor([1., 1., -1.]))
        >>> connections([layer]).item()  # 8 * 2 * 2 * 1
        32.0
    """
    device = layers[0].gates.device
    gates = pad_sequence([layer.gates.to(device, torch.float64) for layer in layers], batch_first=True, padding_value=-1.)
    return _Connections.apply(gates, _sizes(layers).to(device))


def _sizes(layers: list[DGConv]) -> Tensor:
    """Connections with every gate closed, shape (L,), float64."""
    return torch.tensor([layer.in_channels * layer.out_channels / 2**len(layer.gates) for layer in layers], dtype=torch.float64)


class _Connections(Function):
    """Eq. 9, ``size * prod(1 + g)``, with the sign function's gradient passed unchanged."""

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor, sizes: Tensor) -> Tensor:
        """Real gates (L, K) and sizes (L,) to (L,)."""
        factors = 1 + is_open(gates).to(gates.dtype)
        values = sizes * factors.prod(1)
        ctx.save_for_backward(factors, values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """The derivative with respect to g_k is the product without its factor."""
        factors, values = ctx.saved_tensors
        return (gradient * values)[:, None] / factors, None
