"""Activations that are made anew in the backward pass: the same gradients, less memory, and off where others are at work."""

import copy
import gc
import weakref
from contextlib import ExitStack, contextmanager

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from families import FAMILIES, tiny
from graphs import GRAPHS
from mmengine.registry import MODELS
from network_pairs import build
from network_timing import Runner
from peak_memory import peak_bytes
from torch import nn
from torch.autograd.graph import disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmtied.backbones import recomputed
from mmtied.backbones.folded_norm import ConvNorm
from mmtied.backbones.recomputed import join, normalise, recomputing
from mmtied.backbones.tied_bottleneck import TiedBottleneck
from mmtied.layers import tied_convolution_way

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@MODELS.register_module(force=True)
class Doubled(nn.Module):
    """A plugin that doubles its input, in place or not."""

    def __init__(self, in_channels: int, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, x):
        return x.mul_(2) if self.in_place else x * 2


@contextmanager
def plainly():
    """Without recomputation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputed, '_may_recompute', lambda: False)
        yield


@pytest.fixture
def recipes(monkeypatch):
    """Weak references to the recipes that are noted within a test."""
    noted, add = [], recomputed._Recorder.add

    def spy(self, tensor, version, recipe):
        noted.append(weakref.ref(recipe))
        add(self, tensor, version, recipe)

    monkeypatch.setattr(recomputed._Recorder, 'add', spy)
    return noted


def randomised(model):
    """The model with normalisations that are not the identity."""
    for module in model.modules():
        if isinstance(module, (_BatchNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model


def block(**settings):
    """A block with a mixer; gradients of its first layers' weights reach through all of it."""
    settings = {'in_channels': 32, 'planes': 8, 'width': 8, 'split_blocks': (1, 2, 2, 4), 'entry_blocks': 2,
                'shortcut_blocks': 2, 'mixer_fusion': 'sum', 'mixer_out_ratio': 0.5, 'norm_cfg': {'type': 'BN'}, **settings}
    return randomised(TiedBottleneck(**settings)).double()


def images(memory_format='channels_last', channels=3, size=32, dtype=torch.float64):
    return torch.randn(3, channels, size, size, dtype=dtype).to(memory_format=FORMATS[memory_format])


def loss_of(outputs):
    return sum((output.float() if output.dtype == torch.bfloat16 else output).square().mean()
               for output in (outputs if isinstance(outputs, tuple) else (outputs, )))


def gradients(model, x, run=None):
    """Of the mean squares of the outputs, by the input and all parameters that train."""
    x = x.detach().requires_grad_()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.autograd.grad(loss_of((run or model)(x)), [x, *weights], allow_unused=True)


def assert_same(mine, theirs, **tolerance):
    tolerance = tolerance or {'rtol': 1e-10, 'atol': 1e-12}
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize('mode', ['train', 'norm_eval'])
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('network', [*FAMILIES, 'concat', 'none', 'add_back', 'plugins', 'avg_down', 'caffe', 'frozen'])
def test_gradients_are_those_of_kept_activations(network, memory_format, mode, recipes):
    plugin = {'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv3'}
    first = {'cfg': {**plugin['cfg'], 'postfix': '_first'}, 'position': 'after_conv1'}
    special = {'plugins': {'plugins': [plugin, first]},
               'avg_down': {'avg_down': True}, 'caffe': {'style': 'caffe'}, 'frozen': {'frozen_stages': 1}}
    settings = {} if network in FAMILIES else special.get(network, {'mixer_fusion': network})
    model = tiny(network if network in FAMILIES else 'TiedResNet', num_stages=2, out_indices=(0, 1),
                 norm_eval=mode == 'norm_eval', **settings)
    model = randomised(model).double().train()
    x = images(memory_format)
    mine = gradients(model, x)
    assert recipes
    with plainly():
        theirs = gradients(model, x)
    assert_same(mine, theirs)


@pytest.mark.parametrize('memory_format', FORMATS)
def test_on_the_cpu_gradients_are_the_same_to_the_bit(memory_format):
    model = randomised(tiny('TiedResNet')).train()
    x = images(memory_format, size=64, dtype=torch.float32)
    mine = gradients(model, x)
    with plainly():
        assert all(map(torch.equal, mine, gradients(model, x)))


@pytest.mark.slow
def test_gradients_agree_with_finite_differences():
    model = block(in_channels=8, planes=4, width=4)
    x = images(channels=8, size=3).requires_grad_()
    torch.autograd.gradcheck(model, x, nondet_tol=1e-12)
    torch.autograd.gradgradcheck(model, x, nondet_tol=1e-12)


