"""Convolutions that learn groups: against dense convolutions masked by Kronecker products, for every pattern of gates."""

import copy
import io
import itertools
from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.layers import DGConv
from mmtied.related.groupable.layers import GroupMatrix
from mmtied.related.groupable.training import connections
from tests.helpers.torch_versions import needs_inductor

PATTERNS = {size: list(itertools.product((0, 1), repeat=size.bit_length() - 1)) for size in (8, 16)}
EVERY = [(size, gates) for size, patterns in PATTERNS.items() for gates in patterns]


def set_gates(layer: DGConv, gates: tuple[int, ...], size: float = 1.) -> DGConv:
    """Open the gates that are 1 and close the others."""
    layer.gates.data.copy_(torch.tensor([size if gate else -size for gate in gates]))
    return layer


def kronecker(gates: tuple[float, ...] | Tensor, last: Tensor | None = None) -> Tensor:
    """U of Eq. 4, 5 and 7, written out."""
    factors = [gate * torch.ones(2, 2, dtype=torch.float64) + (1 - gate) * torch.eye(2, dtype=torch.float64) for gate in gates]
    return reduce(torch.kron, factors if last is None else [*factors, last])


@pytest.mark.parametrize(('size', 'gates'), EVERY, ids=str)
def test_equals_masked_dense_convolution(size, gates):
    layer = set_gates(DGConv(size, size, 3, padding=1, dtype=torch.float64), gates)
    mask = kronecker(gates)
    assert torch.equal(layer.relationship(), mask)
    assert layer.group_number == size // 2**sum(gates)
    x = torch.rand(2, size, 5, 6, dtype=torch.float64)
    expected = F.conv2d(x, layer.weight * mask[:, :, None, None], layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[0]), expected[0])


def test_patterns_of_figure_3():
    """(a) dense, (b) depthwise, (c) I 1 I, (d) adjacent groups, (e) 1 1 I."""
    expected = {
        (1, 1, 1): [[0, 1, 2, 3, 4, 5, 6, 7]], (0, 0, 0): [[channel] for channel in range(8)],
        (0, 1, 0): [[0, 2], [1, 3], [4, 6], [5, 7]], (0, 1, 1): [[0, 1, 2, 3], [4, 5, 6, 7]],
        (1, 1, 0): [[0, 2, 4, 6], [1, 3, 5, 7]],
    }
    for gates, groups in expected.items():
        mask = torch.zeros(8, 8)
        for group in groups:
            for i, j in itertools.product(group, group):
                mask[i, j] = 1
        layer = set_gates(DGConv(8, 8, 1), gates)
        assert torch.equal(layer.relationship(), mask)
        assert layer.group_number == len(groups)


@pytest.mark.parametrize('geometry', [
    {'kernel_size': 1}, {'kernel_size': 3, 'stride': 2, 'padding': 2, 'dilation': 2},
    {'kernel_size': (3, 5), 'stride': (2, 1), 'padding': (1, 2)}, {'kernel_size': 3, 'padding': 1, 'padding_mode': 'reflect'},
    {'kernel_size': 3, 'padding': 'same'},
])
def test_geometry(geometry):
    layer = set_gates(DGConv(8, 8, bias=False, **geometry), (1, 0, 1))
    plain = nn.Conv2d(8, 8, bias=False, **geometry)
    plain.weight.data.copy_(layer.weight * kronecker((1, 0, 1))[:, :, None, None])
    x = torch.rand(2, 8, 9, 8)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize(('inputs', 'outputs', 'gates'), [
    (4, 8, (0, 1)), (8, 4, (1, 0)), (12, 8, (0, 0)), (6, 10, (0, )), (24, 24, (1, 0, 0)), (2, 64, (0, ))])
def test_different_widths(inputs, outputs, gates):
    """A last factor of ones, U_(K+1), covers the remaining factors of both counts."""
    layer = set_gates(DGConv(inputs, outputs, 3, dtype=torch.float64), gates)
    size = 2**len(gates)
    mask = kronecker(gates, torch.ones(outputs // size, inputs // size, dtype=torch.float64))
    assert torch.equal(layer.relationship(), mask)
    assert layer.group_number == 2**gates.count(0)
    x = torch.rand(2, inputs, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight * mask[:, :, None, None], layer.bias))


def test_ordinary_convolution_without_common_factor():
    layer = DGConv(3, 64, 3)
    assert layer.gates is None
    assert (layer.group_number, layer.open_gates) == (1, [])
    x = torch.rand(1, 3, 5, 5)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias))
    assert layer.relationship().min() == 1
    assert set(layer.state_dict()) == {'weight', 'bias'}


