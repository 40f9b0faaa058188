"""IGC against the matrices of Eq. 1 to 6, written out entry by entry, and against the special cases of Section 4."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule, build_conv_layer
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN
from torch import Tensor, nn

import mmtied  # noqa: F401
from mmtied.layers import IGC, SumFusion
from tests.helpers.torch_versions import needs_inductor

SETTINGS = [
    {'kernel_size': 1},
    {'kernel_size': 3, 'padding': 1},
    {'kernel_size': 3, 'stride': 2, 'padding': 1},
    {'kernel_size': (3, 1), 'stride': (2, 1), 'padding': (1, 0)},
    {'kernel_size': 3, 'padding': 2, 'dilation': 2},
    {'kernel_size': 3, 'padding': 'same'},
    {'kernel_size': 3, 'padding': 1, 'padding_mode': 'reflect'},
]
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
#: The last has too many zeros in its permuted weight: channels_last is shuffled there.
PARTITIONS = [(1, 24), (2, 12), (3, 8), (12, 2), (24, 1), (6, 24)]


def permutation(num_primary: int, num_secondary: int) -> Tensor:
    """P of Eq. 2: column (m, l) of P has its 1 in row (l, m), so that P' y sorts y by secondary partition."""
    matrix = torch.zeros(num_primary * num_secondary, num_primary * num_secondary, dtype=torch.float64)
    for i in range(num_primary):
        for m in range(num_secondary):
            matrix[i * num_secondary + m, m * num_primary + i] = 1
    return matrix


def dense_kernel(layer: IGC) -> Tensor:
    """P W_s P' W_p with both block-diagonal matrices filled block by block; columns of W_p are (channel, kernel row, column)."""
    primary, secondary = layer.primary.weight.detach(), layer.secondary.weight.detach()
    ins = layer.in_channels // layer.num_primary
    area = primary[0, 0].numel()
    w_p = torch.zeros(layer.out_channels, layer.in_channels * area, dtype=torch.float64)
    for i in range(layer.num_primary):
        rows = slice(i * layer.num_secondary, (i + 1) * layer.num_secondary)
        w_p[rows, i * ins * area:(i + 1) * ins * area] = primary[rows].flatten(1)
    w_s = torch.zeros(layer.out_channels, layer.out_channels, dtype=torch.float64)
    for m in range(layer.num_secondary):
        rows = slice(m * layer.num_primary, (m + 1) * layer.num_primary)
        w_s[rows, rows] = secondary[rows].flatten(1)
    p = permutation(layer.num_primary, layer.num_secondary)
    return (p @ w_s @ p.T @ w_p).view(layer.out_channels, layer.in_channels, *layer.kernel_size)


