"""Nearest tied weights of ordinary convolutions, against dense expansions and least squares."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mmtied.layers import TBC, TGC
from mmtied.surgery import deploy, tie
from tests.helpers.onnx_files import export_onnx, run_onnx

SETTINGS = [dict(groups=1, bias=True, stride=2, padding=1), dict(groups=2, bias=False, dilation=2, padding=2),
            dict(groups=1, bias=False, padding=1, padding_mode='reflect')]


def dense_weight(layer):
    """Return the weight (C_out, C_in, k, k) of the equivalent dense convolution from its impulse responses."""
    size = layer.kernel_size[0]
    impulses = torch.eye(layer.in_channels * size * size, dtype=torch.float64).view(-1, layer.in_channels, size, size)
    answers = nn.functional.conv2d(impulses, layer.weight, groups=layer.groups) if type(layer) is nn.Conv2d else (
        nn.functional.conv2d(impulses, layer.expanded_weight(), groups=layer.groups * layer.num_blocks))
    return answers.flatten(1).T.reshape(layer.out_channels, layer.in_channels, size, size)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('num_blocks', [1, 2, 4])
@torch.no_grad()
def test_weights_are_the_least_squares_solution(settings, num_blocks):
    conv = nn.Conv2d(8, 8, 3, **settings).double()
    tied, (change, ) = tie(conv, num_blocks)
    assert type(tied) is (TBC if conv.groups == 1 else TGC)
    columns = []  # the dense weight is linear in the thin one: solve for it
    found = tied.weight.clone()
    for index in range(tied.weight.numel()):
        tied.weight.zero_().view(-1)[index] = 1
        columns.append(dense_weight(tied).flatten())
    solution = torch.linalg.lstsq(torch.stack(columns, 1), dense_weight(conv).flatten()[:, None]).solution
    torch.testing.assert_close(found.flatten(), solution.flatten())
    tied.weight.copy_(found)
    moved = (dense_weight(tied) - dense_weight(conv)).square().sum()
    norm = conv.weight.square().sum()
    if conv.bias is not None:
        moved += (tied.expanded_bias() - conv.bias).square().sum()
        norm += conv.bias.square().sum()
    assert change.relative_error == pytest.approx(float(moved / norm)**.5, abs=1e-12)
    assert change.weights == sum(parameter.numel() for parameter in conv.parameters())
    assert change.tied_weights == sum(parameter.numel() for parameter in tied.parameters())
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    if num_blocks == 1:
        torch.testing.assert_close(tied(x), conv(x))


@torch.no_grad()
def test_error_is_the_change_of_the_output_for_white_noise():
    torch.manual_seed(0)
    for settings in SETTINGS:
        conv = nn.Conv2d(16, 32, 3, **{**settings, 'padding': 0})
        tied, (change, ) = tie(conv, 2)
        x = torch.randn(64, 16, 32, 32)
        measured = (tied(x) - conv(x)).square().mean().sqrt() / conv(x).square().mean().sqrt()
        assert change.relative_error == pytest.approx(float(measured), rel=0.01)


def network():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16),
                         nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.Conv2d(64, 16, 1, bias=False)))


def test_layers_that_do_not_fit_or_are_not_chosen_stay():
    model = network().train()
    tied, changes = tie(model)
    assert [change.name for change in changes] == ['4.0', '4.1']
    assert [type(layer) for layer in (tied[0], tied[3], tied[4][0])] == [nn.Conv2d, nn.Conv2d, TBC]
    assert type(model[4][0]) is nn.Conv2d, 'the model is left as it is'
    assert tied[4][0].training
    for layers in ('4.1', ['4.1']):
        assert [change.name for change in tie(model, layers=layers)[1]] == ['4.1']


def test_a_layer_with_several_names_stays_one():
    """As the convolutions that RTMDet's head shares between levels."""
    conv = nn.Conv2d(8, 8, 3)
    tied, changes = tie(nn.ModuleDict({'a': nn.Sequential(conv, nn.ReLU()), 'b': nn.Sequential(conv, nn.Sigmoid())}))
    assert [change.name for change in changes] == ['a.0']
    assert type(tied['a'][0]) is TBC
    assert tied['b'][0] is tied['a'][0]


