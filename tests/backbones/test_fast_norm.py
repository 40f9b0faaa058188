"""BatchNorm by kernels in training: what PyTorch's gives, and PyTorch's wherever more than the numbers could count."""

import copy
import functools
from contextlib import ExitStack, contextmanager
from statistics import median

import pytest
import torch
from families import FAMILIES, tiny
from graphs import GRAPHS
from network_timing import Runner
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mmtied import backbones
from mmtied.backbones import bottleneck, recomputed
from mmtied.backbones.fast_norm import normalise_batch
from mmtied.backbones.folded_norm import ConvNorm
from mmtied.backbones.recomputed import normalise
from mmtied.backbones.tied_bottleneck import TiedBottleneck
from mmtied.layers import tied_convolution_way
from mmtied.native import library

pytestmark = pytest.mark.skipif(library() is None, reason='not compiled')


@pytest.fixture
def fast(monkeypatch):
    """What followed each normalisation that the kernels did within a test."""
    seen = []

    def spy(norm, z, then, identity=None):
        seen.append(then.name)
        return normalise_batch(norm, z, then, identity)

    for module in (recomputed, bottleneck):
        monkeypatch.setattr(module, 'normalise_batch', spy)
    return seen


@contextmanager
def plainly():
    """By PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMTIED_NATIVE', '0')
        yield


def images(channels=16, size=9, number=3):
    return torch.randn(number, channels, size, size).to(memory_format=torch.channels_last)


def randomised(model):
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model


def block(**settings):
    settings = {'in_channels': 32, 'planes': 8, 'width': 8, 'split_blocks': (1, 2, 2, 4), 'entry_blocks': 2,
                'shortcut_blocks': 2, 'mixer_fusion': 'sum', 'mixer_out_ratio': 0.5, 'norm_cfg': {'type': 'BN'}, **settings}
    return randomised(TiedBottleneck(**settings))


def loss_of(outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs, )
    return sum((output.double() * torch.linspace(-1, 1, output.size(-1))).square().mean() for output in outputs)


def gradients(model, x, run=None):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss_of((run or model)(x)), [x, *model.parameters()])


def distance(one, true):
    return ((one.double() - true.double()).norm() / (true.double().norm() + 1e-30)).item()


def assert_near(mine, theirs, exact, factor=2., slack=3e-6):
    """Values that are as near to those in float64 as PyTorch's."""
    for one, other, true in zip(mine, theirs, exact, strict=True):
        assert distance(one, true) <= factor * distance(other, true) + slack


SETTINGS = {
    'usual': {}, 'eps': {'eps': 0.1}, 'momentum': {'momentum': 0.7}, 'cumulative': {'momentum': None},
    'momentum 0': {'momentum': 0.}, 'no statistics': {'track_running_stats': False},
}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('activate', [nn.ReLU(inplace=True), None], ids=['relu', 'alone'])
@pytest.mark.parametrize('grad', [True, False])
def test_a_normalisation_is_pytorchs(settings, training, activate, grad, fast):
    mine = randomised(nn.BatchNorm2d(16, **SETTINGS[settings]).train(training))
    theirs, exact = copy.deepcopy(mine), copy.deepcopy(mine).double()
    with torch.set_grad_enabled(grad):
        for _ in range(3):
            x = images().add_(1.)
            weights = torch.randn(x.shape)
            found = []
            for norm in (mine, theirs, exact):
                leaf = x.detach().to(norm.weight.dtype).requires_grad_()
                with plainly() if norm is theirs else ExitStack():
                    y = normalise(norm, activate, leaf)
                assert y.requires_grad == grad and y.is_contiguous(memory_format=torch.channels_last)
                found.append([y.detach(), *norm.buffers()])
                if grad:
                    found[-1] += torch.autograd.grad((y * weights).sum(), [leaf, *norm.parameters()])
            assert_near(*found)
    assert len(fast) == (3 if training or settings == 'no statistics' else 0)
    assert [buffer.dtype for buffer in mine.buffers()] == [buffer.dtype for buffer in theirs.buffers()]
    if training and settings != 'no statistics':
        assert mine.num_batches_tracked == 3


def test_one_value_for_each_channel_is_pytorchs_error():
    norm = nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
        normalise(norm, None, images(4, 1, 1))
    with pytest.raises(RuntimeError, match='running_mean should contain 5 elements'):
        normalise(norm, None, images(5))


