"""DenseNet and ResNeXt with shared bases for CIFAR, against the authors' structure written in torch.nn.functional."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.backbones import SharedDenseNetCIFAR, SharedResNetCIFAR, SharedResNeXtCIFAR
from mmtied.layers import FilterBasis, SharedConv2d
from mmtied.surgery.plain_layers import plain_layer


def randomize(model: nn.Module) -> nn.Module:
    """Give every weight and statistic random values, in float64 and evaluation mode."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.double().eval()


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, *(weights[f'{name}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias')))


def resnext(weights: dict[str, Tensor], x: Tensor, groups: int, shared_groups: int, unique_groups: int) -> Tensor:
    """ResNeXt-SsUu: shared and own group convolutions side by side, normalized and activated together."""
    x = F.relu(norm(weights, 'stem.bn', F.conv2d(x, weights['stem.conv.weight'], padding=1)))
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for index in range(blocks):
            name, stride = f'layer{stage}.{index}', 2 if stage > 1 and index == 0 else 1
            out = F.relu(norm(weights, f'{name}.entry.bn', F.conv2d(x, weights[f'{name}.entry.conv.weight'])))
            if index == 0:
                out = F.conv2d(out, weights[f'{name}.spatial.conv.weight'], stride=stride, padding=1, groups=groups)
            else:
                shared = F.conv2d(out, weights[f'layer{stage}.bases.middle.weight'], padding=1, groups=shared_groups)
                own = F.conv2d(out, weights[f'{name}.spatial.conv.unique.weight'], padding=1,
                               groups=unique_groups * 2**(stage - 1))
                out = torch.cat([shared, own], 1)
            out = F.relu(norm(weights, f'{name}.spatial.bn', out))
            out = norm(weights, f'{name}.exit.bn', F.conv2d(out, weights[f'{name}.exit.conv.weight']))
            if index == 0:
                x = norm(weights, f'{name}.shortcut.bn', F.conv2d(x, weights[f'{name}.shortcut.conv.weight'], stride=stride))
            x = F.relu(x + out)
    return x


def densenet(weights: dict[str, Tensor], x: Tensor, last: int) -> Tensor:
    """DenseNet-121-SsUu; `last` is the block whose basis the fourth uses."""
    x = F.conv2d(x, weights['stem.weight'], padding=1)
    for stage, layers in enumerate((6, 12, 24, 16), 1):
        basis = weights[f'layer{last if stage == 4 else stage}.bases.spatial.weight']
        for index in range(layers):
            name = f'layer{stage}.{index}'
            out = F.conv2d(F.relu(norm(weights, f'{name}.norm1', x)), weights[f'{name}.conv1.weight'])
            out = F.relu(norm(weights, f'{name}.norm2', out))
            out = torch.cat([F.conv2d(out, filters, padding=1) for filters in (basis, weights[f'{name}.conv2.unique.weight'])], 1)
            out = F.conv2d(norm(weights, f'{name}.conv2.norm', out), weights[f'{name}.conv2.coefficients.weight'])
            x = torch.cat([x, out], 1)
        if stage < 4:
            out = F.conv2d(norm(weights, f'transition{stage}.0', x), weights[f'transition{stage}.1.weight'])
            x = F.avg_pool2d(out, 2)
    return F.relu(norm(weights, 'norm', x))


def test_resnext_has_the_authors_structure():
    model = randomize(SharedResNeXtCIFAR(base_channels=16, groups=8, base_width=16, shared_elements=32, unique_elements=16))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x)[-1], resnext(model.state_dict(), x, groups=8, shared_groups=2, unique_groups=1))
    assert [key for key in model.state_dict() if '.bases.' in key] == [f'layer{i}.bases.middle.weight' for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(('last_basis', 'last'), [('own', 4), ('third', 3)])
def test_densenet_has_the_authors_structure(last_basis, last):
    model = randomize(SharedDenseNetCIFAR(growth_rate=2, shared_elements=4, unique_elements=2, last_basis=last_basis))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = densenet(model.state_dict(), x, last)
    torch.testing.assert_close(model(x)[0], expected)
    torch.testing.assert_close(copy.deepcopy(model)(x)[0], expected)
    assert len([key for key in model.state_dict() if '.bases.' in key]) == last


@pytest.mark.parametrize(('make', 'channels', 'count'), [
    (lambda: SharedResNeXtCIFAR(num_bases=0), 2048, 23_177_124), (lambda: SharedResNeXtCIFAR(), 2048, 19_333_380),
    (lambda: SharedDenseNetCIFAR(num_bases=0), 1024, 7_048_548), (lambda: SharedDenseNetCIFAR(), 1024, 5_084_504)])
def test_sizes_of_table_2(make, channels, count):
    """The paper prints 23.17M (truncated), 19.3M, 7.05M and 5.08M."""
    with torch.device('meta'):
        model = make()
    assert sum(p.numel() for p in model.parameters()) + 100 * channels + 100 == count


def test_network_without_basis_norm():
    """Figure 3 a and c: basis and coefficients are one convolution then."""
    model = randomize(SharedResNetCIFAR(20, shared_elements=8, basis_norm=False))
    layer = model.layer2[1].entry.conv
    x = torch.randn(1, 32, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.combined_weight(), padding=1))
    assert not [key for key in model.state_dict() if '.conv.norm.' in key]


def test_grouped_filters():
    basis = FilterBasis(8, 4, 3, groups=4)
    layer = SharedConv2d(8, 6, 3, padding=1, groups=4, filters=basis, num_unique=2, unique_groups=2)
    x = torch.randn(2, 8, 5, 5)
    shared, own = (F.conv2d(x, conv.weight, padding=1, groups=conv.groups) for conv in (basis, layer.unique))
    assert (basis.groups, layer.unique.groups) == (4, 2)
    torch.testing.assert_close(layer(x), torch.cat([shared, own], 1))
    torch.testing.assert_close(plain_layer(layer)(x), torch.cat([shared, own], 1))  # the replacement by deploy
    layer = SharedConv2d(8, 6, 3, padding=1, filters=FilterBasis(8, 4, 3), num_unique=2)
    torch.testing.assert_close(plain_layer(layer)(x), layer(x))


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: SharedResNeXtCIFAR(shared_elements=6), 'shared_elements=6 is not divisible by base_width=4'),
    (lambda: SharedResNeXtCIFAR(num_bases=2), 'num_bases=2, expected one of 0, 1'),
    (lambda: SharedDenseNetCIFAR(120), 'depth=120, expected one of 121, 169, 201'),
    (lambda: SharedDenseNetCIFAR(last_basis='first'), "last_basis='first', expected one of 'own', 'third'"),
    (lambda: SharedResNetCIFAR(50, basis_norm=False), 'basis_norm=False with depth 50; it is for basic blocks'),
    (lambda: FilterBasis(8, 6, 3, groups=4), 'num_elements=6 is not divisible by groups=4'),
    (lambda: SharedConv2d(8, 5, 3, filters=FilterBasis(8, 4, 3), num_unique=2), 'out_channels=5, but there are 6 filters'),
    (lambda: SharedConv2d(8, 6, 3, filters=nn.Conv2d(8, 4, 3, bias=False), num_unique=2), 'with filters of type Conv2d'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