def dense_twin(layer: IGC) -> nn.Conv2d:
    twin = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, 1,
                     layer.secondary.bias is not None, layer.padding_mode, dtype=torch.float64)
    twin.weight.data.copy_(dense_kernel(layer))
    if twin.bias is not None:
        twin.bias.data.copy_(permutation(layer.num_primary, layer.num_secondary) @ layer.secondary.bias.detach())
    return twin


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('setting', SETTINGS, ids=str)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('partitions', PARTITIONS, ids=str)
def test_equals_the_composed_kernel(partitions, bias, setting, memory_format):
    num_primary, num_secondary = partitions
    layer = IGC(24, num_primary * num_secondary, num_primary=num_primary, bias=bias, dtype=torch.float64, **setting)
    assert layer.num_secondary == num_secondary
    x = torch.randn(2, 24, 7, 8, dtype=torch.float64).to(memory_format=FORMATS[memory_format])
    torch.testing.assert_close(layer(x), dense_twin(layer)(x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(layer.composed_weight(), dense_kernel(layer))
    if bias:
        torch.testing.assert_close(layer.composed_bias(), dense_twin(layer).bias)
    else:
        assert layer.composed_bias() is None


@settings(deadline=None, max_examples=60)
@given(num_primary=st.integers(1, 5), num_secondary=st.integers(1, 5), ins=st.integers(1, 4), kernel=st.integers(1, 4),
       stride=st.integers(1, 3), padding=st.integers(0, 3), batch=st.integers(0, 3), height=st.integers(5, 9),
       channels_last=st.booleans())
def test_equals_the_composed_kernel_for_any_setting(num_primary, num_secondary, ins, kernel, stride, padding, batch, height,
                                                   channels_last):
    layer = IGC(ins * num_primary, num_primary * num_secondary, kernel, stride, padding, num_primary=num_primary,
                dtype=torch.float64)
    x = torch.randn(batch, layer.in_channels, height, 8, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), dense_twin(layer)(x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize('memory_format', FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize('bias', [False, True])
def test_variants_of_section_4(bias, memory_format):
    """Spatial secondary filters, a dense secondary convolution and an activation, by plain convolutions and P of Eq. 2."""
    x = torch.rand(2, 12, 7, 6, dtype=torch.float64).to(memory_format=memory_format)
    p = permutation(6, 4)
    for variant in ({'spatial': 'secondary'}, {'dense_secondary': True}, {'activation': True},
                     {'spatial': 'secondary', 'dense_secondary': True}):
        layer = IGC(12, 24, 3, 2, 1, bias=bias, num_primary=6, **variant).double()
        where = {'stride': 2, 'padding': 1}
        first, second = ({}, where) if 'spatial' in variant else (where, {})
        expected = F.conv2d(x, layer.primary.weight, **first, groups=6)
        if 'activation' in variant:
            expected = expected.relu()
        if 'dense_secondary' in variant:
            expected = F.conv2d(expected, layer.secondary.weight, layer.secondary.bias, **second)
        else:
            sorted_by_secondary = torch.einsum('nchw,cd->ndhw', expected, p)
            expected = F.conv2d(sorted_by_secondary, layer.secondary.weight, layer.secondary.bias, **second, groups=4)
            expected = torch.einsum('nchw,dc->ndhw', expected, p)
        torch.testing.assert_close(layer(x), expected)
        assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (2, 2), (1, 1))
        if 'activation' in variant:
            with pytest.raises(ValueError, match='IGC: activation=True'):
                layer.composed_weight()
        else:
            composed = F.conv2d(x, layer.composed_weight(), layer.composed_bias(), 2, 1)
            torch.testing.assert_close(composed, expected)


def test_every_output_sees_every_input_through_one_path():
    """With weights of 1 the composed kernel is all ones: exactly one path joins each input with each output."""
    for num_primary, num_secondary in PARTITIONS:
        layer = IGC(24, num_primary * num_secondary, 1, num_primary=num_primary, bias=False)
        for conv in (layer.primary, layer.secondary):
            nn.init.ones_(conv.weight)
        assert torch.equal(layer.composed_weight(), torch.ones(layer.out_channels, 24, 1, 1))


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('partitions', [(2, 2), (2, 3), (43, 4)], ids=str)
def test_gradients_equal_the_composed_kernel(partitions, memory_format):
    """Apply the chain rule through `composed_weight`, whose value is tested above."""
    num_primary, num_secondary = partitions
    layer = IGC(2 * num_primary, num_primary * num_secondary, 3, padding=1, num_primary=num_primary, dtype=torch.float64)
    other = copy.deepcopy(layer)
    x = torch.randn(2, layer.in_channels, 5, 6, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(2, layer.out_channels, 5, 6, dtype=torch.float64)
    (layer(x) * weights).sum().backward()
    (F.conv2d(y, other.composed_weight(), other.composed_bias(), padding=1) * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for ours, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(('partitions', 'memory_format'), [((2, 2), 'contiguous'), ((2, 2), 'channels_last'),
                                                           ((2, 66), 'channels_last')], ids=str)
def test_gradcheck(partitions, memory_format):
    num_primary, num_secondary = partitions
    layer = IGC(2, num_primary * num_secondary, 3, padding=1, num_primary=num_primary, dtype=torch.float64)
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()
    names = ['primary.weight', 'secondary.weight', 'secondary.bias']

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x, ))

    inputs = (x, *(layer.get_parameter(name).detach().requires_grad_() for name in names))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=num_secondary > 2)  # along random directions
    if num_secondary == 2:
        assert torch.autograd.gradgradcheck(run, inputs)


# Section 4.


def test_regular_convolution_is_a_special_case():
    """Eq. 17 to 20: with the input twice and L = 4, the secondary weights fixed, the output is the convolution's, twice."""
    regular = nn.Conv2d(6, 6, 3, padding=1, bias=False, dtype=torch.float64)
    layer = IGC(12, 12, 3, padding=1, bias=False, num_primary=4, dtype=torch.float64)
    blocks = [regular.weight[rows, columns] for rows in (slice(0, 3), slice(3, 6)) for columns in (slice(0, 3), slice(3, 6))]
    layer.primary.weight.data.copy_(torch.cat(blocks))  # diag(W_11, W_12, W_21, W_22)
    fixed = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    layer.secondary.weight.data.copy_(fixed.repeat(3, 1)[:, :, None, None])
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected = regular(x)
    torch.testing.assert_close(layer(torch.cat([x, x], dim=1)), torch.cat([expected, expected], dim=1))


def test_one_primary_partition():
    layer = IGC(6, 8, 3, padding=1, bias=False, num_primary=1, dtype=torch.float64)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    regular = F.conv2d(x, layer.primary.weight, padding=1)
    torch.testing.assert_close(layer(x), regular * layer.secondary.weight.view(1, 8, 1, 1))


@pytest.mark.parametrize('bias', [True, False])
def test_summation_fusion_is_a_special_case(bias):
    """Eq. 21 and 22: every partition receives the same input, all secondary weights are 1, and so all outputs are the sum."""
    fusion = SumFusion(5, 3, 3, stride=2, padding=1, bias=bias, num_branches=4, dtype=torch.float64)
    layer = IGC(20, 12, 3, stride=2, padding=1, bias=False, num_primary=4, dtype=torch.float64)
    layer.primary.weight.data.copy_(fusion.weight)
    nn.init.ones_(layer.secondary.weight)
    x = torch.randn(2, 5, 7, 7, dtype=torch.float64)
    branches = [F.conv2d(x, weight, stride=2, padding=1) for weight in fusion.weight.unflatten(0, (4, 3))]
    torch.testing.assert_close(layer(x.repeat(1, 4, 1, 1)), sum(branches).repeat(1, 4, 1, 1))
    if bias:
        nn.init.uniform_(fusion.bias)
    torch.testing.assert_close(fusion(x), sum(branches) + (fusion.bias.view(3, 1, 1) if bias else 0))


def test_one_secondary_partition_is_a_separable_convolution():
    """M = 1: a convolution of each channel alone, then a dense 1x1 convolution."""
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, dtype=torch.float64)
    pointwise = nn.Conv2d(8, 8, 1, dtype=torch.float64)
    layer = IGC(8, 8, 3, padding=1, num_secondary=1, dtype=torch.float64)
    layer.load_state_dict({'primary.weight': depthwise.weight, 'secondary.weight': pointwise.weight,
                           'secondary.bias': pointwise.bias})
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), pointwise(depthwise(x)))


