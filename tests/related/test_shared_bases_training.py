"""The orthogonality term against plain PyTorch, in runs with accumulation, resuming, AMP and two processes."""

import copy

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmtied.backbones import SharedResNet, SharedResNetCIFAR
from mmtied.layers import FilterBasis, SharedBasisConv
from mmtied.related.shared_bases.backbones import SharedStage
from mmtied.related.shared_bases.training import basis_deviations
from mmtied.training import OrthogonalityHook
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

WEIGHT = 0.05


class Toy(DistanceModel):
    """Two shared bases in three layers each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(self._stage() for _ in range(2)))

    @staticmethod
    def _stage() -> SharedStage:
        basis = FilterBasis(4, 4, 3)
        return SharedStage([SharedBasisConv(4, 4, 3, padding=1, filters=basis) for _ in range(3)], {'basis': basis})


def manual_term(model: nn.Module) -> Tensor:
    """Eq. 7 written out, with one W for each of the two stages."""
    total = torch.zeros(())
    for stage in (model.layers[0], model.layers[1]):
        matrix = stage.bases['basis'].weight.permute(2, 3, 1, 0).reshape(-1, 4)  # (k * k * S, R)
        total = total + (matrix.T @ matrix - torch.eye(4)).pow(2).sum()
    return WEIGHT * total


DATA = RandomImages((4, 5, 5), (4, 5, 5))


def runner_for(model: nn.Module, folder, **settings):
    return make_runner(model, DATA, folder, {'type': 'mmtied.OrthogonalityHook', 'weight': WEIGHT}, **settings)


def train_with_term(model: Toy, epochs: int, accumulate: int) -> None:
    train_plainly(model, DATA, lambda loss: loss + manual_term(model), epochs, accumulate)


@pytest.mark.parametrize('accumulate', [1, 3])
def test_training_matches_plain_loop(tmp_path, accumulate):
    model = Toy()
    plain = copy.deepcopy(model)
    runner = runner_for(model, tmp_path, accumulate=accumulate)
    runner.train()
    train_with_term(plain, 2, accumulate)
    assert_same_weights(model, plain)
    assert 'parse_losses' not in vars(model)
    assert len(logged(runner, 'loss_orthogonality')) == 12
    torch.testing.assert_close(logged(runner, 'loss'), logged(runner, 'loss_distance') + logged(runner, 'loss_orthogonality'))


def test_resuming(tmp_path):
    model = Toy()
    straight, interrupted = copy.deepcopy(model), copy.deepcopy(model)
    runner_for(straight, tmp_path / 'straight').train()
    runner_for(interrupted, tmp_path / 'interrupted', epochs=1).train()
    resumed = Toy()
    runner_for(resumed, tmp_path / 'interrupted', resume=True).train()
    assert_same_weights(resumed, straight)


def test_mixed_precision(tmp_path, amp_on_the_cpu):
    """In bfloat16 with scaled gradients, the run stays close to the plain one, and the term is as exact as without AMP."""
    model = Toy()
    plain = copy.deepcopy(model)
    terms = []
    runner = runner_for(model, tmp_path, accumulate=2, type='AmpOptimWrapper', loss_scale=512., dtype='bfloat16')
    add = OrthogonalityHook.change_loss
    exact = runner._hooks[[isinstance(hook, OrthogonalityHook) for hook in runner._hooks].index(True)]
    exact.change_loss = lambda model, loss: (terms.append(manual_term(model).item()), add(exact, model, loss))[1]
    runner.train()
    train_with_term(plain, 2, 2)
    assert_same_weights(model, plain, rtol=0.02, atol=0.002)
    assert len(terms) == 12
    torch.testing.assert_close(logged(runner, 'loss_orthogonality').double(), torch.tensor(terms).double(), rtol=1e-5, atol=1e-7)


def test_exact_under_autocast():
    model = Toy()
    hook = OrthogonalityHook(WEIGHT)
    attach(hook, model)
    with torch.autocast('cpu', torch.bfloat16):
        _, log = model.parse_losses({'loss': torch.zeros(())})
    torch.testing.assert_close(log['loss_orthogonality'], manual_term(model), rtol=1e-5, atol=0)


def test_half_precision_weights():
    model = Toy().half()
    term = OrthogonalityHook(WEIGHT).change_loss(model, torch.zeros(()))[1]['loss_orthogonality']
    torch.testing.assert_close(term, manual_term(model.float()), rtol=1e-5, atol=0)


def test_two_processes_equal_one(tmp_path):
    gradients = check_two_processes(tmp_path, Toy, OrthogonalityHook(WEIGHT), DATA)
    assert set(gradients) == {name for name, _ in Toy().named_parameters()}


def test_counts_each_trained_basis_once():
    model = Toy()
    assert list(basis_deviations(model)) == ['layers.0.bases.basis', 'layers.1.bases.basis']
    hook = OrthogonalityHook(WEIGHT)
    torch.testing.assert_close(hook.change_loss(model, torch.ones(()))[0], 1 + manual_term(model))
    model.layers[0].requires_grad_(False)
    assert list(basis_deviations(model)) == ['layers.1.bases.basis']
    model.requires_grad_(False)
    loss, log = hook.change_loss(model, torch.ones(()))
    assert (loss, log['loss_orthogonality']) == (1, 0)


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_openmmlab_models(kind):
    """One config line in mmdet and in mmpretrain."""
    model, batch = make_openmmlab_model(kind, {'type': 'mmtied.SharedResNet', 'depth': 50, 'base_channels': 8})
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.))
    before = model.train_step(copy.deepcopy(batch), optimizer)
    hook = HOOKS.build({'type': 'mmtied.OrthogonalityHook'})
    hook.check_model(model)
    attach(hook, model)
    after = model.train_step(batch, optimizer)
    torch.testing.assert_close(after['loss'], before['loss'] + after['loss_orthogonality'])
    assert after['loss_orthogonality'] > 0


@pytest.mark.usefixtures('one_process')
def test_unused_stages_under_find_unused_parameters():
    """DistributedDataParallel marks them as ready before the backward pass, so the term must not depend on them."""

    class FirstStage(DistanceModel):

        def __init__(self) -> None:
            super().__init__()
            backbone = SharedResNet(50, base_channels=8, num_stages=3, out_indices=(0, ))
            self.layers = nn.Sequential(backbone)

        def forward(self, inputs: Tensor, target: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
            return {'loss_distance': (self.layers(inputs)[0].mean() - target.mean()).square()}

    model = FirstStage()
    assert list(basis_deviations(model)) == ['layers.0.layer1.bases.middle']
    attach(OrthogonalityHook(), model)
    wrapped = MMDistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    before = model.layers[0].layer1.bases['middle'].weight.detach().clone()
    for _ in range(2):
        wrapped.train_step({'inputs': torch.rand(2, 3, 32, 32), 'target': torch.rand(2)}, optimizer)
    assert not torch.equal(model.layers[0].layer1.bases['middle'].weight, before)


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')
@pytest.mark.usefixtures('one_process')
def test_rejects_sharded_parameters():
    class Runner:
        model = FullyShardedDataParallel(Toy(), device_id=torch.device('cpu'))

    with pytest.raises(ValueError, match='OrthogonalityHook: the model is sharded by FSDP'):
        OrthogonalityHook().before_train(Runner)


def test_training_makes_bases_orthonormal():
    """A short training run makes the bases nearly orthonormal; without the term it does not."""
    batches = list(torch.utils.data.DataLoader(DATA, 4)) * 30
    distances = {}
    for with_term in (True, False):
        torch.manual_seed(0)
        model = Toy()
        start = sum(basis_deviations(model).values()).item()
        if with_term:
            attach(OrthogonalityHook(WEIGHT), model)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
        for batch in batches:
            model.train_step(batch, optimizer)
        distances[with_term] = sum(basis_deviations(model).values()).item()
    assert distances[True] < 0.05 * start
    assert distances[False] > 0.5 * start


def authors_term(families: list[list[list[Tensor]]]) -> Tensor:
    """10 times the mean of (BB' - I)**2 over the stages, for each family of bases, as loops over pairs of elements."""
    total = torch.zeros(())
    for family in families:
        squares = []
        for stage in family:
            elements = [element.flatten() for basis in stage for element in basis]
            squares += [(one @ other - float(one is other)) ** 2 for one in elements for other in elements]
        total = total + torch.stack(squares).mean()
    return 10 * total


@pytest.mark.parametrize(('settings', 'families'), [
    ({'depth': 50, 'num_bases': 1}, [['middle']]), ({'depth': 50, 'num_bases': 2}, [['middle'], ['exit']]),
    ({'depth': 50, 'num_bases': 3}, [['entry'], ['middle']]), ({'depth': 18, 'unique_elements': 8, 'num_bases': 1}, [['entry']]),
    ({'depth': 18, 'unique_elements': 8, 'num_bases': 2}, [['entry', 'exit']])])
def test_mean_is_the_authors(settings, families):
    """One mean over all stages for bases of a kind; two bases of one size are compared with each other."""
    model = SharedResNet(base_channels=8, num_stages=2, out_indices=(1, ), **settings)
    stages = [model.layer1.bases, model.layer2.bases]
    expected = authors_term([[[bases[role].weight for role in roles] for bases in stages] for roles in families])
    term = OrthogonalityHook().change_loss(model, torch.zeros(()))[0]
    torch.testing.assert_close(term, expected)
    assert torch.autograd.grad(term, stages[0][families[0][0]].weight)[0].any()
    torch.testing.assert_close(OrthogonalityHook(mean_weight=5).change_loss(model, torch.ones(()))[0], 1 + term / 2)


def test_unique_elements_as_on_cifar10():
    """Shared elements with all elements of the stage, and each layer's own elements with each other."""
    model = SharedResNetCIFAR(20, shared_elements=4, unique_elements=2)
    squares = []
    for layer in (model.layer1, model.layer2, model.layer3):
        shared = list(layer.bases['entry'].weight.flatten(1))
        own = [list(conv.conv.unique.weight.flatten(1)) for block in layer[1:] for conv in (block.entry, block.exit)]
        everything = shared + [element for elements in own for element in elements]
        squares += [(one @ other - float(one is other)) ** 2 for one in shared for other in everything]
        squares += [(one @ other - float(one is other)) ** 2 for elements in own for one in elements for other in elements]
    term = OrthogonalityHook(unique=True).change_loss(model, torch.zeros(()))[0]
    torch.testing.assert_close(term, 10 * torch.stack(squares).mean())
    assert term != OrthogonalityHook().change_loss(model, torch.zeros(()))[0]


@pytest.mark.parametrize(('widths', 'weight'), [((32, 64, 128, 256), 1.15e-4), ((64, 128, 256, 512), 2.87e-5),
                                                ((16, 32, 64), 1.86e-3)])
def test_strength_of_the_mean(widths, weight):
    """Ten times the mean as a factor of Eq. 7's sum for ResNet34-S32U1, ResNet50-Shared and ResNet56-S16U1."""
    model = nn.ModuleList(nn.ModuleDict({'middle': FilterBasis(width, width, 1)}) for width in widths)
    mean, total = (hook.change_loss(model, torch.zeros(()))[0] for hook in (OrthogonalityHook(), OrthogonalityHook(1.)))
    assert (mean / total).item() == pytest.approx(weight, rel=0.01)


@pytest.mark.parametrize(('settings', 'together'), [({'depth': 50, 'num_bases': 2}, False),
                                                    ({'depth': 18, 'num_bases': 2, 'unique_elements': 4}, True)])
def test_bases_start_orthonormal(settings, together):
    """Each on its own in bottlenecks, both of a stage together in basic blocks; pretrained weights are kept."""
    model = SharedResNet(base_channels=16, **settings)
    model.init_weights()
    for layer in (model.layer1, model.layer4):
        matrices = [basis.weight.flatten(1) for basis in layer.bases.values()]
        for matrix in [torch.cat(matrices)] if together else matrices:
            small = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(small, torch.eye(len(small)), atol=1e-5, rtol=0)


def test_errors():
    for settings, message in (({'weight': 0.1, 'unique': True}, 'weight is for the sum'),
                              ({'weight': 0.1, 'mean_weight': 10}, 'weight is for the sum'),
                              ({'mean_weight': 0}, 'mean_weight=0, expected a positive number')):
        with pytest.raises(ValueError, match=message):
            OrthogonalityHook(**settings)
    for weight in (0, float('nan'), float('inf'), '0.1', True):
        with pytest.raises(ValueError, match=f'weight={weight!r}, expected a positive number'):
            OrthogonalityHook(weight)
    with pytest.raises(ValueError, match='Linear has no shared filter bases; use a backbone .* mmtied.SharedResNet'):
        OrthogonalityHook().check_model(nn.Linear(1, 1))
