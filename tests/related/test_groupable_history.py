"""The record of learned groups: its contents, file, plots, and resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.layers import DGConv
from mmtied.related.groupable.plots import plot_group_numbers, plot_learning_dynamics
from mmtied.training import GroupHistory, GroupHistoryHook


class Toy(BaseModel):
    """Two layers that learn groups, of 8 and 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = DGConv(8, 8, 1), DGConv(8, 4, 1)

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, Tensor] | list:
        loss = (self.second(self.first(inputs)) - 1).square().mean()
        return {'loss': loss} if mode == 'loss' else [{'loss': loss.item()}]


class Samples(torch.utils.data.Dataset):
    """Seven random images."""

    def __init__(self) -> None:
        self.values = torch.randn(7, 8, 2, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': self.values[index]}


class Spy(GroupHistoryHook):
    """Keeps the gates after each iteration."""

    seen: dict[int, list[list[float]]]

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self.seen[runner.iter + 1] = [layer.gates.tolist() for layer in (runner.model.first, runner.model.second)]
        super().after_train_iter(runner, *args, **kwargs)


def run(model: nn.Module, folder: Path, epochs: int, resume: bool = False, checkpoints: dict | None = None,
        **settings) -> tuple[Runner, Spy]:
    spy = Spy(interval=3)
    spy.seen = {}
    runner = Runner(
        model, str(folder), resume=resume, default_scope='mmengine', experiment_name=f'{folder.name}{epochs}',
        train_dataloader={'dataset': Samples(), 'batch_size': 1, 'num_workers': 0, 'collate_fn': {'type': 'default_collate'},
                          'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        train_cfg={'by_epoch': True, 'max_epochs': epochs}, visualizer={'type': 'Visualizer', 'vis_backends': [
            {'type': 'LocalVisBackend'}]},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.05}}, custom_hooks=[spy, *settings.pop('custom_hooks', [])],
        default_hooks={'checkpoint': {'type': 'CheckpointHook', **(checkpoints or {'interval': 1})}}, **settings)
    runner.train()
    return runner, spy


def test_records_a_run(tmp_path):
    model = Toy()
    start = [layer.gates.tolist() for layer in (model.first, model.second)]
    runner, spy = run(model, tmp_path, epochs=2)
    history = GroupHistory.load(tmp_path / 'groups/history.json')
    assert history.channels == {'first': 8, 'second': 4}
    assert history.iterations == [0, 3, 6, 7, 9, 12, 14]  # with a checkpoint after 7 and after 14
    assert history.gates[0] == start
    assert history.gates[1:] == [spy.seen[iteration] for iteration in history.iterations[1:]]
    assert history.group_numbers()[-1] == [model.first.group_number, model.second.group_number]
    for name in ('group_numbers.png', 'learning_dynamics.png'):
        assert (tmp_path / 'groups' / name).read_bytes().startswith(b'\x89PNG')
    scalars = [json.loads(line) for path in Path(runner.visualizer._vis_backends['LocalVisBackend']._save_dir).glob('*.json')
               for line in path.read_text().splitlines()]
    logged = {line['step']: line['groups/first'] for line in scalars if 'groups/first' in line}
    first = {iteration: numbers[0] for iteration, numbers in zip(history.iterations, history.group_numbers(), strict=True)}
    assert logged == {iteration: first[iteration] for iteration in (3, 6, 9, 12)}