# As a layer.


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('partitions', [(4, 8), (16, 16)], ids=str)
def test_memory_format_is_kept(partitions, memory_format):
    layer = IGC(16, partitions[0] * partitions[1], 3, padding=1, num_primary=partitions[0])
    x = torch.randn(2, 16, 9, 9).to(memory_format=FORMATS[memory_format])
    assert layer(x).is_contiguous(memory_format=FORMATS[memory_format])


def test_any_strides():
    layer = IGC(8, 8, 3, padding=1, num_primary=4)
    part = torch.randn(2, 24, 6, 7)[:, 8:16].transpose(2, 3)
    torch.testing.assert_close(layer(part), layer(part.contiguous()))


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('partitions', [(4, 4), (16, 16), (8, 13)], ids=str)  # the last is shuffled in bfloat16 alone
def test_autocast(partitions, memory_format, device):
    layer = IGC(16, partitions[0] * partitions[1], 3, padding=1, num_primary=partitions[0], device=device)
    x = torch.randn(2, 16, 8, 8, device=device).to(memory_format=FORMATS[memory_format]).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@needs_inductor
@pytest.mark.slow
@pytest.mark.parametrize('memory_format', FORMATS)
def test_compiles_without_graph_breaks(memory_format):
    torch.compiler.reset()
    layer = IGC(16, 16, 3, padding=1, num_primary=4)
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.randn(2, 16, 6, 6).to(memory_format=FORMATS[memory_format])
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).square().sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for ours, theirs in zip(gradients, layer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('make', [lambda: IGC(8, 16, 3, padding=1, num_primary=4),
                                  lambda: SumFusion(8, 16, 3, padding=1, num_branches=2)])
def test_empty_batch_single_image_and_copies(make):
    layer = make()
    empty = torch.zeros(0, 8, 5, 5, requires_grad=True)
    out = layer(empty)
    out.sum().backward()
    assert out.shape == (0, 16, 5, 5)
    assert all(not p.grad.any() for p in layer.parameters())
    image = torch.randn(8, 5, 5)
    torch.testing.assert_close(layer(image), layer(image[None])[0])
    for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(duplicate(image), layer(image))
    other = make()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(image), layer(image))