def test_inference_mode(fast):
    norm, x = nn.BatchNorm2d(16), images()
    with torch.inference_mode():
        y = normalise(norm, None, x)
    assert fast
    torch.testing.assert_close(y.clone(), nn.BatchNorm2d(16)(x))


class Scaled(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def instance_forward(norm, relu):
    norm.forward = lambda x: nn.BatchNorm2d.forward(norm, x)


def global_hook(norm, relu):
    return register_module_forward_hook(lambda *args: None)


#: What is done to a BatchNorm2d and a ReLU before they are called, and may return something that has to be undone.
SPECIAL = {
    'hook': lambda norm, relu: norm.register_forward_hook(lambda *args: None),
    'pre-hook': lambda norm, relu: norm.register_forward_pre_hook(lambda *args: None),
    'backward hook': lambda norm, relu: norm.register_full_backward_hook(lambda *args: None),
    'hook of ReLU': lambda norm, relu: relu.register_forward_hook(lambda *args: None),
    'global hook': global_hook,
    'instance forward': instance_forward,
    'double': lambda norm, relu: norm.double() and None,
    'variance in double': lambda norm, relu: setattr(norm, 'running_var', norm.running_var.double()),
    'eval': lambda norm, relu: norm.eval() and None,
}


@pytest.mark.parametrize('special', SPECIAL)
def test_special_modules_are_called(special, fast):
    norm, relu, x = nn.BatchNorm2d(16), nn.ReLU(inplace=True), images()
    undo = SPECIAL[special](norm, relu)
    try:
        if special == 'variance in double':
            with pytest.raises(RuntimeError):
                normalise(norm, relu, x)
        else:
            relu = None if special == 'backward hook' else relu  # PyTorch lets nothing in place follow such a hook
            normalise(norm, relu, x.double() if special == 'double' else x)
    finally:
        if undo is not None:
            undo.remove()
    assert not fast


@pytest.mark.parametrize('norm', [Scaled(16), nn.BatchNorm2d(16, affine=False), nn.GroupNorm(2, 16), nn.InstanceNorm2d(16),
                                  nn.SyncBatchNorm(16).eval()], ids=lambda norm: type(norm).__name__)
@pytest.mark.parametrize('activate', [nn.ReLU(inplace=True), None])
def test_other_normalisations_are_called(norm, activate, fast):
    x = images()
    y = normalise(norm, activate, x)
    assert not fast
    torch.testing.assert_close(y, norm(x) if activate is None else norm(x).relu())


@pytest.mark.parametrize('activate', [nn.ReLU(), nn.ReLU6(inplace=True), nn.SiLU(inplace=True)], ids=str)
def test_other_activations_are_called(activate, fast):
    norm, x = nn.BatchNorm2d(16), images()
    torch.testing.assert_close(normalise(norm, activate, x), activate(norm(x)))
    assert not fast


class Subclass(Tensor):
    pass


@pytest.mark.parametrize('x', [images().contiguous(), images().bfloat16(), images()[:, :, ::2], images().as_subclass(Subclass),
                               images(number=0)], ids=['contiguous', 'bfloat16', 'strided', 'subclass', 'empty'])
def test_other_inputs(x, fast):
    torch.testing.assert_close(normalise(nn.BatchNorm2d(16), None, x), nn.BatchNorm2d(16)(x))
    assert not fast


CONTEXTS = {
    'way': lambda: tied_convolution_way('fold'), 'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'dispatch mode': Watching, 'forward-mode gradients': forward_ad.dual_level, 'off': plainly,
}


@pytest.mark.parametrize('context', CONTEXTS)
def test_contexts_in_which_modules_are_called(context, fast):
    norm, x = nn.BatchNorm2d(16), images()
    with CONTEXTS[context]():
        y = normalise(norm, nn.ReLU(inplace=True), x)
    assert not fast
    torch.testing.assert_close(y, nn.BatchNorm2d(16)(x).relu())


@pytest.mark.parametrize('graph', GRAPHS)
def test_graphs_hold_pytorchs_operators(graph, fast):
    model, x = block(), images(32)
    expected = copy.deepcopy(model)(x).detach()
    fast.clear()
    made = GRAPHS[graph](model, x)
    torch.testing.assert_close(made(x), expected)
    assert not fast


def test_function_transforms(fast):
    model, x = block(norm_cfg={'type': 'BN', 'track_running_stats': False}), images(32)
    weights = dict(model.named_parameters())
    expected = gradients(model, x)[1:]
    assert fast
    fast.clear()
    mine = torch.func.grad(lambda weights: loss_of(torch.func.functional_call(model, weights, (x, ))))(weights)
    assert not fast
    assert_near(mine.values(), expected, expected, slack=1e-5)


def penalty(model, x):
    """Depends on the gradient of the outputs by the input."""
    first, = torch.autograd.grad(loss_of(model(x)), x, create_graph=True)
    return first.square().sum() * 1e3


@pytest.mark.parametrize('model', ['relu', 'alone', 'block', 'first block'])
def test_gradients_of_gradients(model, fast):
    class Normalise(nn.Module):
        def __init__(self, activate):
            super().__init__()
            self.norm, self.activate = randomised(nn.BatchNorm2d(32)), activate

        def forward(self, x):
            return normalise(self.norm, self.activate, x)

    model = {'relu': lambda: Normalise(nn.ReLU(inplace=True)), 'alone': lambda: Normalise(None), 'block': block,
             'first block': lambda: block(planes=16)}[model]()
    x = images(32, 6)

    def run(model, dtype):
        leaf = x.to(dtype).requires_grad_()
        return torch.autograd.grad(penalty(model, leaf), [leaf, *model.parameters()], allow_unused=True, materialize_grads=True)

    exact = run(copy.deepcopy(model).double(), torch.float64)
    assert not fast
    with plainly():
        theirs = run(copy.deepcopy(model), torch.float32)
    mine = run(model, torch.float32)
    assert fast
    assert_near(mine, theirs, exact, factor=3, slack=1e-5)


def test_batched_gradients():
    """Of several losses at once, by vmap over the backward pass."""
    model, x = block(), images(32, 6).requires_grad_()
    y, several = model(x), torch.randn(3, *model(x).shape)
    together, = torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)
    for gradient, one in zip(together, several, strict=True):
        torch.testing.assert_close(gradient, torch.autograd.grad(y, x, one, retain_graph=True)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('changed', ['z', 'weight', 'bias'])
def test_what_is_changed_before_the_backward_pass_is_an_error(changed):
    norm, leaf = nn.BatchNorm2d(16), images().requires_grad_()
    z = leaf * 1
    y = normalise(norm, nn.ReLU(inplace=True), z)
    with torch.no_grad():
        {'z': z, 'weight': norm.weight, 'bias': norm.bias}[changed].add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


def test_a_result_of_the_exit_changed_before_the_backward_pass_is_an_error():
    y = block()(images(32))
    with torch.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


def test_where_kernels_are_used(fast):
    model, x = block(), images(32)
    model(x)
    assert fast == ['RELU'] * 4 + ['ADD_RELU']  # entry, splits, mixer, exit
    fast.clear()
    block(planes=16)(x)
    assert fast == ['RELU'] * 4 + ['NOTHING', 'ADD_RELU']  # with a projection shortcut
    fast.clear()
    with torch.no_grad():
        model.eval()(x)
    assert not fast


def hook(name, kind='register_forward_hook'):
    return lambda model: getattr(model.get_submodule(name), kind)(lambda *args: None)


APART = {
    'attention': {'attention': {'type': 'TiedSE', 'num_blocks': 2}},
    'plugin': {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv3'}]},
    'hook of the exit': hook('exit'), 'hook of its convolution': hook('exit.conv'), 'hook of its norm': hook('exit.bn'),
    'hook of the last ReLU': hook('activate'), 'backward hook': hook('exit.bn', 'register_full_backward_hook'),
    'another activation': lambda model: setattr(model, 'activate', nn.ReLU6(inplace=True)),
    'ReLU that copies': lambda model: setattr(model, 'activate', nn.ReLU()),
    'checkpoints': {'with_cp': True},
    'forward of the exit': lambda model: setattr(model.exit, 'forward', functools.partial(type(model.exit).forward, model.exit)),
    'subclass as the exit': lambda model: setattr(model.exit, '__class__', Doubled),
}


class Doubled(ConvNorm):
    def forward(self, *args):
        return 2 * super().forward(*args)


@pytest.mark.parametrize('case', APART)
def test_where_the_exit_is_not_one_with_what_follows(case, fast):
    settings = APART[case] if isinstance(APART[case], dict) else {}
    model, x = block(**settings), images(32).requires_grad_()
    if not settings:
        APART[case](model)
    mine = model(x)
    assert fast and 'ADD_RELU' not in fast
    with plainly():
        torch.testing.assert_close(mine, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('change', [torch.Tensor.contiguous, torch.clone, lambda x: x.flip(0).flip(0)])
def test_hooks_may_keep_maps_in_another_format(change, fast):
    model, x = block(), images(32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(change, lambda kept: kept):
        mine = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    assert 'ADD_RELU' in fast
    with plainly():
        for one, other in zip(mine, torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_hooks_may_not_change_the_type_in_silence(dtype, fast):
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.to(dtype), lambda kept: kept):
        y = normalise(nn.BatchNorm2d(16), None, images().requires_grad_())
    assert fast
    with pytest.raises(RuntimeError, match='expected the float32 tensors that were saved'):
        y.sum().backward()


def test_a_gradient_that_is_a_negative_view(fast):
    norm, x = nn.BatchNorm2d(16), images().requires_grad_()
    gradient = images()
    mine, = torch.autograd.grad(normalise(norm, None, x), x, torch._neg_view(gradient))
    assert fast
    torch.testing.assert_close(mine, torch.autograd.grad(norm(x), x, -gradient)[0], rtol=1e-4, atol=1e-5)


def test_a_shortcut_in_another_format(fast):
    """As a layer may return that someone has put there."""
    class Contiguous(nn.Module):
        def forward(self, x):
            return x.contiguous()

    model, x = block(), images(32)
    model.shortcut = Contiguous()
    mine = model(x)
    assert fast == ['RELU'] * 4 + ['NOTHING']
    with plainly():
        torch.testing.assert_close(mine, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('frozen', [['exit.bn'], ['entry', 'splits', 'mixer', 'exit.conv'], ['entry.bn', 'shortcut']])
@pytest.mark.parametrize('of_input', [True, False])
def test_what_does_not_train(frozen, of_input):
    model, x = block(planes=16), images(32).requires_grad_(of_input)
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    leaves = [leaf for leaf in (x, *model.parameters()) if leaf.requires_grad]
    mine = torch.autograd.grad(loss_of(model(x)), leaves)
    with plainly():
        theirs = torch.autograd.grad(loss_of(model(x)), leaves)
    assert_near(mine, theirs, theirs, slack=2e-5)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('network', [*FAMILIES, 'concat', 'none', 'add_back', 'with_cp', 'frozen', 'avg_down'])
def test_networks(network, memory_format, fast):
    settings = {'with_cp': {'with_cp': True}, 'frozen': {'frozen_stages': 1}, 'avg_down': {'avg_down': True}}
    settings = {} if network in FAMILIES else settings.get(network, {'mixer_fusion': network})
    model = randomised(tiny(network if network in FAMILIES else 'TiedResNet', num_stages=2, out_indices=(0, 1), **settings))
    model = model.train()
    x = torch.randn(3, 3, 48, 48).to(memory_format=memory_format)
    found = []
    for context, dtype in ((ExitStack, torch.float32), (plainly, torch.float32), (ExitStack, torch.float64)):
        one = copy.deepcopy(model).to(dtype)
        leaf = x.to(dtype).requires_grad_()
        with context():
            outputs = one(leaf)
            leaves = [leaf, *(weight for weight in one.parameters() if weight.requires_grad)]
            slopes = torch.autograd.grad(loss_of(outputs), leaves, allow_unused=True, materialize_grads=True)
        found.append([*outputs, *slopes, *one.buffers()])
    mine, theirs = ([distance(one, true) for one, true in zip(values, found[2], strict=True)
                     if true.double().norm() > 1e-12]  # before a normalisation, a bias has no gradient but rounding
                    for values in found[:2])
    assert median(mine) <= 2 * median(theirs) + 1e-6
    assert max(mine) < 0.05  # where rounding decides whether ReLU lets a value pass, PyTorch comes as far from float64
    if network.startswith('Tied') and memory_format == torch.channels_last:
        assert fast


def test_steps_are_the_same_in_each_run():
    model, x = randomised(tiny('TiedResNet')).train(), images(3, 64)
    first = gradients(model, x)
    for _ in range(3):
        assert all(map(torch.equal, first, gradients(model, x)))


@pytest.mark.slow
@pytest.mark.parametrize('width', [18, 32])
def test_training_takes_no_more_memory(width):
    peaks = []
    for context in (ExitStack, plainly):
        model = backbones.TiedResNet(50, base_width=width).to(memory_format=torch.channels_last)
        runner = Runner(model, images(3, 96))
        with context():
            peaks.append(runner.peak(runner.training()))
    assert peaks[0] <= 1.001 * peaks[1]