def test_gradients_of_gradients():
    model, x = block(), images(channels=32, size=6)

    def penalty(x):
        first, = torch.autograd.grad(loss_of(model(x)), x, create_graph=True)
        return first.square().sum() * 1e3

    mine = gradients(model, x, penalty)
    with plainly():
        assert_same(mine, gradients(model, x, penalty))


def test_a_retained_graph_can_be_used_again_and_in_part():
    model, x = block(), images(channels=32, size=6).requires_grad_()
    weights = list(model.parameters())
    with plainly():
        expected = torch.autograd.grad(loss_of(model(x)), weights)
    loss = loss_of(model(x))
    assert_same(torch.autograd.grad(loss, weights, retain_graph=True), expected)
    index, last = next((index, [weight]) for index, weight in enumerate(weights) if weight is model.exit.conv.weight)
    assert_same(torch.autograd.grad(loss, last, retain_graph=True), [expected[index]])
    assert_same(torch.autograd.grad(loss, weights, retain_graph=True), expected)
    assert_same(torch.autograd.grad(loss, weights), expected)
    with pytest.raises(RuntimeError, match='second time'):
        torch.autograd.grad(loss, weights)


def test_nothing_outlives_the_backward_pass(recipes):
    model, x = block(), images(channels=32, size=6)
    gc.collect()
    gc.disable()
    try:
        loss = loss_of(model(x))
        alive = [recipe() for recipe in recipes if recipe() is not None]
        assert alive
        loss.backward(retain_graph=True)
        assert all(recipe.made is None for recipe in alive)  # everyone who was waited for has come
        del alive
        loss.backward()
        assert not [recipe for recipe in recipes if recipe() is not None]
    finally:
        gc.enable()


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_blocks_train_in_less_memory(dtype, memory_format):
    model = nn.Sequential(*(block(in_channels=256, planes=64, width=32, split_blocks=(1, 2, 4, 8)) for _ in range(4))).float()
    x = images(memory_format, channels=256, size=28, dtype=torch.float32).requires_grad_()

    def step():
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            loss = loss_of(model(x))
        loss.backward()

    step()  # gradients are there
    mine = peak_bytes(step)
    with plainly():
        assert mine < (0.75 if dtype == torch.float32 else 0.8) * peak_bytes(step)


@pytest.mark.slow
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize(('tied', 'most'), [('TiedResNet-50', 1), ('TiedResNet-50-S', 0.8)])
def test_training_takes_no_more_memory_than_resnet(tied, most, memory_format):
    pytest.importorskip('mmdet')
    peaks = {}
    for name in (tied, 'ResNet-50'):
        network = build(name).to(memory_format=FORMATS[memory_format])
        runner = Runner(network, torch.randn(4, 3, 224, 224).to(memory_format=FORMATS[memory_format]))
        peaks[name] = runner.peak(runner.training())
    assert peaks[tied] <= most * peaks['ResNet-50']


def test_mixed_precision_gives_the_same_gradients():
    model = block().float()
    x = images(channels=32, dtype=torch.float32)

    def run(x):
        with torch.autocast('cpu', torch.bfloat16):
            return model(x)

    mine = gradients(model, x, run)
    with plainly():
        assert all(map(torch.equal, mine, gradients(model, x, run)))


@pytest.mark.parametrize('layer', ['entry.bn.weight', 'splits.norm.bias', 'mixer.mix.bn.bias', 'exit.conv.weight'])
def test_a_weight_changed_before_the_backward_pass_is_an_error(layer):
    """As it is without recomputation, where autograd kept the weight; a bias of the normalisation is needed only here."""
    model = block()
    loss = loss_of(model(images(channels=32)))
    with torch.no_grad():
        model.get_parameter(layer).mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


def test_running_statistics_may_move_before_the_backward_pass():
    """A forward pass in training moves them, and autograd does not notice; y**2 needs the y of before."""
    norm, z = nn.BatchNorm2d(4).double().eval(), images(channels=4)
    y = F.batch_norm(z, norm.running_mean, norm.running_var, eps=norm.eps).relu()
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    with recomputing():
        loss = (normalise(norm, nn.ReLU(inplace=True), z) * weight).sum()
    norm.train()(z + 1)
    assert_same(torch.autograd.grad(loss, weight), [y.sum()])


def test_a_plugin_may_overwrite_an_activation():
    model = {in_place: block(plugins=[{'cfg': {'type': 'Doubled', 'in_place': in_place}, 'position': position}
                                      for position in ('after_conv1', 'after_conv2', 'after_conv3')])
             for in_place in (True, False)}
    model[True].load_state_dict(model[False].state_dict())
    x = images(channels=32)
    with plainly():
        expected = gradients(model[False], x)
    assert_same(gradients(model[True], x), expected)


