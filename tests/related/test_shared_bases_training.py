"""The orthogonality term: against plain PyTorch, in runs with accumulation, resuming, AMP and two processes."""

import copy
import functools

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.launch.config import load_config
from mmtied.layers import FilterBasis, SharedBasisConv
from mmtied.related.shared_bases.blocks import SharedStage
from mmtied.related.shared_bases.training import basis_deviations
from mmtied.training import OrthogonalityHook
from mmtied.training.loss_hook import attach

WEIGHT = 0.05


class Toy(BaseModel):
    """Two shared bases in three layers each, then the distance to a target."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(self._stage() for _ in range(2)))

    @staticmethod
    def _stage() -> SharedStage:
        basis = FilterBasis(4, 4, 3)
        return SharedStage([SharedBasisConv(4, 4, 3, padding=1, filters=basis) for _ in range(3)], {'basis': basis})

    def forward(self, inputs: Tensor, target: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return {'loss_distance': (self.stages(inputs) - target).square().mean()}


def manual_term(model: nn.Module) -> Tensor:
    """Eq. 7 written out, with one W for each of the two stages."""
    total = torch.zeros(())
    for stage in (model.stages[0], model.stages[1]):
        matrix = stage.bases['basis'].weight.permute(2, 3, 1, 0).reshape(-1, 4)  # (k * k * S, R)
        total = total + (matrix.T @ matrix - torch.eye(4)).pow(2).sum()
    return WEIGHT * total


class Samples(torch.utils.data.Dataset):
    """Random images with random targets."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.values = torch.randn(12, 2, 4, 5, 5, generator=generator)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': self.values[index, 0], 'target': self.values[index, 1]}


def runner_for(model: nn.Module, folder, *, epochs: int = 2, accumulate: int = 1, resume: bool = False, **optim) -> Runner:
    return Runner(
        model, str(folder), resume=resume, default_scope='mmengine', experiment_name=str(id(folder)),
        train_dataloader={'dataset': Samples(), 'batch_size': 2, 'num_workers': 0, 'collate_fn': {'type': 'default_collate'},
                          'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}, 'accumulative_counts': accumulate, **optim},
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        custom_hooks=[{'type': 'mmtied.OrthogonalityHook', 'weight': WEIGHT}])


def train_plainly(model: nn.Module, epochs: int, accumulate: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = list(torch.utils.data.DataLoader(Samples(), 2)) * epochs
    for number, batch in enumerate(batches, 1):
        loss = (model.stages(batch['inputs']) - batch['target']).square().mean() + manual_term(model)
        (loss / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()


def assert_same_weights(first: nn.Module, second: nn.Module, **tolerance) -> None:
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), **tolerance)


@pytest.mark.parametrize('accumulate', [1, 3])
def test_a_run_equals_a_plain_loop(tmp_path, accumulate):
    model = Toy()
    plain = copy.deepcopy(model)
    runner = runner_for(model, tmp_path, accumulate=accumulate)
    runner.train()
    train_plainly(plain, 2, accumulate)
    assert_same_weights(model, plain)
    assert 'parse_losses' not in vars(model)
    logged, _ = runner.message_hub.get_scalar('train/loss_orthogonality').data
    total, _ = runner.message_hub.get_scalar('train/loss').data
    distance, _ = runner.message_hub.get_scalar('train/loss_distance').data
    assert len(logged) == 12
    torch.testing.assert_close(torch.as_tensor(total), torch.as_tensor(distance) + torch.as_tensor(logged))


def test_resuming(tmp_path):
    model = Toy()
    straight, interrupted = copy.deepcopy(model), copy.deepcopy(model)
    runner_for(straight, tmp_path / 'straight').train()
    runner_for(interrupted, tmp_path / 'interrupted', epochs=1).train()
    resumed = Toy()
    runner_for(resumed, tmp_path / 'interrupted', resume=True).train()
    assert_same_weights(resumed, straight)


@pytest.fixture
def amp_on_the_cpu(monkeypatch):
    """mmengine's AmpOptimWrapper insists on an accelerator; torch's autocast and gradient scaler do not."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))


@pytest.mark.skipif(torch.cuda.is_available(), reason='mmengine would train on the GPU')
def test_mixed_precision(tmp_path, amp_on_the_cpu):
    """In bfloat16, with scaled gradients: the run is near the plain one, and the term as exact as without AMP."""
    model = Toy()
    plain = copy.deepcopy(model)
    terms = []
    runner = runner_for(model, tmp_path, accumulate=2, type='AmpOptimWrapper', loss_scale=512., dtype='bfloat16')
    add = OrthogonalityHook.change_loss
    exact = runner._hooks[[isinstance(hook, OrthogonalityHook) for hook in runner._hooks].index(True)]
    exact.change_loss = lambda model, loss: (terms.append(manual_term(model).item()), add(exact, model, loss))[1]
    runner.train()
    train_plainly(plain, 2, 2)
    assert_same_weights(model, plain, rtol=0.02, atol=0.002)
    logged, _ = runner.message_hub.get_scalar('train/loss_orthogonality').data
    assert len(terms) == 12
    torch.testing.assert_close(torch.as_tensor(logged).double(), torch.tensor(terms).double(), rtol=1e-5, atol=1e-7)


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


def gradients_of_a_rank(rank: int, world_size: int, folder) -> None:
    """One training step on this rank's part of a batch; the first rank saves the gradients."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Toy()
    samples = torch.utils.data.default_collate([Samples()[index] for index in range(4)])
    if world_size > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    else:
        wrapped = model
    attach(OrthogonalityHook(WEIGHT), model)
    kept = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.)
    optimizer.register_step_pre_hook(lambda *_: kept.update({name: p.grad.clone() for name, p in model.named_parameters()}))
    batch = {key: value[rank::world_size] for key, value in samples.items()}
    log = wrapped.train_step(batch, OptimWrapper(optimizer))
    torch.save((kept, log['loss_orthogonality'].detach()), folder / f'{world_size}_{rank}.pt')