def test_default_initialization_uses_fan_in():
    """PyTorch draws uniformly within 1 / sqrt(fan_in): M * 9 inputs for a primary output, L for a secondary one."""
    layer = IGC(32, 32, 3, num_primary=4)
    for weight, fan_in in ((layer.primary.weight, 8 * 9), (layer.secondary.weight, 4)):
        assert 0.9 * fan_in**-0.5 < weight.abs().max() <= fan_in**-0.5
    assert SumFusion(8, 8, 3).weight.abs().max() <= (8 * 9)**-0.5


# Where mmcv and mmdet build convolutions.


def test_partitions_follow_from_the_channels():
    """Table 2: L24M2 keeps L as the width doubles, Table 6's L100M2 keeps M."""
    assert [IGC(c, c, 3, num_primary=24).partitions for c in (48, 96, 192)] == [(24, 2), (24, 4), (24, 8)]
    assert [IGC(c, c, 3, num_secondary=2).partitions for c in (200, 400)] == [(100, 2), (200, 2)]
    assert IGC(48, 96, 3, num_primary=24).primary.weight.shape == (96, 2, 3, 3)  # the first block of a stage: M to 2M
    assert IGC(3, 64, 7, num_secondary=2, indivisible='leanest').partitions == (1, 64)
    assert IGC(8, 8, 3, num_primary=4, num_secondary=2).partitions == (4, 2)


def test_conv_module():
    layer = build_conv_layer({'type': 'IGC', 'num_primary': 4}, 16, 32, 3, padding=1, bias=False)
    assert isinstance(layer, IGC)
    assert layer.partitions == (4, 8)
    assert isinstance(build_conv_layer({'type': 'mmtied.SumFusion'}, 16, 32, 3), SumFusion)
    module = ConvModule(16, 32, 3, stride=2, padding=1, conv_cfg={'type': 'IGC'}, norm_cfg={'type': 'BN'})
    assert module(torch.randn(2, 16, 6, 6)).shape == (2, 32, 3, 3)
    assert (module.in_channels, module.out_channels, module.kernel_size, module.stride) == (16, 32, (3, 3), (2, 2))


def test_fuse_conv_bn_keeps_outputs():
    module = ConvModule(16, 32, 3, padding=1, conv_cfg={'type': 'IGC'}, norm_cfg={'type': 'BN'}).eval()
    nn.init.uniform_(module.bn.running_var, 0.5, 2)
    nn.init.uniform_(module.bn.running_mean)
    x = torch.randn(2, 16, 6, 6)
    expected = module(x)
    torch.testing.assert_close(fuse_conv_bn(copy.deepcopy(module))(x), expected)