@pytest.mark.parametrize('replace', [True, False])
def test_a_hook_may_change_what_a_normalisation_returns(replace):
    model, x = block(), images(channels=32)
    for name in ('entry.bn', 'splits.norm', 'mixer.reduce.bn'):
        model.get_submodule(name).register_forward_hook(lambda _, __, y: y + 1 if replace else y.add_(1))
    mine = gradients(model, x)
    with plainly():
        assert_same(mine, gradients(model, x))


def test_group_normalisation_is_kept(recipes):
    model, x = block(norm_cfg={'type': 'GN', 'num_groups': 2}), images(channels=32)
    mine = gradients(model, x)
    assert not recipes
    with plainly():
        assert_same(mine, gradients(model, x))


def test_parts_of_which_one_is_kept_are_joined_and_kept(recipes):
    layers = [ConvNorm(4, 4, 1, norm_cfg=norm).double() for norm in ({'type': 'BN'}, {'type': 'GN', 'num_groups': 2})]
    x = images(channels=4)
    with recomputing():
        joined = join([layer(x) for layer in layers])
    assert len(recipes) == 1
    torch.testing.assert_close(joined, torch.cat([layer(x) for layer in layers], 1))


def test_an_empty_batch_trains():
    norm, x = nn.BatchNorm2d(4).eval(), torch.zeros(0, 4, 5, 5, requires_grad=True)
    with recomputing():
        y = join([normalise(norm, nn.ReLU(inplace=True), x * 1), normalise(norm, None, x * 1)])
        loss = y.square().sum()
    loss.backward()
    assert x.grad.shape == x.shape


@contextmanager
def count_saved(counts):
    """Hooks of a user, who counts."""
    def pack(tensor):
        counts.append(tensor.shape)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


OFF = {
    'no_grad': torch.no_grad,
    'inference_mode': torch.inference_mode,
    'way': lambda: tied_convolution_way('fold'),
    'offloading': save_on_cpu,
    'hooks': lambda: count_saved([]),
    'hooks disabled': lambda: disable_saved_tensors_hooks('not here'),
}


@pytest.mark.parametrize('context', OFF)
def test_where_it_is_off(context, recipes):
    model = block()
    with OFF[context]():
        outputs = model(images(channels=32))
    assert not recipes
    if context not in ('no_grad', 'inference_mode'):
        loss_of(outputs).backward()


def test_hooks_of_a_user_see_every_saved_tensor():
    model, x, mine, theirs = block(), images(channels=32), [], []
    with count_saved(mine):
        model(x)
    with plainly(), count_saved(theirs):
        model(x)
    assert mine and mine == theirs


@pytest.mark.parametrize('how', ['with_cp', 'checkpoint', 'reentrant', 'hooks', 'offloading', 'DDP'])
def test_gradients_together_with(how, tmp_path):
    model = randomised(tiny('TiedResNet', num_stages=2, out_indices=(0, 1), with_cp=how == 'with_cp')).double().train()
    x = images()
    with plainly():
        expected = gradients(copy.deepcopy(model), x)
    with ExitStack() as stack:
        run = model
        if how in ('checkpoint', 'reentrant'):
            def run(x):
                return checkpoint(model, x, use_reentrant=how == 'reentrant')
        elif how in ('hooks', 'offloading'):
            stack.enter_context(save_on_cpu() if how == 'offloading' else count_saved([]))
        elif how == 'DDP':
            dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
            stack.callback(dist.destroy_process_group)
            run = nn.parallel.DistributedDataParallel(model)
        x = x.requires_grad_()
        loss_of(run(x)).backward()
    assert_same([x.grad, *(weight.grad for weight in model.parameters())], expected)


def test_function_transforms(recipes):
    model, x = block().eval(), images(channels=32)  # in training BatchNorm counts batches, which transforms forbid
    weights = dict(model.named_parameters())
    with plainly():
        expected = gradients(model, x)[1:]
    mine = torch.func.grad(lambda weights: loss_of(torch.func.functional_call(model, weights, (x, ))))(weights)
    assert not recipes
    assert_same(mine.values(), expected)


@pytest.mark.parametrize('graph', GRAPHS)
def test_graphs_hold_no_recipes(graph, recipes):
    model, x = block(), images(channels=32)
    expected = model(x).detach()
    recipes.clear()
    made = GRAPHS[graph](model, x)
    torch.testing.assert_close(made(x), expected)
    assert not recipes


def test_outputs_and_running_statistics_are_the_same_to_the_bit():
    model = randomised(tiny('TiedResNet')).train()
    other, x = copy.deepcopy(model), images(dtype=torch.float32)
    mine = model(x)
    with plainly():
        assert all(map(torch.equal, mine, other(x)))
    assert all(map(torch.equal, model.buffers(), other.buffers()))