@pytest.mark.parametrize(('size', 'gates'), EVERY, ids=str)
def test_gradient_of_the_gates(size, gates):
    """Eq. 7 is linear in each gate, so dL/dg_k = L(g_k = 1) - L(g_k = 0), which passes the sign unchanged."""
    layer = set_gates(DGConv(size, size, 1, bias=False, dtype=torch.float64), gates, size=1e-8)
    x, target = torch.rand(2, 1, size, 3, 3, dtype=torch.float64)

    def loss(gates: tuple[float, ...]) -> Tensor:
        weight = layer.weight * kronecker(gates)[:, :, None, None]
        return (F.conv2d(x, weight) * target).sum()

    (layer(x) * target).sum().backward()
    expected = []
    for k in range(len(gates)):
        opened, closed = [*gates[:k], 1, *gates[k + 1:]], [*gates[:k], 0, *gates[k + 1:]]
        expected.append(loss(opened) - loss(closed))
    torch.testing.assert_close(layer.gates.grad, torch.stack(expected))


@pytest.mark.parametrize('gates', PATTERNS[8])
def test_matrix_gradient_equals_kronecker_product(gates):
    """At binary gates: autograd through Eq. 7, for a random gradient of U."""
    binary = torch.tensor(gates, dtype=torch.float64, requires_grad=True)
    gradient = torch.rand(8, 8, dtype=torch.float64)
    kronecker(binary).backward(gradient)
    real = torch.tensor(gates, dtype=torch.float64).mul(2).sub(1).requires_grad_()
    GroupMatrix.apply(real).backward(gradient)
    torch.testing.assert_close(real.grad, binary.grad)


@pytest.mark.parametrize(('inputs', 'outputs', 'gates'), [(8, 8, (1, 0, 1)), (4, 8, (0, 1)), (6, 4, (0, )), (8, 8, (0, 0, 0))])
def test_gradients_of_input_weight_and_bias(inputs, outputs, gates):
    layer = set_gates(DGConv(inputs, outputs, 3, padding=1, dtype=torch.float64), gates)
    x = torch.rand(1, inputs, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {'weight': weight, 'bias': bias}, (x, ))

    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    assert torch.autograd.gradcheck(run, (x, weight, bias))


