"""Frozen groups: the same outputs with ordinary grouped convolutions, folded or not, and as ONNX."""

import copy
import itertools

import pytest
import torch
from torch import nn

from mmtied.layers import DGConv
from mmtied.related.groupable.layers import gated_layers, group_numbers
from mmtied.surgery import PermutedConv2d, freeze_groups
from tests.helpers.onnx_files import export_onnx, run_onnx


def set_gates(layer: DGConv, gates) -> DGConv:
    layer.gates.data.copy_(torch.tensor(gates) * 2. - 1)
    return layer


@pytest.mark.parametrize(('inputs', 'outputs'), [(8, 8), (16, 16), (8, 16), (12, 8), (20, 4)])
def test_keeps_outputs_for_every_pattern(inputs, outputs):
    count = len(DGConv(inputs, outputs, 1).gates)
    x = torch.rand(2, inputs, 5, 6, dtype=torch.float64)
    for gates in itertools.product((0, 1), repeat=count):
        layer = set_gates(DGConv(inputs, outputs, 3, padding=1, dtype=torch.float64), gates)
        frozen = freeze_groups(layer)
        assert not isinstance(frozen, DGConv)
        assert frozen.groups == layer.group_number == 2**gates.count(0)
        assert frozen.weight.numel() == layer.relationship().sum() * 9
        adjacent = list(gates) == sorted(gates)  # closed gates first
        assert isinstance(frozen, PermutedConv2d) != adjacent
        torch.testing.assert_close(frozen(x), layer(x))
        torch.testing.assert_close(frozen(x[0]), layer(x[0]))


def test_geometry_and_state():
    layer = set_gates(DGConv(8, 8, 3, stride=2, padding=2, dilation=2, bias=False, padding_mode='reflect'), (1, 0, 1))
    layer.weight.requires_grad_(False)
    frozen = freeze_groups(layer.bfloat16())
    assert (frozen.weight.dtype, frozen.weight.requires_grad, frozen.bias) == (torch.bfloat16, False, None)
    x = torch.rand(1, 8, 9, 9, dtype=torch.bfloat16)
    torch.testing.assert_close(frozen(x), layer(x))
    other = freeze_groups(set_gates(DGConv(8, 8, 3, stride=2, padding=2, dilation=2, bias=False, padding_mode='reflect'),
                                    (1, 0, 1)))
    other.load_state_dict(frozen.state_dict())
    torch.testing.assert_close(other.bfloat16()(x), layer(x))


def test_layer_with_two_parents():
    layer = set_gates(DGConv(8, 8, 1), (1, 0, 0))
    model = nn.Sequential(DGConv(3, 8, 1), layer, nn.Sequential(nn.ReLU(), layer))
    x = torch.rand(1, 3, 4, 4)
    expected = model(x)
    assert freeze_groups(model) is model
    assert not any(isinstance(module, DGConv) for module in model.modules())
    assert type(model[0]) is nn.Conv2d
    assert model[1] is model[2][1]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('fold', ['mmcv', 'torch'])
def test_fuse_conv_bn_keeps_outputs(fold, bias):
    """mmcv's and torch's fusion both scale a weight row by row, in the order of the output channels."""
    conv = freeze_groups(set_gates(DGConv(12, 8, 3, bias=bias), (1, 0)))
    assert isinstance(conv, PermutedConv2d)
    norm = nn.BatchNorm2d(8)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    model = nn.Sequential(conv, norm).eval()
    x = torch.rand(2, 12, 5, 6)
    expected = model(x)
    if fold == 'mmcv':
        folded = pytest.importorskip('mmcv.cnn.utils').fuse_conv_bn(copy.deepcopy(model))
    else:
        folded = torch.nn.utils.fuse_conv_bn_eval(*model)
    torch.testing.assert_close(folded(x), expected)


