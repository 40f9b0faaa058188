"""The resource constraint: zeta and its gradient against U itself, and runs against a plain loop."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmtied.layers import DGConv
from mmtied.related.groupable.layers import gated_layers
from mmtied.related.groupable.training import connections, resource_bound
from mmtied.training import GroupResourceHook
from mmtied.training.loss_hook import attach
from tests.helpers.loss_hooks import (
    DistanceModel,
    RandomImages,
    assert_same_weights,
    check_two_processes,
    logged,
    make_openmmlab_model,
    make_runner,
    train_plainly,
)

B, ALPHA = 2, -0.5


class Toy(DistanceModel):
    """An ordinary convolution and three that learn groups."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(DGConv(3, 8, 1), DGConv(8, 8, 3, padding=1), DGConv(8, 16, 1), DGConv(16, 16, 1))


def with_gates(*gates: tuple[int, ...]) -> Toy:
    model = Toy()
    for layer, values in zip(list(model.layers)[1:], gates, strict=True):
        layer.gates.data.copy_(torch.tensor(values) * 2. - 1)
    return model


MUCH, LITTLE = ((1, 1, 1), (1, 1, 0), (1, 0, 1, 1)), ((0, 0, 1), (1, 0, 0), (1, 0, 0, 1))


def manual_zeta(model: Toy) -> Tensor:
    """Eq. 8: the sum of all elements of all U, with U's own gradient."""
    return sum(layer.relationship().sum() for layer in list(model.layers)[1:])


def manual_bound() -> float:
    return (8 * 8 + 8 * 16 + 16 * 16) / B


def manual_factor(model: Toy) -> Tensor:
    zeta = manual_zeta(model)
    return (manual_bound() / zeta)**ALPHA if zeta > manual_bound() else torch.ones(())


DATA = RandomImages((3, 4, 4), (16, 4, 4))


def runner_for(model: nn.Module, folder, **settings):
    return make_runner(model, DATA, folder, {'type': 'mmtied.GroupResourceHook', 'b': B, 'alpha': ALPHA}, **settings)


def train_with_factor(model: Toy, epochs: int, accumulate: int) -> list[float]:
    """Train in plain PyTorch; return the factors."""
    factors = []

    def change_loss(loss: Tensor) -> Tensor:
        factors.append(manual_factor(model))
        return loss * factors[-1]

    train_plainly(model, DATA, change_loss, epochs, accumulate)
    return [factor.item() for factor in factors]


@pytest.mark.parametrize('gates', [MUCH, LITTLE, ((0, 0, 0), (0, 0, 0), (0, 0, 0, 0))])
def test_zeta_and_its_gradient(gates):
    model, other = with_gates(*gates), with_gates(*gates)
    zeta = connections(list(gated_layers(model).values()))
    assert zeta.tolist() == [layer.relationship().sum().item() for layer in list(model.layers)[1:]]
    zeta.sum().backward()
    manual_zeta(other).backward()
    for layer, theirs in zip(list(model.layers)[1:], list(other.layers)[1:], strict=True):
        torch.testing.assert_close(layer.gates.grad, theirs.gates.grad)


def test_zeta_of_equal_widths():
    layer = DGConv(16, 16, 3)
    for _ in range(5):
        layer.reset_gates()
        product = 16
        for gate in layer.open_gates:
            product *= 1 + gate
        assert connections([layer]).item() == product


@pytest.mark.parametrize(('gates', 'above'), [(MUCH, True), (LITTLE, False)])
def test_scales_the_loss(gates, above):
    model, other = with_gates(*gates), with_gates(*gates)
    hook = GroupResourceHook(B, ALPHA)
    loss, log = hook.change_loss(model, (model.layers(torch.ones(1, 3, 4, 4)) - 1).square().mean())
    other.load_state_dict(model.state_dict())
    expected = (other.layers(torch.ones(1, 3, 4, 4)) - 1).square().mean() * manual_factor(other)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert (log['zeta'] > log['zeta_bound']) == above == (log['resource_factor'] > 1)
    assert (log['zeta'], log['zeta_bound']) == (manual_zeta(model), manual_bound())
    assert not any(entry.requires_grad for entry in log.values())
    assert loss.dtype == torch.float32


def test_loss_is_unchanged_at_the_bound():
    """b groups in every layer give exactly o (ResNeXt-32x4d with b = 32), which satisfies the constraint."""
    model = nn.Sequential(DGConv(64, 64, 1), DGConv(128, 128, 1))
    for layer in model:
        layer.gates.data.copy_(torch.tensor([-1.] * 5 + [1.] * (len(layer.gates) - 5)))
        assert layer.group_number == 32
    loss, log = GroupResourceHook(32).change_loss(model, torch.tensor(3.))
    assert (loss, log['resource_factor']) == (3, 1)
    assert log['zeta'] == log['zeta_bound'] == resource_bound(list(model), 32)