def test_two_processes_equal_one(tmp_path):
    gradients_of_a_rank(0, 1, tmp_path)
    torch.multiprocessing.spawn(gradients_of_a_rank, (2, tmp_path), nprocs=2)
    expected, term = torch.load(tmp_path / '1_0.pt')
    for rank in (0, 1):
        gradients, their_term = torch.load(tmp_path / f'2_{rank}.pt')
        assert set(gradients) == set(expected)
        torch.testing.assert_close(gradients, expected)
        torch.testing.assert_close(their_term, term)


def test_counts_each_trained_basis_once():
    model = Toy()
    assert list(basis_deviations(model)) == ['stages.0.bases.basis', 'stages.1.bases.basis']
    hook = OrthogonalityHook(WEIGHT)
    torch.testing.assert_close(hook.change_loss(model, torch.ones(()))[0], 1 + manual_term(model))
    model.stages[0].requires_grad_(False)
    assert list(basis_deviations(model)) == ['stages.1.bases.basis']
    model.requires_grad_(False)
    loss, log = hook.change_loss(model, torch.ones(()))
    assert (loss, log['loss_orthogonality']) == (1, 0)


@pytest.mark.parametrize('kind', ['detector', 'classifier'])
def test_openmmlab_models(kind):
    """One config line in mmdet and in mmpretrain."""
    pytest.importorskip('mmdet' if kind == 'detector' else 'mmpretrain')
    backbone = {'type': 'mmtied.SharedResNet', 'depth': 50, 'base_channels': 8}
    with DefaultScope.overwrite_default_scope('mmdet' if kind == 'detector' else 'mmpretrain'):
        if kind == 'detector':
            from mmdet.testing import demo_mm_inputs
            cfg = load_config('configs/retinanet_sharedr50_1x.py').model
            cfg.backbone.update(backbone)
            cfg.neck.in_channels = [32, 64, 128, 256]
            batch = demo_mm_inputs(2, [(3, 64, 64)] * 2)
        else:
            from mmpretrain.structures import DataSample
            cfg = {'type': 'ImageClassifier', 'backbone': backbone, 'neck': {'type': 'GlobalAveragePooling'},
                   'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 256}}
            batch = {'inputs': torch.rand(2, 3, 64, 64), 'data_samples': [DataSample().set_gt_label(1)] * 2}
        model = MODELS.build(cfg)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.))
        before = model.train_step(copy.deepcopy(batch), optimizer)
        hook = HOOKS.build({'type': 'mmtied.OrthogonalityHook'})
        hook.check_model(model)
        attach(hook, model)
        after = model.train_step(batch, optimizer)
    torch.testing.assert_close(after['loss'], before['loss'] + after['loss_orthogonality'])
    assert after['loss_orthogonality'] > 0


def test_training_makes_bases_orthonormal():
    """In a short training run the bases come near orthonormal; without the term they do not."""
    batches = list(torch.utils.data.DataLoader(Samples(), 4)) * 30
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


def test_errors():
    for weight in (0, float('nan'), float('inf'), '0.1', True, None):
        with pytest.raises(ValueError, match=f'weight={weight!r} is not a positive number'):
            OrthogonalityHook(weight)
    with pytest.raises(ValueError, match='Linear has no shared filter bases; use a backbone .* mmtied.SharedResNet'):
        OrthogonalityHook().check_model(nn.Linear(1, 1))
