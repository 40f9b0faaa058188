"""Convolutions with shared bases: against the dense convolution of Eq. 1, and sharing of one parameter."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.layers import FilterBasis, SharedBasisConv, SharedConv2d
from tests.helpers.torch_versions import needs_inductor

GEOMETRIES = [
    {'kernel_size': 3, 'padding': 1},
    {'kernel_size': 1},
    {'kernel_size': 3, 'stride': 2, 'padding': 2, 'dilation': 2},
    {'kernel_size': (3, 5), 'stride': (2, 1), 'padding': (1, 2)},
]


def make_layer(num_unique: int = 2, bias: bool = True, kernel_size=3, **options) -> SharedBasisConv:
    """Six channels to eight, from four shared elements and some of its own; float64."""
    basis = FilterBasis(6, 4, kernel_size, dtype=torch.float64)
    return SharedBasisConv(6, 8, kernel_size, bias=bias, filters=basis, num_unique=num_unique, **options)


def dense_weight(layer: SharedBasisConv) -> Tensor:
    """W_t = sum over r of alpha_t^r W^r, element by element."""
    elements = list(layer.filters.weight) + ([] if layer.unique is None else list(layer.unique.weight))
    filters = []
    for alphas in layer.coefficients.weight[:, :, 0, 0]:
        combined = torch.zeros_like(elements[0])
        for alpha, element in zip(alphas, elements, strict=True):
            combined = combined + alpha * element
        filters.append(combined)
    return torch.stack(filters)


@pytest.mark.parametrize('num_unique', [0, 1, 3])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_equals_dense_convolution(geometry, bias, num_unique):
    layer = make_layer(num_unique, bias, **geometry)
    x = torch.rand(2, 6, 9, 8, dtype=torch.float64)
    options = {key: value for key, value in geometry.items() if key != 'kernel_size'}
    expected = F.conv2d(x, dense_weight(layer), layer.coefficients.bias, **options)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[0]), expected[0])
    torch.testing.assert_close(layer.combined_weight(), dense_weight(layer))


@pytest.mark.parametrize('channels_last', [False, True])
def test_small_maps_equal_dense_convolution(channels_last):
    """Up to three pixels use two convolutions, larger maps one with the joined basis."""
    layer = make_layer(2, padding=1)
    for height, width in ((1, 1), (1, 3), (1, 4), (7, 7)):
        x = torch.rand(2, 6, height, width, dtype=torch.float64)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        expected = F.conv2d(x, dense_weight(layer), layer.coefficients.bias, padding=1)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer(x[0]), expected[0])


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_shared_convolution_equals_conv2d(geometry):
    conv = nn.Conv2d(6, 8, bias=False, **geometry)
    layer = SharedConv2d(6, 8, filters=conv, **geometry)
    x = torch.rand(2, 6, 9, 8)
    torch.testing.assert_close(layer(x), conv(x))
    assert not list(layer.parameters())


def test_normalization_between_basis_and_coefficients():
    norm = nn.BatchNorm2d(6).double().eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    layer = make_layer(2, padding=1, norm=norm)
    x = torch.rand(2, 6, 9, 8, dtype=torch.float64)
    basis = torch.cat([layer.filters.weight, layer.unique.weight])
    expected = layer.coefficients(norm(F.conv2d(x, basis, padding=1)))
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(ValueError, match='combined_weight needs a layer without norm'):
        layer.combined_weight()


@pytest.mark.parametrize('padding', ['same', 'valid'])
def test_named_paddings(padding):
    layer = make_layer(1, padding=padding)
    x = torch.rand(2, 6, 5, 7, dtype=torch.float64)
    expected = F.conv2d(x, dense_weight(layer), layer.coefficients.bias, padding=padding)
    torch.testing.assert_close(layer(x), expected)
    assert f"padding='{padding}'" in repr(layer)


def test_lazy_normalization():
    layer = SharedBasisConv(6, 8, 3, filters=FilterBasis(6, 4, 3), norm=nn.LazyBatchNorm2d())
    layer(torch.rand(2, 6, 5, 5))
    assert layer.norm.num_features == 4


def test_gradients():
    layer = make_layer(1, stride=2, padding=1)
    x = torch.rand(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)
    shared = layer.filters.weight.detach().clone().requires_grad_()

    def run(x: Tensor, shared: Tensor, *values: Tensor) -> Tensor:
        holder = nn.ModuleDict({'layer': layer, 'basis': layer.filters})
        tensors = {f'layer.{name}': value for name, value in zip(names, values, strict=True)} | {'basis.weight': shared}
        return torch.func.functional_call(_Caller(holder), {f'holder.{name}': value for name, value in tensors.items()}, (x, ))

    assert not torch.equal(run(x, 2 * shared, *values), run(x, shared, *values))
    assert torch.autograd.gradcheck(run, (x, shared, *values))


class _Caller(nn.Module):
    def __init__(self, holder: nn.ModuleDict) -> None:
        super().__init__()
        self.holder = holder

    def forward(self, x: Tensor) -> Tensor:
        return self.holder['layer'](x)


@pytest.mark.parametrize(('channels', 'elements', 'kernel_size'), [(4, 3, 3), (4, 4, 1), (2, 6, 1)])
def test_deviation(channels, elements, kernel_size):
    basis = FilterBasis(channels, elements, kernel_size, dtype=torch.float64)
    expected = 0.
    for i, first in enumerate(basis.weight):
        for j, second in enumerate(basis.weight):
            expected += ((first * second).sum() - float(i == j))**2
    torch.testing.assert_close(basis.deviation(), expected)
    assert torch.autograd.gradcheck(lambda w: torch.func.functional_call(_Deviation(basis), {'basis.weight': w}, ()),
                                    basis.weight.detach().clone().requires_grad_())


class _Deviation(nn.Module):
    def __init__(self, basis: FilterBasis) -> None:
        super().__init__()
        self.basis = basis

    def forward(self) -> Tensor:
        return self.basis.deviation()


@pytest.mark.parametrize(('channels', 'elements', 'least'), [(4, 20, 0), (2, 30, 12)])
def test_minimum_deviation(channels, elements, least):
    """An orthonormal basis if its size allows one, else the best approximation."""
    basis = FilterBasis(channels, elements, 3)
    flat = nn.init.orthogonal_(torch.empty(elements, channels * 9))
    basis.weight.data.copy_(flat.view_as(basis.weight))
    assert basis.deviation().item() == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_deviation_of_a_low_precision_basis_is_float32(dtype):
    basis = FilterBasis(16, 16, 3, dtype=dtype)
    single = FilterBasis(16, 16, 3)
    single.weight.data.copy_(basis.weight)
    assert basis.deviation().dtype == torch.float32
    torch.testing.assert_close(basis.deviation(), single.deviation())


def make_network(**options) -> nn.ModuleDict:
    """Three layers with one basis, registered once."""
    basis = FilterBasis(6, 4, 3)
    layers = [SharedBasisConv(6, 6, 3, padding=1, filters=basis, num_unique=1, **options) for _ in range(3)]
    return nn.ModuleDict({'basis': basis, 'layers': nn.Sequential(*layers)})


def basis_is_shared(network: nn.ModuleDict) -> bool:
    return all(layer.filters is network['basis'] for layer in network['layers'])


def test_one_parameter_and_one_key():
    network = make_network()
    assert [name for name, _ in network.named_parameters()].count('basis.weight') == 1
    assert sum(p.numel() for p in network.parameters()) == 4 * 54 + 3 * (54 + 5 * 6 + 6)
    assert [key for key in network.state_dict() if 'basis' in key or 'filters' in key] == ['basis.weight']


def test_gradient_is_summed_over_layers():
    network = make_network()
    separate = copy.deepcopy(network['layers'])
    for layer, original in zip(separate, network['layers'], strict=True):
        layer.refer_to({'filters': copy.deepcopy(original.filters)}, 'filters')
    x = torch.rand(2, 6, 7, 7)
    network['layers'](x).square().sum().backward()
    separate(x).square().sum().backward()
    torch.testing.assert_close(network['basis'].weight.grad, sum(layer.filters.weight.grad for layer in separate))


def roundtrip(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, roundtrip])
def test_copies_share_their_own_basis(duplicate):
    network = make_network()
    other = duplicate(network)
    assert basis_is_shared(other)
    assert other['basis'] is not network['basis']
    x = torch.rand(1, 6, 7, 7)
    torch.testing.assert_close(other['layers'](x), network['layers'](x))
    nn.init.zeros_(other['basis'].weight)
    assert not torch.equal(other['layers'](x), network['layers'](x))


@pytest.mark.parametrize('assign', [False, True])
def test_load_state_dict(assign):
    network, other = make_network(), make_network()
    other.load_state_dict(network.state_dict(), assign=assign)
    assert basis_is_shared(other)
    x = torch.rand(1, 6, 7, 7)
    torch.testing.assert_close(other['layers'](x), network['layers'](x))


def test_conversion(device):
    network = make_network().to(device)
    expected = network['layers'](torch.ones(1, 6, 7, 7, device=device))
    out = network.double()['layers'](torch.ones(1, 6, 7, 7, dtype=torch.float64, device=device))
    assert basis_is_shared(network)
    torch.testing.assert_close(out.float(), expected, rtol=1e-4, atol=1e-5)


def test_channels_last(device):
    network = make_network(bias=False).to(device)
    x = torch.rand(2, 6, 7, 7, device=device)
    expected = network['layers'](x)
    out = network.to(memory_format=torch.channels_last)['layers'](x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_autocast(device):
    network = make_network().to(device)
    x = torch.rand(2, 6, 7, 7, device=device)
    expected = network['layers'](x)
    with torch.autocast(device.type, torch.bfloat16):
        out = network['layers'](x)
        assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.05)


@needs_inductor
@pytest.mark.slow
def test_compile(device):
    network = make_network().to(device)
    x = torch.rand(2, 6, 7, 7, device=device)
    expected = network['layers'](x)
    torch.testing.assert_close(torch.compile(network['layers'], fullgraph=True)(x), expected, rtol=1e-4, atol=1e-5)


BASIS = FilterBasis(6, 4, 3)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: SharedBasisConv(5, 8, 3, filters=BASIS), r'filters have 6 input channels and size \(3, 3\), but the layer has 5'),
    (lambda: SharedBasisConv(6, 8, 1, filters=BASIS), r'the layer has 6 and \(1, 1\)'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, num_unique=-1), 'num_unique=-1, expected 0 or a positive integer'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, num_unique='1'), "num_unique='1', expected 0 or a positive integer"),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, padding='bogus'), "padding='bogus', expected 'same', 'valid', or numbers"),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, padding='same', stride=2), r"padding='same' with stride=2, expected"),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, padding=-1), 'padding=-1, expected 0 or a positive integer, or two'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, stride=0), 'SharedBasisConv: stride=0, expected a positive integer, or two'),
    (lambda: SharedBasisConv(6, 8, '3', filters=BASIS), "SharedBasisConv: kernel_size='3', expected a positive integer, or two"),
    (lambda: SharedBasisConv(6, 8, 3, filters=None), 'filters is of type NoneType; use a FilterBasis, which'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS.weight), 'filters is of type Parameter; use a FilterBasis'),
    (lambda: SharedBasisConv(6, 8, 3, filters=nn.Conv2d(6, 4, 3)), 'filters is of type Conv2d; use a FilterBasis'),
    (lambda: SharedConv2d(6, 4, 3, filters=None), 'filters is of type NoneType; use a FilterBasis or another Conv2d'),
    (lambda: SharedConv2d(6, 4, 3, filters=nn.Conv2d(6, 4, 3, groups=2)), 'groups=1, but the filters have 2'),
    (lambda: SharedConv2d(6, 4, 3, filters=nn.Conv2d(6, 4, 3)), r'filters are Conv2d\(6, 4, .* neither bias nor padding_mode'),
    (lambda: SharedConv2d(6, 4, 3, padding=1, filters=nn.Conv2d(6, 4, 3, bias=False)),
     r'which the layer calls as is, but the layer has stride=\(1, 1\), padding=\(1, 1\), dilation=\(1, 1\)'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, norm='BN'), r"norm='BN' is not a module; .* nn.BatchNorm2d\(4\)"),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, num_unique=1, norm=nn.BatchNorm2d(4)), 'norm has 4 channels; it needs 5'),
    *((lambda size=size: FilterBasis(6, 4, size), 'FilterBasis: kernel_size=.* expected a positive integer, or two for height')
      for size in (0, (3, 3, 3), '3', 3.0, (3, '3'), True)),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, groups=2), 'groups=2, expected 1'),
    (lambda: SharedConv2d(6, 8, 3, filters=BASIS), 'out_channels=8, but there are 4 filters; .* use SharedBasisConv'),
    (lambda: SharedConv2d(6, 4, 3, filters=BASIS, bias=True), 'bias=True, expected False'),
    (lambda: FilterBasis(6, 0, 3), 'num_elements=0, expected a positive integer'),
    (lambda: SharedBasisConv(6, 8, 3, filters=BASIS, num_unique=1)(torch.rand(6)), r'expected input of shape .* got \(6,\)'),
    (lambda: SharedConv2d(6, 4, 3, filters=BASIS)(torch.rand(1, 5, 8, 8)), r'expected input of shape \(N, 6, H, W\)'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
