"""Splits by the compiled library within tied bottlenecks: PyTorch's numbers, and PyTorch wherever someone else is at work."""

import copy

import pytest
import torch
from families import tiny
from graphs import GRAPHS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmtied.backbones import recomputed, tied_bottleneck
from mmtied.backbones.tied_bottleneck import TiedSplits
from mmtied.layers import TBC, tied_convolution_way
from mmtied.native import library

pytestmark = pytest.mark.skipif(library() is None, reason='the C++ code is not compiled')


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The calls of the library, by name."""
    seen = []
    for name in ('convolve_splits', 'convolve_splits_scaled'):
        function = getattr(tied_bottleneck, name)

        def spy(*args, name=name, function=function, **kwargs):
            seen.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(tied_bottleneck, name, spy)
    return seen


def trained(model: nn.Module) -> nn.Module:
    """With normalisations that are not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def layer(width: int = 12, stride: int = 1, **settings) -> TiedSplits:
    return trained(TiedSplits(width, (1, 2, 2, 3), **{'groups': 1, 'stride': stride, 'dilation': 1, 'norm_cfg': {'type': 'BN'},
                                                      **settings}))


def images(channels: int = 48, size: int = 16) -> Tensor:
    return torch.randn(2, channels, size, size).to(memory_format=torch.channels_last)


def run(model: nn.Module, x: Tensor, mode: str) -> list[Tensor]:
    """Outputs and gradients; 'norm_eval' trains with running statistics."""
    model.train(mode != 'eval')
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(mode == 'train')
    if mode == 'eval':
        with torch.no_grad():
            outputs = model(x)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]
    x = x.detach().requires_grad_()
    outputs = model(x)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    loss = sum(output.square().mean() for output in outputs)
    return [*(output.detach() for output in outputs), *torch.autograd.grad(loss, [x, *model.parameters()])]


def assert_as_exact(mine: list[Tensor], plain: list[Tensor], exact: list[Tensor]) -> None:
    """Not further from the results in float64 than twice PyTorch's own."""
    for one, other, true in zip(mine, plain, exact, strict=True):
        scale = true.norm() + 1e-12
        assert (one - true).norm() / scale < 2 * (other - true).norm() / scale + 2e-6