def backbone(**settings) -> nn.Module:
    """Build a small GResNeXt in evaluation mode, with gates, statistics and scales as after training."""
    pytest.importorskip('mmcv')
    from mmtied.backbones import GResNeXt
    model = GResNeXt(50, base_channels=8, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-.2, .2)
            module.running_var.uniform_(.5, 1.5)
            nn.init.uniform_(module.weight, .2, .6)
            nn.init.uniform_(module.bias, -.2, .2)
    for layer in gated_layers(model).values():
        nn.init.uniform_(layer.gates, -1, 1)
    return model.eval()


@pytest.mark.parametrize('settings', [
    {}, {'deep_stem': True, 'avg_down': True}, {'norm_cfg': {'type': 'GN', 'num_groups': 4}},
    {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'stages': (False, True, False, False),
                  'position': 'after_conv2'}]},
], ids=str)
@pytest.mark.parametrize('fold', [True, False])
def test_freezes_a_backbone(settings, fold):
    model = backbone(**settings).double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    expected, groups = model(x), list(group_numbers(model).values())
    freeze_groups(model, fold=fold)
    for level, theirs in zip(model(x), expected, strict=True):
        torch.testing.assert_close(level, theirs)
    convs = [block.grouped.conv for name in model.stage_names for block in getattr(model, name)]
    assert [conv.groups for conv in convs] == groups
    permuted = [isinstance(conv, PermutedConv2d) for conv in convs]
    if fold and 'norm_cfg' not in settings:
        kept = [3 <= index < 7 for index in range(16)] if 'plugins' in settings else [False] * 16
        assert all(not is_permuted or may for is_permuted, may in zip(permuted, kept, strict=True))
    else:
        assert sum(permuted) > 8


def test_folded_backbone_is_a_resnext():
    """ResNeXt* of Table 6: the weights fit a GResNeXt built with the learned group numbers."""
    model = backbone()
    x = torch.rand(1, 3, 64, 64)
    expected = model(x)
    groups = list(group_numbers(model).values())
    freeze_groups(model)
    from mmtied.backbones import GResNeXt
    resnext = GResNeXt(50, base_channels=8, groups=groups).eval()
    resnext.load_state_dict(model.state_dict())
    for level, theirs in zip(resnext(x), expected, strict=True):
        torch.testing.assert_close(level, theirs, atol=1e-4, rtol=1e-4)


def test_folding_keeps_gradients():
    model = backbone().double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    losses = []
    for network in (model, freeze_groups(copy.deepcopy(model))):
        loss = sum(level.square().mean() for level in network.train()(x))
        loss.backward()
        losses.append((loss, network.stem.conv.weight.grad))
    torch.testing.assert_close(*losses)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('fold', [True, False])
def test_onnx(fold, tmp_path):
    import onnx
    model = freeze_groups(backbone(num_stages=2, out_indices=(0, 1)), fold=fold)
    path = tmp_path / 'frozen.onnx'
    export_onnx(model, torch.rand(2, 3, 64, 64), path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    groups = [next(a.i for a in node.attribute if a.name == 'group') for node in onnx.load(path).graph.node
              if node.op_type == 'Conv']
    assert max(groups) > 1
    assert ('Gather' in operators) is not fold
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(image)
    for level, theirs in zip(run_onnx(path, image), expected, strict=True):
        torch.testing.assert_close(level, theirs, atol=1e-4, rtol=1e-4)


def test_errors():
    with pytest.raises(ValueError, match='freeze_groups: Conv2d has no DGConv; its groups may be frozen already'):
        freeze_groups(nn.Conv2d(4, 4, 1))
    for other in (None, DGConv(4, 4, 1).state_dict()):
        with pytest.raises(ValueError, match=f'expected a model with DGConv layers, got {type(other).__name__}'):
            freeze_groups(other)


def test_rejects_nan_gates():
    model = nn.Sequential(DGConv(8, 8, 1), nn.Sequential(DGConv(8, 4, 1)))
    model[1][0].gates.data[1] = float('nan')
    with pytest.raises(ValueError, match=r'freeze_groups: 1.0 has gates \[.*nan\]; nan means'):
        freeze_groups(model)
    assert all(isinstance(layer, DGConv) for layer in (model[0], model[1][0]))  # as it was
    with pytest.raises(ValueError, match='freeze_groups: the layer has gates'):
        freeze_groups(model[1][0])