def test_resumed_run_continues_the_file(tmp_path):
    torch.manual_seed(0)
    run(Toy(), tmp_path / 'straight', epochs=2)
    torch.manual_seed(0)
    run(Toy(), tmp_path / 'interrupted', epochs=1)
    run(Toy(), tmp_path / 'interrupted', epochs=2, resume=True)
    straight, resumed = (GroupHistory.load(tmp_path / name / 'groups/history.json') for name in ('straight', 'interrupted'))
    assert resumed.iterations == straight.iterations == [0, 3, 6, 7, 9, 12, 14]
    for mine, theirs in zip(resumed.gates, straight.gates, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one == pytest.approx(other)


class AtCheckpoints(Hook):
    """Compares the file with each new checkpoint."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def _look(self, runner) -> None:
        folder = Path(runner.work_dir)
        for path in sorted(folder.glob('*.pth')):
            if path.name not in self.seen:
                history = GroupHistory.load(folder / 'groups/history.json')
                weights = torch.load(path, weights_only=False)['state_dict']
                assert history.gates[-1] == [weights['first.gates'].tolist(), weights['second.gates'].tolist()]
                self.seen[path.name] = history.iterations[-1]

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self._look(runner)

    def after_train_epoch(self, runner) -> None:
        self._look(runner)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._look(runner)


@pytest.mark.parametrize(('checkpoints', 'expected', 'iterations'), [
    ({'interval': 1}, {'epoch_1.pth': 7, 'epoch_2.pth': 14}, [0, 3, 6, 7, 9, 12, 14]),
    ({'interval': 4, 'by_epoch': False}, {'iter_4.pth': 4, 'iter_8.pth': 8, 'iter_12.pth': 12, 'iter_14.pth': 14},
     [0, 3, 4, 6, 8, 9, 12, 14]),
    ({'interval': 2, 'save_best': 'score', 'rule': 'greater'},
     {'best_score_epoch_1.pth': 7, 'epoch_2.pth': 14, 'best_score_epoch_2.pth': 14}, [0, 3, 6, 7, 9, 12, 14]),
], ids=['epochs', 'iterations', 'best'])
def test_file_matches_each_checkpoint(tmp_path, checkpoints, expected, iterations):
    looks = AtCheckpoints()
    validation = {}
    if 'save_best' in checkpoints:
        validation = {'val_cfg': {}, 'val_evaluator': [Rising()], 'val_dataloader': {
            'dataset': Samples(), 'num_workers': 0, 'collate_fn': {'type': 'default_collate'},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False}}}
    run(Toy(), tmp_path, epochs=2, checkpoints=checkpoints, custom_hooks=[looks], **validation)
    assert looks.seen == expected
    assert GroupHistory.load(tmp_path / 'groups/history.json').iterations == iterations


class Rising(BaseMetric):
    """Better each time."""

    times = 0

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.times += 1
        return {'score': float(self.times)}


def test_checkpoint_without_training(tmp_path):
    runner, hook = run(Toy(), tmp_path, epochs=1)
    hook.__init__()
    runner.save_checkpoint(str(tmp_path), 'again.pth')
    assert GroupHistory.load(tmp_path / 'groups/history.json').iterations == [0, 3, 6, 7]


def test_new_run_in_the_same_folder_starts_over(tmp_path):
    run(Toy(), tmp_path, epochs=1)
    run(Toy(), tmp_path, epochs=1)
    assert GroupHistory.load(tmp_path / 'groups/history.json').iterations == [0, 3, 6, 7]


def example() -> GroupHistory:
    """Ten layers; those with even numbers close a gate during training."""
    history = GroupHistory({f'backbone.layer{i // 5}.{i % 5}.grouped.conv': 8 * 2**(i // 5) for i in range(10)})
    for iteration in range(4):
        history.iterations.append(10 * iteration)
        history.gates.append([[.1, .1 - .06 * iteration * (i % 2 == 0), -.2] + [.3] * (i // 5) for i in range(10)])
    return history


def test_plot_of_group_numbers():
    axes, = plot_group_numbers(example()).axes
    assert [bar.get_height() for bar in axes.patches] == [4, 2] * 5
    assert [label.get_text() for label in axes.get_xticklabels()] == ['8'] * 5 + ['16'] * 5
    early, = plot_group_numbers(example(), record=0).axes
    assert [bar.get_height() for bar in early.patches] == [2] * 10


def test_plot_of_learning_dynamics():
    figure = plot_learning_dynamics(example())
    drawn = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert len(drawn) == 10
    axes = drawn['layer0.2, 8 channels']
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 2, 4, 4])
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 10, 20, 30])
    below = figure.axes[8 + 2]
    opened, closed = (np.transpose(line.get_data()) for line in below.lines[2:4])
    crossing = 10 + 10 * 2 / 3
    np.testing.assert_allclose(opened[~np.isnan(opened[:, 1])], [(0, .1), (10, .04), (crossing, 0)], atol=1e-15)
    np.testing.assert_allclose(closed[~np.isnan(closed[:, 1])], [(crossing, 0), (20, -.02), (30, -.08)], atol=1e-15)


@pytest.mark.parametrize('gates', [[.1, -.2, .1, -.3], [-.1, 0., .2], [.2, 0., -.1], [-1e-8, .2], [.1]])
def test_every_sample_of_a_gate_is_drawn(gates):
    """Lines are red above 0 and gray below, without gaps: each sample's pixel has that color."""
    history = GroupHistory({'conv': 2}, [10 * i for i in range(len(gates))], [[[gate]] for gate in gates])
    figure = plot_learning_dynamics(history)
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(int)
    below = figure.axes[1]
    middles = [((i + j) / 2, (gates[i] + gates[j]) / 2) for i, j in zip(range(len(gates)), range(1, len(gates)), strict=False)]
    for iteration, gate in [*zip(history.iterations, gates, strict=True), *((10 * place, gate) for place, gate in middles)]:
        column, row = np.rint(below.transData.transform((iteration, gate))).astype(int)
        spot = image[row - 3:row + 4, column - 3:column + 4]
        red = ((spot[..., 0] > 200) & (spot[..., 2] < 120)).any()
        gray = (np.abs(spot - [0x8d, 0x99, 0xae]) < 25).all(-1).any()
        assert red if gate > 1e-3 else gray if gate < -1e-3 else red or gray


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: GroupHistoryHook(interval=0), 'interval=0, expected a positive integer'),
    (lambda: GroupHistoryHook(interval=True), 'interval=True, expected a positive integer'),
    (lambda: GroupHistoryHook(interval='10'), "interval='10', expected a positive integer"),
    (lambda: GroupHistoryHook(interval=2.5), 'interval=2.5, expected a positive integer'),
    (lambda: GroupHistoryHook().before_train(type('R', (), {'model': nn.Conv2d(1, 1, 1)})()), 'Conv2d has no DGConv with gates'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