def test_replaces_convolutions_of_neck_and_backbone():
    neck = FPN([64, 128], 32, num_outs=3, conv_cfg={'type': 'IGC'})
    neck.init_weights()
    assert all(isinstance(conv.conv, IGC) for conv in [*neck.lateral_convs, *neck.fpn_convs])
    levels = neck((torch.randn(1, 64, 8, 8), torch.randn(1, 128, 4, 4)))
    assert [tuple(level.shape) for level in levels] == [(1, 32, 8, 8), (1, 32, 4, 4), (1, 32, 2, 2)]
    for cfg in ({'type': 'IGC'}, {'type': 'IGC', 'num_primary': 16, 'indivisible': 'leanest'}):
        levels = ResNet(18, conv_cfg=cfg)(torch.randn(2, 3, 64, 64))
        assert [level.shape[1] for level in levels] == [64, 128, 256, 512]


def test_imports_without_openmmlab(run_without_openmmlab):
    out = run_without_openmmlab('import torch; from mmtied.layers import IGC; print(IGC(4, 4, 1)(torch.zeros(1, 4, 2, 2)).shape)')
    assert out.strip() == 'torch.Size([1, 4, 2, 2])'


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: IGC(66, 64, 3, num_primary=4),
     'IGC: in_channels=66 is not divisible by 4 primary partitions; use one of 1, 2, 3, 6, 11'),
    (lambda: IGC(64, 66, 3, num_primary=4), 'IGC: out_channels=66 is not divisible by num_primary=4; use one of 1, 2, 3'),
    (lambda: IGC(3, 64, 3, num_secondary=2), r'IGC: in_channels=3 is not divisible by 32 primary partitions \(out_channels=64 by '
                                             r'num_secondary=2\); use one of 1, 3. Without num_primary'),
    (lambda: IGC(8, 8, 3, num_primary=4, num_secondary=4),
     'IGC: num_primary=4 times num_secondary=4 is 16, not out_channels=8'),
    (lambda: IGC(8, 8, 3, num_primary=0), 'IGC: num_primary=0, expected a positive integer'),
    (lambda: IGC(8, 8, 3, num_secondary=2.0), 'IGC: num_secondary=2.0, expected a positive integer'),
    (lambda: IGC(0, 8, 3), 'IGC: in_channels=0, expected a positive integer'),
    *((lambda size=size: IGC(64, 64, size), 'IGC: kernel_size=.* expected a positive integer, or two for height and width')
      for size in (0, '3', 3.0, (3, 3, 3), (3, ))),
    (lambda: IGC(3, 64, 3, num_primary=2), "chooses partitions that fit; with indivisible='leanest' only layers like this one"),
    (lambda: SumFusion(8, 8, 0), 'SumFusion: kernel_size=0, expected a positive integer'),
    (lambda: SumFusion(8, 8, 3)(torch.zeros(1, 4, 5, 5)), r'SumFusion: expected input of shape \(N, 8, H, W\).*got \(1, 4'),
    (lambda: IGC(8, 8, 3, groups=2), 'IGC: groups=2, expected 1; num_primary sets the number of groups'),
    (lambda: IGC(8, 8, 3, indivisible='untie'), "IGC: indivisible='untie', expected 'raise' or 'leanest'"),
    (lambda: IGC(8, 8, 3, spatial='both'), "IGC: spatial='both', expected 'primary' or 'secondary'"),
    (lambda: IGC(8, 8, 1)(torch.zeros(1, 16, 4, 4)), r'IGC: expected input of shape \(N, 8, H, W\).*got \(1, 16, 4, 4\)'),
    (lambda: SumFusion(8, 8, 3, num_branches=0), 'SumFusion: num_branches=0, expected a positive integer'),
    (lambda: SumFusion(8, 8, 3, groups=2), 'SumFusion: groups=2, expected 1'),
])
def test_user_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