def test_layers_with_hooks_or_computed_weights_stay():
    model = nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(4)))
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    nn.utils.parametrizations.weight_norm(model[1])
    prune.random_unstructured(model[2], 'weight', .5)
    tied, changes = tie(model)
    assert [change.name for change in changes] == ['3']
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(tied[:3](x), model[:3](x))


def test_a_layer_that_is_tied_already_in_effect_has_no_error():
    tied = TBC(8, 16, 3, num_blocks=2, bias=False)
    conv = nn.Conv2d(8, 16, 3, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:8, :4] = conv.weight[8:, 4:] = tied.weight
    again, (change, ) = tie(conv)
    assert change.relative_error == 0
    assert torch.equal(again.weight, tied.weight)


@pytest.mark.parametrize('budget', [0, .3, .5, .65, 1])
def test_budget_takes_the_largest_savings_first(budget):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(8 * size, 8 * size, 1, bias=False) for size in (1, 2, 4, 8)))
    everything = tie(model)[1]
    taken = {change.name for change in tie(model, error_budget=budget)[1]}
    assert sum(change.relative_error**2 for change in everything if change.name in taken) / 4 <= budget**2
    total = 0
    for change in reversed(everything):  # by brute force: the largest is the last
        fits = (total + change.relative_error**2) / 4 <= budget**2
        assert (change.name in taken) == fits
        total += change.relative_error**2 * fits
    assert len(taken) == {0: 0, 1: 4}.get(budget, len(taken))


@torch.no_grad()
def test_tied_network_deploys_and_keeps_its_checkpoint(tmp_path):
    tied, _ = tie(network())
    tied.eval()
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(deploy(tied)(x), tied(x), atol=1e-5, rtol=1e-5)
    torch.save(tied.state_dict(), tmp_path / 'tied.pth')
    other, _ = tie(network())
    other.load_state_dict(torch.load(tmp_path / 'tied.pth', weights_only=True))
    assert torch.equal(other.eval()(x), tied(x))


@pytest.mark.parametrize('prepare', [lambda model: model, deploy], ids=['tied', 'deployed'])
@torch.no_grad()
def test_onnx(prepare, tmp_path):
    tied = tie(network().eval())[0]
    x = torch.randn(2, 3, 12, 12)
    export_onnx(prepare(tied), x[:1], tmp_path / 'tied.onnx')
    torch.testing.assert_close(run_onnx(tmp_path / 'tied.onnx', x)[0], tied(x), atol=1e-5, rtol=1e-5)


def test_frozen_weights_stay_frozen():
    conv = nn.Conv2d(4, 4, 1)
    conv.weight.requires_grad_(False)
    tied, _ = tie(conv)
    assert (tied.weight.requires_grad, tied.bias.requires_grad) == (False, True)


@pytest.mark.parametrize(('settings', 'message'), [
    (dict(num_blocks=0), '^tie: num_blocks=0'),
    (dict(error_budget=-.1), '^tie: error_budget=-0.1, expected 0 or more'),
    (dict(layers=['head.*']), "^tie: 'head[.][*]' matches no layer that num_blocks=2 can tie; use one of 4.0, 4.1"),
])
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        tie(network(), **settings)


@torch.no_grad()
def test_backbone_of_mmdet_becomes_that_of_conv_cfg():
    """A tied ResNet has the convolutions that conv_cfg builds, so its config loads the weights."""
    models = pytest.importorskip('mmdet.models')
    import mmtied.registry  # noqa: F401, for the name TBC
    small = dict(depth=18, base_channels=16, stem_channels=16)
    tied, changes = tie(models.backbones.ResNet(**small))
    assert len(changes) == 19
    built = models.backbones.ResNet(**small, conv_cfg=dict(type='TBC', num_blocks=2, indivisible='untie'))
    built.load_state_dict(tied.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for backbone in (built, tied):
        backbone.train(False)
    for level, expected in zip(built(x), tied(x), strict=True):
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_tied_layers_keep_the_memory_format(memory_format):
    tied, _ = tie(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=2)).to(memory_format=memory_format))
    assert [type(layer) for layer in tied] == [TBC, TGC]
    for layer in tied:
        assert layer.weight.is_contiguous(memory_format=memory_format)
        assert not layer.weight.is_contiguous(memory_format=torch.channels_last) or memory_format is torch.channels_last
