"""Loss hooks: the changed loss, and the restored model after training."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.layers import DGConv, FilterBasis
from mmtied.training import GroupResourceHook, LossHook, OrthogonalityHook


class Toy(BaseModel):
    """The mean of a linear layer as loss."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, Tensor]:
        return {'loss': self.linear(inputs).mean()}


class Add(LossHook):
    """Adds a factor times the sum of squares of the weight."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def check_model(self, model: nn.Module) -> None:
        if not isinstance(model, Toy):
            raise ValueError('not a toy')

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        term = self.factor * (model.linear.weight @ model.linear.weight.T).sum()
        return loss + term, {f'loss_{self.factor}': term}


class Double(Add):
    """Doubles the loss so far."""

    def change_loss(self, model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return 2 * loss, {}


def parsed(model: Toy) -> tuple[Tensor, dict[str, Tensor]]:
    return model.parse_losses({'loss_a': torch.tensor(1.), 'loss_b': [torch.tensor(2.), torch.tensor(3.)]})


def squares(model: Toy) -> Tensor:
    return model.linear.weight.square().sum()


def test_changes_the_loss_only_during_training():
    model = Toy()
    runner = SimpleNamespace(model=model)
    hook = Add(0.5)
    hook.before_train(runner)
    hook.before_train(runner)  # idempotent
    total, log = parsed(model)
    torch.testing.assert_close(total, 6 + 0.5 * squares(model))
    assert list(log) == ['loss', 'loss_a', 'loss_b', 'loss_0.5']
    assert log['loss'] is total
    assert total.requires_grad
    hook.after_train(runner)
    assert parsed(model)[0] == 6
    assert 'parse_losses' not in vars(model)
    hook.after_train(runner)


def test_hooks_apply_in_order():
    model = Toy()
    runner = SimpleNamespace(model=model)
    hooks = [Add(0.5), Double(0.), Add(2.)]
    for hook in hooks:
        hook.before_train(runner)
    torch.testing.assert_close(parsed(model)[0], 2 * (6 + 0.5 * squares(model)) + 2 * squares(model))
    hooks[1].after_train(runner)
    torch.testing.assert_close(parsed(model)[0], 6 + 2.5 * squares(model))
    hooks[0].after_train(runner)
    hooks[2].after_train(runner)
    assert 'parse_losses' not in vars(model)


def test_restores_a_replaced_parse_losses():
    model = Toy()
    model.parse_losses = lambda losses: (torch.tensor(7.), {})
    before = model.parse_losses
    hook = Add(1.)
    hook.before_train(SimpleNamespace(model=model))
    torch.testing.assert_close(parsed(model)[0], 7 + squares(model))
    hook.after_train(SimpleNamespace(model=model))
    assert model.parse_losses is before


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_their_own_terms(duplicate):
    model = Toy()
    Add(1.).before_train(SimpleNamespace(model=model))
    other = duplicate(model)
    nn.init.zeros_(other.linear.weight)
    assert parsed(other)[0] == 6
    torch.testing.assert_close(parsed(model)[0], 6 + squares(model))
    assert list(model.state_dict()) == ['linear.weight', 'linear.bias']


def test_runs_outside_autocast():
    model = Toy()
    Add(1.).before_train(SimpleNamespace(model=model))
    with torch.autocast('cpu', torch.bfloat16):
        assert (model.linear.weight @ model.linear.weight.T).dtype == torch.bfloat16
        total, _ = parsed(model)
    torch.testing.assert_close(total, 6 + squares(model), rtol=1e-6, atol=0)


class Named(Add):
    """Declares its entry for the log."""

    def __init__(self, factor: float) -> None:
        super().__init__(factor)
        self.log_names = (f'loss_{factor}', )


def test_rejects_two_hooks_with_one_log_name():
    model = Toy()
    runner = SimpleNamespace(model=model)
    Named(0.5).before_train(runner)
    Named(2.).before_train(runner)
    with pytest.raises(ValueError, match=r"Named: another hook .* logs 'loss_0.5' too; leave one of them out of the config"):
        Named(0.5).before_train(runner)
    assert 'parse_losses' not in vars(model)  # so the same model can be trained again with one of them
    Named(0.5).before_train(runner)
    torch.testing.assert_close(parsed(model)[0], 6 + 0.5 * squares(model))


def test_rejects_undeclared_duplicate_log_names():
    model = Toy()
    for hook in (Add(0.5), Add(0.5)):
        hook.before_train(SimpleNamespace(model=model))
    with pytest.raises(ValueError, match="Add: another hook changes the loss and logs 'loss_0.5' too"):
        parsed(model)


@pytest.mark.parametrize('make', [OrthogonalityHook, GroupResourceHook])
def test_log_names_match_the_log(make):
    model = nn.Sequential(DGConv(8, 8, 1), FilterBasis(8, 8, 1))
    _, entries = make().change_loss(model, torch.ones(()))
    assert make.log_names == tuple(entries)


def test_duplicate_hooks_in_a_config(tmp_path):
    runner = Runner(
        BasisToy(), str(tmp_path), default_scope='mmengine', train_cfg={'by_epoch': True, 'max_epochs': 1},
        train_dataloader={'dataset': [], 'batch_size': 1, 'num_workers': 0, 'sampler': {'type': 'DefaultSampler'}},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        custom_hooks=[{'type': 'mmtied.OrthogonalityHook'}, {'type': 'mmtied.OrthogonalityHook', 'weight': 0.2}])
    with pytest.raises(ValueError, match="OrthogonalityHook: another hook changes the loss and logs 'loss_orthogonality' too"):
        runner.train()


class BasisToy(Toy):
    """With a basis."""

    def __init__(self) -> None:
        super().__init__()
        self.basis = FilterBasis(4, 2, 1)


def test_errors():
    with pytest.raises(ValueError, match='Add: Linear has no parse_losses; use a model of mmengine'):
        Add(1.).before_train(SimpleNamespace(model=nn.Linear(1, 1)))
    with pytest.raises(ValueError, match='not a toy'):
        Add(1.).before_train(SimpleNamespace(model=BaseModelOnly()))


class BaseModelOnly(BaseModel):
    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = 'loss') -> dict[str, Tensor]:
        return {}