@pytest.mark.parametrize('accumulate', [1, 3])
def test_training_matches_plain_loop(tmp_path, accumulate):
    model = with_gates(*MUCH)
    plain = copy.deepcopy(model)
    runner = runner_for(model, tmp_path, accumulate=accumulate)
    runner.train()
    factors = train_with_factor(plain, 2, accumulate)
    assert_same_weights(model, plain)
    assert 'parse_losses' not in vars(model)
    expected = torch.tensor(factors, dtype=torch.float64)
    torch.testing.assert_close(logged(runner, 'resource_factor'), expected, rtol=1e-5, atol=0)
    total = logged(runner, 'loss_distance') * logged(runner, 'resource_factor')
    torch.testing.assert_close(logged(runner, 'loss'), total, rtol=1e-5, atol=0)
    assert factors[0] > 1


def test_resuming(tmp_path):
    model = with_gates(*MUCH)
    straight, interrupted = copy.deepcopy(model), copy.deepcopy(model)
    runner_for(straight, tmp_path / 'straight').train()
    runner_for(interrupted, tmp_path / 'interrupted', epochs=1).train()
    resumed = Toy()
    runner_for(resumed, tmp_path / 'interrupted', resume=True).train()
    assert_same_weights(resumed, straight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='mmengine trains with AMP on GPUs only')
def test_mixed_precision(tmp_path):
    model = with_gates(*MUCH).cuda()
    plain = copy.deepcopy(model).cpu()
    runner_for(model, tmp_path, epochs=1, type='AmpOptimWrapper', loss_scale=512.).train()
    train_with_factor(plain, 1, 1)
    assert_same_weights(model.cpu(), plain, rtol=0.05, atol=0.01)


def test_exact_under_autocast():
    model = with_gates(*MUCH)
    attach(GroupResourceHook(B, ALPHA), model)
    with torch.autocast('cpu', torch.bfloat16):
        total, log = model.parse_losses({'loss': torch.ones(())})
    torch.testing.assert_close(total, manual_factor(model))
    assert log['zeta'] == manual_zeta(model)


def make_connected() -> Toy:
    return with_gates(*MUCH)


def test_two_processes_equal_one(tmp_path):
    gradients = check_two_processes(tmp_path, make_connected, GroupResourceHook(B, ALPHA), DATA)
    assert any(key.endswith('gates') for key in gradients)


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_openmmlab_models(kind):
    """One config line in mmdet and in mmpretrain."""
    model, batch = make_openmmlab_model(kind, {'type': 'mmtied.GResNeXt', 'depth': 50, 'base_channels': 8})
    for layer in gated_layers(model).values():
        nn.init.ones_(layer.gates)  # everything connected
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.))
    before = model.train_step(copy.deepcopy(batch), optimizer)
    hook = HOOKS.build({'type': 'mmtied.GroupResourceHook', 'b': 16})
    hook.check_model(model)
    attach(hook, model)
    after = model.train_step(batch, optimizer)
    torch.testing.assert_close(after['loss'], before['loss'] * 16**0.02)
    assert after['zeta'] == 16 * after['zeta_bound']


def test_training_brings_zeta_to_the_bound():
    """Starting with all connections, in a short run with the paper's alpha; without the term zeta stays far above."""
    ends = {}
    for with_term in (True, False):
        torch.manual_seed(0)
        model = with_gates(*([1] * len(values) for values in MUCH))
        for layer in list(model.layers)[1:]:
            layer.gates.data *= 1e-8
        if with_term:
            attach(GroupResourceHook(8, -0.02), model)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
        for batch in list(torch.utils.data.DataLoader(DATA, 12)) * 150:
            model.train_step(batch, optimizer)
        ends[with_term] = connections(list(gated_layers(model).values())).sum().item()
    bound = resource_bound(list(gated_layers(model).values()), 8)
    assert ends[True] <= bound < ends[False]


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: GroupResourceHook(b=0.5), 'b=0.5, expected a number >= 1'),
    (lambda: GroupResourceHook(b='64'), "b='64', expected a number >= 1"),
    (lambda: GroupResourceHook(b=float('nan')), 'b=nan, expected a number'),
    (lambda: GroupResourceHook(alpha=None), 'alpha=None, expected a negative number'),
    (lambda: GroupResourceHook(b=float('inf')), 'b=inf, expected a number'),
    (lambda: GroupResourceHook(alpha=float('-inf')), 'alpha=-inf, expected a negative number'),
    (lambda: GroupResourceHook(alpha=0.02), 'alpha=0.02, expected a negative number'),
    (lambda: GroupResourceHook().check_model(nn.Conv2d(4, 4, 1)), 'Conv2d has no DGConv with gates; use the backbone'),
    (lambda: GroupResourceHook(1).check_model(DGConv(4, 4, 1).requires_grad_(False)), 'only frozen gates'),
    (lambda: GroupResourceHook(16).check_model(DGConv(8, 16, 1)), 'has 16 connections with every gate closed; use b up to 8'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
