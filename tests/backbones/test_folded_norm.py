"""What backbones do for speed on the CPU changes no number: against the same network with every layer called plainly."""

import copy

import pytest
import torch
from families import FAMILIES, tiny
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.backbones import tied_bottleneck
from mmtied.backbones.folded_norm import ConvNorm, can_fold, convolve_scaled, scale_and_shift
from mmtied.layers import TBC, tied_convolution_way, way_timing
from mmtied.layers.tied_ways import WAYS

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
MODES = ['train', 'norm_eval', 'eval']


def trained(model: nn.Module) -> nn.Module:
    """The network in float64 with normalisations that are not the identity, as training leaves them."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double()


def set_mode(model: nn.Module, mode: str) -> None:
    """'norm_eval' trains with normalisations on their running statistics, as mmdet fine-tunes."""
    model.train(mode != 'eval')
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(mode == 'train')


def run(model: nn.Module, x: Tensor, mode: str) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of a network, and the gradients of its parameters and its input."""
    set_mode(model, mode)
    x = x.detach().requires_grad_(mode != 'eval')
    with torch.set_grad_enabled(mode != 'eval'):
        outputs = model(x)
    if mode == 'eval':
        return list(outputs), []
    gradients = torch.autograd.grad(sum((output**2).mean() for output in outputs), [x, *model.parameters()])
    return [output.detach() for output in outputs], list(gradients)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('network', [*FAMILIES, 'concat', 'none', 'add_back', 'GCB', 'wide splits'])
def test_a_network_equals_itself_without_what_is_done_for_speed(network, memory_format, mode, monkeypatch):
    settings = {'num_stages': 2, 'out_indices': (0, 1)}
    if network == 'GCB':
        plugin = {'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv3'}
        settings['plugins'] = [plugin, {**plugin, 'position': 'after_conv2', 'cfg': {**plugin['cfg'], 'postfix': '_mid'}}]
    elif network == 'wide splits':
        monkeypatch.setattr(tied_bottleneck, 'JOINED_WIDTH', 0)
    elif network not in FAMILIES:
        settings['mixer_fusion'] = network
    fast = trained(tiny(network if network in FAMILIES else 'TiedResNet', **settings))
    plain = copy.deepcopy(fast)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64).to(memory_format=FORMATS[memory_format])
    for _ in range(2):  # the second time, running statistics have moved
        mine = run(fast, x, mode)
        with tied_convolution_way('grouped'):
            theirs = run(plain, x.contiguous(), mode)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    for one, other in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(('family', 'memory_format'), [
    (family, memory_format) for family in FAMILIES for memory_format in FORMATS
    if (family, memory_format) != ('TiedResNeSt', 'channels_last')  # mmdet's split attention returns contiguous NCHW
])
def test_outputs_have_the_memory_format_of_the_input(family, memory_format):
    x = torch.randn(2, 3, 64, 64).to(memory_format=FORMATS[memory_format])
    for output in tiny(family)(x):
        assert output.is_contiguous(memory_format=FORMATS[memory_format])


@pytest.mark.parametrize('conv_cfg', [None, {'type': 'TBC', 'num_blocks': 4}, {'type': 'TGC', 'num_blocks': 2}], ids=str)
@pytest.mark.parametrize('norm_cfg', [{'type': 'BN'}, {'type': 'BN', 'affine': False}, {'type': 'BN', 'eps': 0.1}], ids=str)
@pytest.mark.parametrize('bias', [True, False])
def test_conv_norm_is_conv_module(conv_cfg, norm_cfg, bias):
    groups = 2 if conv_cfg and conv_cfg['type'] == 'TGC' else 1
    layer = ConvNorm(8, 16, 3, 2, 1, groups=groups, bias=bias, conv_cfg=conv_cfg, norm_cfg={'requires_grad': True, **norm_cfg})
    layer = layer.double().eval()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    calls = []
    for activate in (True, False):
        for norm in (True, False):
            with torch.no_grad():
                expected = ConvModule.forward(layer, x, activate, norm)
                torch.testing.assert_close(layer(x, activate, norm), expected)
    handle = layer.norm.register_forward_hook(lambda *args: calls.append(args))
    with torch.no_grad():
        layer(x)
    assert len(calls) == 1
    handle.remove()


@pytest.mark.parametrize(('mode', 'folded'), [('eval', 'all'), ('train', 'none'), ('norm_eval', 'some')])
def test_where_normalisations_are_folded(mode, folded, monkeypatch):
    """All without gradients; with them, those after plain convolutions; none on the statistics of the batch."""
    model = tiny('TiedResNet', num_stages=1, out_indices=(0, ))
    monkeypatch.setenv('MMTIED_NATIVE', '0')  # every normalisation is a call of PyTorch's, or folded
    calls, batch_norm = [], nn.functional.batch_norm
    monkeypatch.setattr(nn.functional, 'batch_norm', lambda *args: (calls.append(args), batch_norm(*args))[1])
    total = sum(isinstance(module, _BatchNorm) for module in model.modules())
    set_mode(model, mode)
    with torch.set_grad_enabled(mode != 'eval'):
        model(torch.randn(2, 3, 32, 32))
    assert len(calls) == {'all': 0, 'none': total, 'some': 7}[folded]  # entries, splits and the shortcut are tied
    assert total == 17