@pytest.mark.parametrize('mode', ['train', 'norm_eval', 'eval'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('groups', [1, 2])
def test_splits_equal_pytorchs(mode, stride, dilation, groups, calls, monkeypatch):
    model, x = layer(stride=stride, dilation=dilation, groups=groups), images()
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    mine = run(model, x, mode)
    taken = stride == 1 or dilation == 1
    assert calls == ['convolve_splits_scaled' if mode == 'eval' else 'convolve_splits'] * taken
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert_as_exact(mine, run(plain, x, mode), run(exact, x.double(), mode))
    assert len(calls) == taken
    for one, other in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('mode', ['train', 'norm_eval', 'eval'])
@pytest.mark.parametrize('settings', [
    {}, {'mixer_fusion': 'add_back', 'split_groups': 2, 'split_blocks': (1, 1, 3, 3)}, {'with_cp': True}, {'style': 'caffe'}
], ids=str)
def test_networks_equal_pytorchs(mode, settings, calls, monkeypatch):
    model = trained(tiny('TiedResNet', **{'base_width': 48, 'split_blocks': (1, 2, 2, 3), 'num_stages': 2, 'out_indices': (0, 1),
                                          **settings}))
    plain, exact, x = copy.deepcopy(model), copy.deepcopy(model).double(), torch.randn(2, 3, 64, 64)
    mine = run(model, x, mode)
    assert len(calls) == 7 * (1 + (mode != 'eval' and 'with_cp' in settings))
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert_as_exact(mine, run(plain, x, mode), run(exact, x.double(), mode))


@pytest.mark.parametrize('channels', [44, 50, 60, 96])
def test_an_input_of_another_width_is_pytorchs_error(channels, calls):
    with pytest.raises((RuntimeError, ValueError)), torch.no_grad():
        layer().eval()(images(channels))
    assert not calls


def test_a_convolution_of_another_width_is_not_the_librarys(calls):
    model = layer().eval()
    model.convs[3] = TBC(24, 24, 3, padding=1, num_blocks=3, bias=False)
    with pytest.raises((RuntimeError, ValueError)), torch.no_grad():
        model(images())
    assert not calls


def test_a_global_hook_sees_every_convolution(calls):
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        layer()(images())
    finally:
        hook.remove()
    assert seen.count(TBC) == 4 and not calls


def test_a_forward_put_on_the_activation_is_called(calls):
    model, seen = layer().eval(), []
    model.activate.forward = lambda x: seen.append(x) or x.relu()
    with torch.no_grad():
        model(images())
    assert seen and not calls


def test_what_is_kept_for_the_backward_pass(calls, monkeypatch):
    """No more than with PyTorch: a recipe for the input, not the input."""
    kept, pack = {'1': {}, '0': {}}, recomputed._Recorder.pack

    def counted(self, tensor):
        packed = pack(self, tensor)
        if isinstance(packed, recomputed._Kept):
            storage = tensor.untyped_storage()
            kept[native][storage.data_ptr()] = storage.nbytes()
        return packed

    monkeypatch.setattr(recomputed._Recorder, 'pack', counted)
    model, x = tiny('TiedResNet', base_width=48, split_blocks=(1, 2, 2, 3), num_stages=1, out_indices=(0, )), images(3, 64)
    for native in kept:
        monkeypatch.setenv('MMTIED_NATIVE', native)
        outputs = model(x)  # held, so that what is kept stays where it is
        for output in outputs:  # ReLU keeps them, within the block or after it
            kept[native].pop(output.data_ptr(), None)
    assert calls and sum(kept['1'].values()) <= sum(kept['0'].values())


def replaced_forward(model: TiedSplits) -> None:
    model.convs[0].forward = model.convs[0].forward


#: What someone may do to the layer, by name; PyTorch then convolves.
CHANGES = {
    'hook': lambda model: model.convs[1].register_forward_hook(lambda *args: None),
    'backward hook': lambda model: model.convs[1].register_full_backward_hook(lambda *args: None),
    'forward': replaced_forward,
    'way': lambda model: setattr(model.convs[2], 'way', 'grouped'),
    'weight norm': lambda model: nn.utils.parametrizations.weight_norm(model.convs[0]),
    'bias': lambda model: setattr(model.convs[3], 'bias', nn.Parameter(torch.zeros(4))),
    'other convolution': lambda model: model.convs.__setitem__(0, nn.Conv2d(12, 12, 3, padding=1, bias=False)),
    'other padding': lambda model: setattr(model.convs[0], 'padding_mode', 'reflect'),
    'other precision': lambda model: model.double(),
}


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('change', CHANGES)
def test_changed_layers_are_left_to_pytorch(change, mode, calls):
    model = layer()
    CHANGES[change](model)
    model.train(mode == 'train')
    with torch.set_grad_enabled(mode == 'train'):
        model(images().to(model.norm.weight.dtype))
    assert not calls


@pytest.mark.parametrize('watch', ['hook', 'other activation'])
def test_activations_are_called_where_they_are_not_plain(watch, calls):
    model, seen = layer().eval(), []
    if watch == 'hook':
        model.activate.register_forward_hook(lambda *args: seen.append(1))
    else:
        model.activate = nn.LeakyReLU()
    with torch.no_grad():
        output = model(images())
    assert 'convolve_splits_scaled' not in calls
    assert seen == [1] if watch == 'hook' else output.min() < 0


AROUND = {
    'autocast': lambda: torch.autocast('cpu'),
    'way': lambda: tied_convolution_way('fold'),
    'forward differentiation': torch.autograd.forward_ad.dual_level,
    'counter': lambda: FlopCounterMode(display=False),
}


@pytest.mark.parametrize('context', AROUND)
def test_where_others_are_at_work(context, calls):
    with AROUND[context]():
        layer()(images())
    assert not calls


def test_contiguous_inputs_are_left_to_pytorch(calls):
    layer()(images().contiguous())
    assert not calls


@pytest.mark.parametrize('graph', GRAPHS)
def test_graphs(graph, calls):
    model, x = layer().eval(), images()
    with torch.no_grad():
        expected = model(x)
        calls.clear()
        made = GRAPHS[graph](model, x)
        torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-5)
    assert not calls


def test_function_transforms(calls):
    model, x = layer().eval(), images()
    weights = dict(model.named_parameters())

    def loss(weights, x=x):
        return torch.func.functional_call(model, weights, (x, )).square().mean()

    expected = torch.autograd.grad(loss(weights), list(weights.values()))
    assert calls
    calls.clear()
    mine = torch.func.grad(loss)(weights)
    torch.func.jvp(lambda x: model(x), (x, ), (x, ))
    torch.func.vmap(lambda x: model(x[None]))(x)
    assert not calls
    for one, other in zip(mine.values(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('reentrant', [True, False])
def test_checkpoints(reentrant):
    model, x = layer().train(), images()
    expected = run(copy.deepcopy(model), x, 'train')[1:]
    x = x.requires_grad_()
    checkpoint(model, x, use_reentrant=reentrant).square().mean().backward()
    for one, other in zip([x.grad, *(weight.grad for weight in model.parameters())], expected, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_splits_train_what_is_before_them(calls):
    model, x = layer().requires_grad_(False), images().requires_grad_()
    model(x).sum().backward()
    assert calls and x.grad is not None and all(weight.grad is None for weight in model.parameters())


def test_wide_blocks_are_left_to_pytorch(calls):
    TiedSplits(64, (1, 2), 1, 1, 1, {'type': 'BN'})(images(128, 8))
    assert not calls


def test_splits_that_differ_are_left_to_pytorch(calls):
    model = layer(dilation=2)
    model.convs[1] = TBC(12, 12, 3, padding=1, bias=False)
    model(images())
    assert not calls
