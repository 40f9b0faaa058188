"""Filter similarity: guided backpropagation against a manual one, cosines against NumPy, and choice of layers."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mmtied.analysis.filter_similarity import (
    Layer,
    cosine_matrix,
    count_channels,
    find_layers,
    guided_backprop,
    guided_patterns,
    guided_similarity,
    layers_at,
    pairs_of,
    spatial_layers,
    weight_similarities,
)
from mmtied.analysis.similarity_figures import (
    LayerSimilarity,
    check_counts,
    measure_layers,
    plot_histograms,
    similarity_rows,
    write_similarity,
)
from mmtied.layers import TBC, TGC


def network(inplace=False):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(inplace),
                         nn.Conv2d(5, 6, 3, stride=2)).double()


def layer_of(model, name):
    return Layer(name, (model.get_submodule(name), ))


def patterns_by_hand(model, image, last):
    """Guided backpropagation of Springenberg et al., step by step, by the transposed convolutions of a plain chain."""
    inputs, x = [], image
    for module in model[:last + 1]:
        inputs.append(x)
        x = F.conv2d(x, module.weight, module.bias, module.stride, module.padding) if isinstance(module, nn.Conv2d) else x.relu()
    patterns = []
    for channel in range(x.shape[1]):
        gradient = torch.zeros_like(x)
        gradient[:, channel] = (x[:, channel] > 0).double()
        for module, came_in in reversed(list(zip(model[:last + 1], inputs, strict=True))):
            if isinstance(module, nn.Conv2d):
                gradient = nn.grad.conv2d_input(came_in.shape, module.weight, gradient, module.stride, module.padding)
            else:
                gradient = gradient * (came_in > 0) * (gradient > 0)
        patterns.append(gradient[0])
    return torch.stack(patterns)


@pytest.mark.parametrize('inplace', [False, True])
@pytest.mark.parametrize('last', [2, 4])
def test_patterns_match_guided_backpropagation_by_hand(last, inplace):
    model, images = network(inplace), torch.randn(3, 3, 9, 11, dtype=torch.float64)
    expected = [patterns_by_hand(model, image[None], last) for image in images.unbind()]
    got = guided_patterns(model, layer_of(model, str(last)), images)
    torch.testing.assert_close(got, torch.stack(expected))
    plain = torch.autograd.functional.jacobian(lambda x: model[:last + 1](x)[0, 0].clamp(min=0).sum(), images[:1])
    assert not torch.allclose(got[0, 0], plain[0])


def test_guidance_ends_with_the_block_and_reaches_functional_calls():
    x = torch.tensor([1., 2., -1.], requires_grad=True)
    signs = torch.tensor([1., -1., 1.])
    for function in (F.relu, torch.relu, torch.Tensor.relu, F.relu6):
        with guided_backprop():
            guided, = torch.autograd.grad((function(x) * signs).sum(), x)
        plain, = torch.autograd.grad((function(x) * signs).sum(), x)
        assert (guided.tolist(), plain.tolist()) == ([1, 0, 0], [1, -1, 0])


ACTIVATIONS = ('ReLU', 'ReLU6', 'Hardtanh', 'LeakyReLU', 'SiLU', 'Hardswish', 'GELU', 'ELU', 'CELU', 'SELU', 'Mish', 'PReLU',
               'RReLU', 'Softplus', 'Threshold')
#: What other activations of PyTorch are: gates, normalizations, attention, and shrinkage, which no network uses as activation.
OTHERS = {'Sigmoid', 'Hardsigmoid', 'Tanh', 'LogSigmoid', 'Softsign', 'GLU', 'MultiheadAttention', 'Softmin', 'Softmax',
          'Softmax2d', 'LogSoftmax', 'Hardshrink', 'Softshrink', 'Tanhshrink'}


@pytest.mark.parametrize('name', [*ACTIVATIONS, 'mmcv Swish', 'mmcv HSwish', 'mmcv Clamp'])
def test_every_activation_is_guided(name):
    """The gradient is the slope if the incoming gradient is positive, and 0 otherwise."""
    if name.startswith('mmcv'):
        activation = pytest.importorskip('mmcv.cnn').build_activation_layer({'type': name.split()[1]})
    else:
        activation = getattr(nn, name)(*((.1, .2) if name == 'Threshold' else ()))
    x = torch.tensor([[2., .5, -.2, 2., .5, -.2]], requires_grad=True)
    signs = torch.tensor([[1., 1., 1., -1., -1., -1.]])
    slope, = torch.autograd.grad(activation.eval()(x).sum(), x)
    assert slope.any()
    with guided_backprop():
        got, = torch.autograd.grad((activation(x * 1) * signs).sum(), x)
    torch.testing.assert_close(got, slope * (signs > 0))
    plain, = torch.autograd.grad((activation(x * 1) * signs).sum(), x)  # no hook remains
    torch.testing.assert_close(plain, slope * signs)


def test_activations_of_pytorch_are_all_considered():
    assert {*ACTIVATIONS, *OTHERS} >= set(nn.modules.activation.__all__)


def test_activations_of_any_class_in_a_convmodule_are_guided():
    cnn = pytest.importorskip('mmcv.cnn')

    class Square(nn.Module):
        def forward(self, x):
            return x * x.abs()

    layers = [cnn.ConvModule(3, 4, 3), cnn.ConvModule(4, 2, 1, act_cfg=dict(type='Sigmoid'))]
    layers[0].activate = Square()
    model, image = nn.Sequential(*layers).eval(), torch.randn(1, 3, 8, 8)
    got = guided_patterns(model, layer_of(model, '1.conv'), image)[0, 0]
    x = layers[0].conv(image)
    gradient = nn.grad.conv2d_input(x.shape, layers[1].conv.weight, (layers[1].conv(x * x.abs()) > 0).float()
                                    * torch.tensor([1., 0.]).view(1, 2, 1, 1))
    gradient = gradient.clamp(min=0) * 2 * x.abs()
    torch.testing.assert_close(got, nn.grad.conv2d_input(image.shape, layers[0].conv.weight, gradient)[0])


def test_splits_are_one_layer_in_the_order_of_their_channels():
    pytest.importorskip('mmcv')
    from mmtied.backbones import TiedResNet
    model = TiedResNet(depth=50, base_channels=16, out_indices=(3, )).eval()
    layers = spatial_layers(model)
    assert [layer.name for layer in layers[:2]] == ['stem.conv', 'layer1.0.splits.convs'] and len(layers) == 1 + 16
    layer, = find_layers(model, ['layer1.0.splits.convs.*'])
    assert layer == layers[1] and len(layer.modules) == 4
    images = torch.randn(1, 3, 32, 32)
    channels = count_channels(model, layer, images)
    assert channels == model.layer1[0].splits.norm.num_features
    alone = Layer('last', layer.modules[-1:])
    torch.testing.assert_close(guided_patterns(model, layer, images)[:, -2:], guided_patterns(model, alone, images)[:, -2:])


@pytest.mark.parametrize('average', ['patterns', 'similarities'])
def test_similarity_matches_numpy(average):
    model, images = network(), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    layer = layer_of(model, '2')
    patterns = guided_patterns(model, layer, images).numpy().reshape(5, 5, -1)[:, [0, 3, 4]]

    def cosines(rows):
        return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in rows] for a in rows])
    expected = cosines(patterns.mean(axis=0)) if average == 'patterns' else np.mean([cosines(one) for one in patterns], axis=0)
    got = guided_similarity(model, layer, [images[:2], images[2:]], [0, 3, 4], average)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_filters_silent_on_one_image_are_compared_on_the_others():
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
    model[0].weight.data.copy_(torch.tensor([[1., 0, 0], [1, 1, 0], [0, 0, 1]])[:, :, None, None])
    # The second image leaves the first two filters silent, the third image the last one.
    images = torch.tensor([[1., 1, 1], [-1, -1, 1], [1, 1, -1]])[:, :, None, None].expand(-1, -1, 4, 4)
    got = guided_similarity(model, layer_of(model, '0'), [images[:1], images[1:]], average='similarities')
    np.testing.assert_allclose(got, [[1, .5**.5, 0], [.5**.5, 1, 0], [0, 0, 1]], atol=1e-6)
    got = guided_similarity(model, layer_of(model, '0'), [images[1:]], average='similarities')
    np.testing.assert_allclose(got, [[1, .5**.5, np.nan], [.5**.5, 1, np.nan], [np.nan, np.nan, 1]], atol=1e-6)


def test_silent_filters_have_no_pairs():
    matrix = cosine_matrix(torch.tensor([[1., 0.], [0., 0.], [1., 1.], [0., 2.]]))
    np.testing.assert_allclose(pairs_of(matrix), [.5**.5, 0, .5**.5], atol=1e-6)


@pytest.mark.parametrize(('layer', 'banks'), [
    (nn.Conv2d(8, 6, 3), 1), (nn.Conv2d(8, 6, 3, groups=2), 2), (TBC(8, 12, 3, num_blocks=2), 1),
    (TGC(8, 12, 1, groups=2, num_blocks=2), 2)])
def test_weights_are_compared_where_they_see_the_same_channels(layer, banks):
    got = weight_similarities(layer)
    weight = layer.weight.detach().double().numpy()
    size = len(weight) // banks
    assert len(got) == banks
    for bank in range(banks):
        rows = weight[bank * size:(bank + 1) * size].reshape(size, -1)
        expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(rows) for b in rows[i + 1:]]
        np.testing.assert_allclose(got[bank], expected, atol=1e-6)


def test_weights_of_learned_groups_are_compared_within_a_group():
    """Against loops over pairs with the same connections, and the grouped convolution that freezing the groups makes."""
    from mmtied.layers import DGConv
    from mmtied.surgery import freeze_groups
    model = nn.Sequential(DGConv(8, 16, 3))
    for gates in ([1., 1., 1.], [1., -1., 1.], [-1., 1., -1.], [-1., -1., -1.]):
        model[0].gates.data.copy_(torch.tensor(gates))
        got = weight_similarities(model[0])
        frozen = weight_similarities(freeze_groups(deepcopy(model))[0])
        assert len(got) == len(frozen) == 2 ** gates.count(-1.)
        connected = model[0].relationship().bool().tolist()
        rows = [row[seen].flatten() for row, seen in zip(model[0].weight.detach().double(), connected, strict=True)]
        expected = sorted((a @ b / a.norm() / b.norm()).item() for i, a in enumerate(rows) for j, b in enumerate(rows[:i])
                          if connected[i] == connected[j])
        for banks in (got, frozen):
            np.testing.assert_allclose(np.sort(torch.cat(banks)), expected, atol=1e-6)


def test_standardized_weights_are_compared_as_used():
    cnn = pytest.importorskip('mmcv.cnn')
    for kind in ('ConvWS', 'ConvAWS'):
        layer = cnn.build_conv_layer(dict(type=kind), 3, 2, 3, bias=False)
        layer.weight.data += 1
        impulses = torch.zeros(27, 3, 3, 3).view(27, 27).fill_diagonal_(1).view(27, 3, 3, 3)
        one, other = layer(impulses).detach().flatten(1).T.double()
        assert weight_similarities(layer)[0].item() == pytest.approx((one @ other / one.norm() / other.norm()).item(), abs=1e-5)
    with pytest.raises(ValueError, match='ConvTranspose2d is a transposed convolution'):
        weight_similarities(nn.ConvTranspose2d(3, 4, 2))


@pytest.mark.parametrize('depth', [18, 50])
def test_layers_that_share_filters_are_where_they_run(depth):
    pytest.importorskip('mmcv')
    from mmtied.backbones import SharedResNet
    settings = dict(depth=depth, base_channels=8, **(dict(unique_elements=8) if depth == 18 else {}))
    model = SharedResNet(**settings).eval()
    names = [layer.name for layer in spatial_layers(model)]
    plain = [layer.name for layer in spatial_layers(SharedResNet(num_bases=0, **settings))]
    assert [name.removesuffix('.conv') for name in names] == [name.removesuffix('.conv') for name in plain]
    ran = []
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    model(torch.randn(1, 3, 32, 32))
    assert ran == names
    last, = layers_at(model, [1])
    assert count_channels(model, last, torch.randn(1, 3, 32, 32)) == 64


def test_depths():
    model = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1))))
    assert [layer.name for layer in layers_at(model, [.01, .25, .3, 1])] == ['0', '2', '4', '14']
    with pytest.raises(ValueError, match=r'depth 0, expected numbers above 0 and up to 1'):
        layers_at(model, [.5, 0])
    with pytest.raises(ValueError, match='has no convolution larger than 1x1'):
        layers_at(nn.Linear(2, 2), [1])


def test_layers_that_cannot_be_used():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    images = torch.randn(1, 3, 8, 8)
    model(images)
    with pytest.raises(ValueError, match="no layer named 'conv9'; its spatial convolutions are 0"):
        find_layers(model, ['0', 'conv9'])
    with pytest.raises(ValueError, match=r'layer 1: expected a module that returns feature maps .*, got Flatten'):
        guided_patterns(model, layer_of(model, '1'), images)
    with pytest.raises(ValueError, match='layer other does not run'):
        guided_patterns(model, Layer('other', (nn.Conv2d(3, 3, 1), )), images)
    with pytest.raises(ValueError, match="average 'mean', expected one of patterns, similarities"):
        guided_similarity(model, layer_of(model, '0'), [images], average='mean')
    with pytest.raises(ValueError, match='found 2 of a, 1 of b'):
        check_counts({'a': find_layers(model, ['0', '1']), 'b': find_layers(model, ['0'])})


def test_rows_and_files(tmp_path):
    pytest.importorskip('matplotlib')
    model, images = network().float(), torch.randn(2, 3, 8, 8)
    measured = measure_layers('a', model, spatial_layers(model)[1:], lambda: [images], most_filters=4)
    matrix = np.array([[1, .6, .2], [.6, 1, np.nan], [.2, np.nan, 1]], np.float32)
    measured += [LayerSimilarity('b', 'one', matrix, np.float32([.9, -.1]), 3), LayerSimilarity('b', 'two', matrix[:1, :1],
                                                                                               np.zeros(0, np.float32), 0)]
    rows = similarity_rows(measured)
    assert [(row['filters'], row['pairs']) for row in rows[:4]] == [(4, 6), (5, 10), (4, 6), (6, 15)]
    assert [rows[4][key] for key in ('pairs', 'mean', 'share_above')] == [2, pytest.approx(.4), .5]
    assert [rows[5][key] for key in ('pairs', 'mean', 'share_above')] == [2, pytest.approx(.4), .5]
    assert rows[7]['mean'] is None
    written = write_similarity(measured, tmp_path, format='svg')
    assert [path.name for path in written] == ['similarity.csv', 'histograms.svg', 'matrices.svg']
    assert all(path.stat().st_size for path in written)
    assert (tmp_path / 'similarity.csv').read_text().count('\n') == 9
    axes = plot_histograms(measured).axes
    heights = axes[0].patches[1].get_data().values  # the filled one is the first
    assert heights.sum() * .02 == pytest.approx(1)  # a density