def test_hooks_within_a_block_see_their_calls():
    """As counters and visualisers hook into layers in evaluation."""
    model = tiny('TiedResNet', num_stages=1, out_indices=(0, )).eval()
    seen = []
    watched = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, _BatchNorm))]
    for name in watched:
        model.get_submodule(name).register_forward_hook(lambda *args, name=name: seen.append(name))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert sorted(seen) == sorted(watched)


def test_scale_and_shift_are_batch_norm():
    norm = trained(nn.BatchNorm2d(5)).eval()
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    scale, shift = scale_and_shift(norm)
    torch.testing.assert_close(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), norm(x))


def test_a_scaled_tied_convolution():
    layer = TBC(6, 9, 3, padding=1, num_blocks=3).double()
    scale, shift = torch.randn(2, 9, dtype=torch.float64)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected = WAYS['fold'](x, layer.weight, layer.bias, layer.geometry) * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    torch.testing.assert_close(convolve_scaled(x, layer, scale, shift), expected)


@pytest.mark.parametrize(('conv', 'norm'), [
    (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
    (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False).eval()),
    (nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4).eval()),
    (nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect'), nn.BatchNorm2d(4).eval()),
    (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4).eval()),
    (nn.Conv2d(4, 4, 1), None),
])
def test_what_cannot_be_folded(conv, norm):
    assert not can_fold(conv, norm)


def test_a_plugin_may_keep_its_output_for_the_backward_pass():
    """Sigmoid's gradient needs its output, which the addition of the shortcut must not overwrite."""
    model = tiny('TiedResNet', num_stages=1, out_indices=(0, ))
    for block in model.layer1:
        block.plugins.names['after_conv3'].append('gate')
        block.plugins.gate = nn.Sigmoid()
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class ReluNorm(nn.BatchNorm2d):
    """A normalisation that does more than its parent, as timm's BatchNormAct2d does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_a_normalisation_with_a_forward_of_its_own_is_called():
    layer = ConvNorm(4, 4, 1, norm_cfg={'type': 'BN'}, act_cfg=None)
    layer.bn = ReluNorm(4)
    nn.init.constant_(layer.bn.bias, -0.5)
    layer.eval()
    with torch.no_grad():
        assert layer(torch.randn(2, 4, 5, 5)).min() == 0


@pytest.mark.parametrize('settings', [{'padding_mode': 'reflect'}, {'order': ('norm', 'conv', 'act')}], ids=str)
def test_conv_norm_with_unusual_settings_is_conv_module(settings):
    layer = ConvNorm(8, 8, 3, padding=1, norm_cfg={'type': 'BN'}, **settings)
    trained(layer).eval()
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), ConvModule.forward(layer, x))


def test_a_layers_own_way_is_taken_in_evaluation():
    layer = ConvNorm(8, 8, 1, conv_cfg={'type': 'TBC', 'way': 'dense'}, norm_cfg={'type': 'BN'}).eval()
    assert not can_fold(layer.conv, layer.norm)
    layer.conv.way = 'auto'
    with torch.no_grad():
        assert can_fold(layer.conv, layer.norm)


@pytest.mark.parametrize('register', ['register_forward_hook', 'register_full_backward_hook'])
@pytest.mark.parametrize('part', ['exit', 'exit.bn', 'exit.conv'])
def test_what_a_hook_saw_is_not_overwritten(part, register):
    model = tiny('TiedResNet', num_stages=1, out_indices=(0, ))
    seen = []
    getattr(model.layer1[1].get_submodule(part), register)(lambda *args: seen.append(args[2] if len(args) > 2 else None))
    copies = []
    model.layer1[1].get_submodule('exit').register_forward_hook(lambda _, inputs, output: copies.append(output.clone()))
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert len(seen) == len(copies) == 1
    if (part, register) == ('exit', 'register_forward_hook'):
        assert torch.equal(seen[0], copies[0])


def test_a_basic_block_does_not_overwrite_its_plugins_output():
    """It adds the shortcut after its second convolution's plugins, one of which may end in a ReLU that keeps its output."""
    shared = pytest.importorskip('mmtied.backbones').SharedResNet
    plugin = {'cfg': {'type': 'ConvModule', 'out_channels': 64, 'kernel_size': 1}, 'position': 'after_conv2'}
    model = shared(18, num_stages=1, out_indices=(0, ), plugins=[plugin])
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()


def test_measuring_under_checkpointing():
    """A checkpointed block counts what is saved for its backward pass; measurements must not be among it."""
    way_timing.forget_measurements()
    model = tiny('TiedResNet', num_stages=1, out_indices=(0, ), with_cp=True)
    with tied_convolution_way('measured'):
        model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    way_timing.forget_measurements()