def test_training_opens_and_closes_gates():
    """Gradient descent on the gates alone fits a target that needs exactly one open gate."""
    torch.manual_seed(0)
    target = set_gates(DGConv(8, 8, 1, bias=False), (0, 1, 0))
    layer = copy.deepcopy(target)
    set_gates(layer, (1, 0, 0), size=1e-8)
    optimizer = torch.optim.SGD([layer.gates], lr=0.02)
    for _ in range(60):
        x = torch.randn(4, 8, 4, 4)
        loss = (layer(x) - target(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.open_gates == [False, True, False]
    assert loss == 0


def test_gates_start_small_and_at_random():
    layer = DGConv(1024, 1024, 1)
    assert layer.gates.shape == (10, )
    assert torch.equal(layer.gates.abs(), torch.full((10, ), 1e-8))
    signs = {tuple(DGConv(16, 16, 1).open_gates) for _ in range(30)}
    assert len(signs) > 5
    binary = layer.open_gates
    assert layer.bfloat16().open_gates == binary


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_groups_survive_a_change_of_type(dtype):
    """In float16 a gate of -1e-8 becomes -0."""
    layer = DGConv(1024, 1024, 1)
    groups, relationship = layer.group_number, layer.relationship()
    layer.to(dtype)
    assert layer.group_number == groups > 1
    assert torch.equal(layer.relationship().float(), relationship)
    assert connections([layer]).item() == relationship.sum()
    layer.float()
    assert layer.group_number == groups


def test_zero_gate_is_open():
    layer = DGConv(2, 2, 1)
    for value in (0., torch.inf, 1e-40):
        layer.gates.data.fill_(value)
        assert layer.open_gates == [True]
    assert layer.relationship().min() == 1


def test_frozen_gates():
    layer = set_gates(DGConv(8, 8, 1), (0, 1, 1))
    layer.gates.requires_grad_(False)
    x = torch.rand(1, 8, 4, 4)
    layer(x).sum().backward()
    assert layer.gates.grad is None
    assert torch.equal(layer.weight.grad == 0, (kronecker((0, 1, 1)) == 0)[:, :, None, None])


def roundtrip(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, roundtrip])
def test_copies(duplicate):
    layer = set_gates(DGConv(8, 8, 3), (0, 1, 1))
    other = duplicate(layer)
    x = torch.rand(1, 8, 7, 7)
    torch.testing.assert_close(other(x), layer(x))
    set_gates(other, (1, 1, 1))
    assert layer.group_number == 2


def test_load_state_dict():
    layer, other = set_gates(DGConv(8, 8, 3), (0, 1, 0)), DGConv(8, 8, 3)
    other.load_state_dict(layer.state_dict())
    assert set(layer.state_dict()) == {'weight', 'bias', 'gates'}
    x = torch.rand(1, 8, 7, 7)
    torch.testing.assert_close(other(x), layer(x))


def test_channels_last(device):
    layer = set_gates(DGConv(8, 16, 3, padding=1).to(device), (0, 1, 1))
    x = torch.rand(2, 8, 7, 7, device=device)
    expected = layer(x)
    out = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_autocast(device):
    layer = set_gates(DGConv(8, 8, 3, padding=1).to(device), (0, 1, 1))
    x = torch.rand(2, 8, 7, 7, device=device)
    expected = layer(x)
    with torch.autocast(device.type, torch.bfloat16):
        out = layer(x)
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.05)
    assert layer.gates.grad.dtype == torch.float32


@needs_inductor
@pytest.mark.slow
def test_compile(device):
    layer = set_gates(DGConv(8, 8, 3, padding=1).to(device), (0, 1, 1))
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.rand(2, 8, 7, 7, device=device)
    for gates in ((0, 1, 1), (1, 0, 0)):  # the graph computes the mask instead of storing it
        set_gates(layer, gates)
        gradients = []
        for run in (layer, compiled):
            layer.zero_grad()
            out = run(x)
            out.square().sum().backward()
            gradients.append((out, layer.gates.grad, layer.weight.grad))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: DGConv(8, 8, 3, groups=4), 'groups=4, expected 1; the layer learns its groups'),
    (lambda: DGConv(0, 8, 3), 'DGConv: in_channels=0, expected a positive integer'),
    (lambda: DGConv('8', 8, 3), "DGConv: in_channels='8', expected a positive integer"),
    (lambda: DGConv(8, 8, 0), 'DGConv: kernel_size=0, expected a positive integer, or two'),
    (lambda: DGConv(8, '8', 3), "DGConv: out_channels='8', expected a positive integer"),
    (lambda: DGConv(8, 8, 3)(torch.rand(1, 4, 5, 5)), r'expected input of shape \(N, 8, H, W\) or \(8, H, W\), got'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('name', ['DGConv', 'mmtied.DGConv'])
def test_conv_cfg(name):
    cnn = pytest.importorskip('mmcv.cnn')
    import mmtied  # noqa: F401
    module = cnn.ConvModule(16, 32, 3, padding=1, conv_cfg={'type': name}, norm_cfg={'type': 'BN'})
    assert isinstance(module.conv, DGConv)
    assert module(torch.rand(2, 16, 4, 4)).shape == (2, 32, 4, 4)


def test_replaces_every_convolution_of_mmdet_resnet():
    """The first layer has no gates, since the image has three channels."""
    backbones = pytest.importorskip('mmdet.models.backbones')
    import mmtied  # noqa: F401
    model = backbones.ResNet(18, conv_cfg={'type': 'DGConv'})
    model.init_weights()
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(isinstance(layer, DGConv) for layer in layers)
    assert [layer.gates is None for layer in layers] == [True, *[False] * (len(layers) - 1)]
    sum(level.mean() for level in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in model.parameters())
