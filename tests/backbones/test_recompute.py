"""``with_cp=True`` and ``with_cp='norm'``: bit-equal gradients and running statistics, and less memory."""

import copy
import os
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.utils import checkpoint

from mmtied.backbones import TiedResNet
from mmtied.launch.runner import leave_processes
from tests.helpers.families import FAMILIES, needs_selective_checkpoint, recomputing, tiny
from tests.helpers.processes import run_processes
from tests.helpers.torch_versions import needs_dynamo


def pair(family: str, with_cp: bool | str, **settings) -> tuple[nn.Module, nn.Module]:
    """Return two networks with the same weights in training mode, without and with recomputation."""
    plain, saving = tiny(family, zero_init_residual=False, **settings), tiny(family, with_cp=with_cp, **settings)
    saving.load_state_dict(plain.state_dict())
    return plain.train(), saving.train()


def step(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run forward and backward, and return gradients and buffers."""
    sum(level.float().square().mean() for level in model(x)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {**gradients, **dict(model.named_buffers())}


def assert_same(plain: dict[str, torch.Tensor], saving: dict[str, torch.Tensor]) -> None:
    assert plain.keys() == saving.keys()
    for name, value in plain.items():
        assert torch.equal(saving[name], value), name


@recomputing
@pytest.mark.parametrize('family', FAMILIES)
def test_gradients_and_running_statistics_are_bit_equal(family, with_cp):
    plain, saving = pair(family, with_cp, plugins=[{'cfg': {'type': 'TiedGCB', 'ratio': 0.5}, 'position': 'after_conv2'}])
    for _ in range(2):
        x = torch.randn(2, 3, 64, 64)
        assert_same(step(plain, x), step(saving, x))
    assert all(count == 2 for name, count in saving.named_buffers() if name.endswith('num_batches_tracked'))


@recomputing
@pytest.mark.parametrize('settings', [{'norm_eval': True}, {'frozen_stages': 1}, {'memory_format': None},
                                      {'norm_cfg': {'type': 'GN', 'num_groups': 2}}], ids=str)
def test_other_settings(settings, with_cp):
    plain, saving = pair('TiedResNet', with_cp, **settings)
    x = torch.randn(2, 3, 64, 64)
    assert_same(step(plain, x), step(saving, x))


@recomputing
def test_autocast(with_cp):
    plain, saving = pair('TiedResNet', with_cp)
    x = torch.randn(2, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        assert_same(step(plain, x), step(saving, x))


@needs_dynamo
@recomputing
@pytest.mark.filterwarnings('ignore')
def test_compiled(with_cp):
    torch._dynamo.reset()
    plain, saving = pair('TiedResNet', with_cp, num_stages=1, out_indices=(0, ))
    x = torch.randn(2, 3, 64, 64)
    expected, found = step(plain, x), step(torch.compile(saving, backend='aot_eager'), x)
    for name, value in expected.items():
        torch.testing.assert_close(found[f'_orig_mod.{name}'], value, atol=1e-4, rtol=1e-4, msg=name)


def run_rank(rank: int, folder: str, with_cp: bool | str) -> None:
    os.environ['GLOO_SOCKET_IFNAME'] = 'lo'
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        networks = [DistributedDataParallel(model) for model in pair('TiedResNet', with_cp, num_stages=2, out_indices=(1, ))]
        for _ in range(2):
            x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(rank))
            assert_same(*(step(network, x) for network in networks))
    finally:
        leave_processes()


@pytest.mark.slow
@recomputing
def test_distributed_data_parallel(with_cp):
    with tempfile.TemporaryDirectory() as folder:
        run_processes(run_rank, (folder, with_cp))


def kept_bytes(**settings) -> int:
    """Return the bytes that remain allocated after the forward pass of a full-width TiedResNet-50."""
    model = TiedResNet(50, **settings).train()
    x = torch.randn(1, 3, 64, 64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        levels = model(x)
    assert levels
    return sum(event.self_cpu_memory_usage for event in profiled.key_averages())


@needs_selective_checkpoint
def test_memory():
    everything, norms, blocks = (kept_bytes(with_cp=with_cp) for with_cp in (False, 'norm', True))
    assert norms < 0.75 * everything
    assert blocks < 0.75 * norms


@needs_selective_checkpoint
def test_frozen_blocks_are_not_recomputed(monkeypatch):
    """Nor is the next block, whose input needs no gradient."""
    counted = []
    run = checkpoint.checkpoint
    monkeypatch.setattr(checkpoint, 'checkpoint', lambda *args, **kwargs: counted.append(args) or run(*args, **kwargs))
    tiny('TiedResNet', with_cp='norm', frozen_stages=1).train()(torch.randn(2, 3, 64, 64))
    assert len(counted) == 12


@needs_selective_checkpoint
def test_convolutions_run_once(monkeypatch):
    _, saving = pair('TiedResNet', 'norm')
    calls = []
    levels = saving(torch.randn(2, 3, 64, 64))

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    with Counter():
        sum(level.square().mean() for level in levels).backward()
    names = [str(call) for call in calls]
    assert 'aten.native_batch_norm.default' in names
    assert 'aten.convolution.default' not in names


@needs_selective_checkpoint
def test_copies_and_evaluation():
    _, saving = pair('TiedResNet', 'norm')
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, other in zip(copy.deepcopy(saving).eval()(x), saving.eval()(x), strict=True):
            assert torch.equal(mine, other)


def test_retained_graph_can_be_used_again_and_in_part():
    plain, saving = pair('TiedResNet', True, num_stages=1, out_indices=(0, ))
    x = torch.randn(2, 3, 32, 32)
    names = [name for name, _ in saving.named_parameters()]
    weights = [weight for _, weight in saving.named_parameters()]
    expected = torch.autograd.grad(plain(x)[0].square().mean(), list(plain.parameters()))
    loss = saving(x)[0].square().mean()
    index = names.index('layer1.2.exit.conv.weight')
    for retained in (True, True, False):
        if retained:
            part, = torch.autograd.grad(loss, weights[index], retain_graph=True)
            assert torch.equal(part, expected[index])
        found = torch.autograd.grad(loss, weights, retain_graph=retained)
        assert_same(dict(zip(names, expected, strict=True)), dict(zip(names, found, strict=True)))
    for name, buffer in plain.named_buffers():
        assert torch.equal(saving.get_buffer(name), buffer), name
    with pytest.raises(RuntimeError, match='second time'):
        torch.autograd.grad(loss, weights)


@needs_selective_checkpoint
def test_norm_allows_one_backward_pass():
    _, saving = pair('TiedResNet', 'norm', num_stages=1, out_indices=(0, ))
    loss = saving(torch.randn(2, 3, 32, 32))[0].square().mean()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='Trying to backward an extra time'):
        loss.backward()


@needs_selective_checkpoint
def test_norm_refuses_a_convolution_whose_output_is_overwritten():
    plugin = {'cfg': {'type': 'ConvModule', 'out_channels': 32, 'kernel_size': 1}, 'position': 'after_conv3'}
    _, saving = pair('TiedResNet', 'norm', num_stages=1, out_indices=(0, ), plugins=[plugin])
    loss = saving(torch.randn(2, 3, 32, 32))[0].square().mean()
    with pytest.raises(RuntimeError, match='has been mutated'):
        loss.backward()


def test_none_is_false():
    assert not any(block.with_cp for block in tiny('TiedResNet', with_cp=None).layer1)


def test_norm_needs_new_pytorch(monkeypatch):
    monkeypatch.delattr(checkpoint, 'create_selective_checkpoint_contexts', raising=False)
    with pytest.raises(ValueError, match="TiedResNet: with_cp='norm' needs PyTorch 2.4 or newer, found .*; use with_cp=True"):
        tiny('TiedResNet', with_cp='norm')


def test_unknown_value():
    with pytest.raises(ValueError, match="TiedResNet: with_cp='norms', expected one of False, True, 'norm'"):
        tiny('TiedResNet', with_cp='norms')
