"""Networks with shared bases: printed sizes, the outputs and gradients of ordinary networks with the same filters, sharing."""

import copy
import pickle

import pytest
import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmtied.backbones import SharedResNet, SharedResNetCIFAR, shared_mobilenet_v2
from mmtied.backbones.bottleneck import PadShortcut
from mmtied.layers import FilterBasis, SharedBasisConv, SharedConv2d
from mmtied.related.shared_bases.backbones import SharedStage
from tests.helpers.families import recomputing

# Table 1 in millions, with the input channels of a classifier of 1000 classes.
IMAGENET = [
    ({'depth': 50}, 2048, '20.51'), ({'depth': 50, 'num_bases': 2}, 2048, '18.26'),
    ({'depth': 50, 'num_bases': 3}, 2048, '16.02'), ({'depth': 101}, 2048, '29.47'),
    ({'depth': 34, 'num_bases': 2, 'shared_elements': 48}, 512, '11.79'),
    ({'depth': 50, 'num_bases': 0}, 2048, '25.56'), ({'depth': 101, 'num_bases': 0}, 2048, '44.55'),
    ({'depth': 34, 'num_bases': 0}, 512, '21.80'),
]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(('settings', 'channels', 'printed'), IMAGENET)
def test_sizes_of_table_1(settings, channels, printed):
    with torch.device('meta'):
        model = SharedResNet(**settings)
    assert f'{(parameters(model) + 1000 * channels + 1000) / 1e6:.2f}' == printed


@pytest.mark.parametrize(('num_bases', 'printed'), [(0, '3.50'), (1, '3.24'), (2, '2.98')])
def test_sizes_of_mobilenet(num_bases, printed):
    pytest.importorskip('mmpretrain')
    model = shared_mobilenet_v2(num_bases=num_bases)
    assert f'{(parameters(model) + 1280 * 1000 + 1000) / 1e6:.2f}' == printed


@pytest.mark.parametrize(('num_bases', 'printed'), [(0, '21.33'), (1, '7.73')])
def test_sizes_of_table_2(num_bases, printed):
    with torch.device('meta'):
        model = SharedResNetCIFAR(34, num_bases=num_bases)
    assert f'{(parameters(model) + 512 * 100 + 100) / 1e6:.2f}' == printed


@pytest.mark.parametrize(('depth', 'num_bases', 'printed'), [(32, 0, 46), (32, 2, 24), (56, 0, 85), (56, 1, 27), (56, 2, 31)])
def test_sizes_of_table_3(depth, num_bases, printed):
    """Table 3 truncates its figures to two digits."""
    with torch.device('meta'):
        model = SharedResNetCIFAR(depth, num_bases=num_bases, shared_elements=16)
    assert (parameters(model) + 64 * 10 + 10) // 10000 == printed


def small(depth: int = 50, cls: type = SharedResNet, **settings) -> nn.Module:
    """A network of few channels, with random statistics in its normalizations so that none of them is the identity."""
    elements = {'shared_elements': 32, 'unique_elements': 4} if depth == 18 else {}
    settings = {'base_channels': 16, **elements, **settings}
    model = cls(depth, **settings)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


# Names of a block's parts in mmdet's ResNet.
BOTTLENECK = {'entry': ('conv1', 'bn1'), 'spatial': ('conv2', 'bn2'), 'exit': ('conv3', 'bn3')}
BASIC = {'entry': ('conv1', 'bn1'), 'exit': ('conv2', 'bn2')}


def ordinary(model: SharedResNet, depth: int) -> nn.Module:
    """mmdet's ResNet with the filters of a network in evaluation mode, each layer with its own copy."""
    pytest.importorskip('mmdet')
    from mmdet.models.backbones import ResNet
    theirs = ResNet(depth, base_channels=16, stem_channels=16).double()
    theirs.conv1.weight.data.copy_(model.stem.conv.weight)
    theirs.bn1.load_state_dict(model.stem.bn.state_dict())
    names = BOTTLENECK if depth >= 50 else BASIC
    for layer in model.stage_names:
        for ours, block in zip(getattr(model, layer), getattr(theirs, layer), strict=True):
            for name, (conv, norm) in names.items():
                getattr(block, norm).load_state_dict(getattr(ours, name).bn.state_dict())
                source = getattr(ours, name).conv
                if isinstance(source, SharedBasisConv):
                    _fold(source, getattr(block, conv), getattr(block, norm))
                else:
                    filters = source.filters if isinstance(source, SharedConv2d) else source
                    getattr(block, conv).weight.data.copy_(filters.weight)
            if block.downsample is not None:
                block.downsample[0].weight.data.copy_(ours.shortcut.conv.weight)
                block.downsample[1].load_state_dict(ours.shortcut.bn.state_dict())
    theirs.train(False)
    return theirs


def _fold(source: SharedBasisConv, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Normalization, coefficients and basis as one filter; the constant goes into the mean of the normalization after it."""
    scale = source.norm.weight / (source.norm.running_var + source.norm.eps).sqrt()
    shift = source.norm.bias - source.norm.running_mean * scale
    alphas = source.coefficients.weight[:, :, 0, 0]
    conv.weight.data.copy_(torch.einsum('tr,r,rskl->tskl', alphas, scale, source.basis_weight()))
    norm.running_mean.sub_((alphas @ shift).detach())


@pytest.mark.parametrize(('depth', 'num_bases'), [(50, 0), (50, 1), (50, 2), (50, 3), (18, 0), (18, 1), (18, 2)])
def test_equals_resnet_with_copied_filters(depth, num_bases):
    model = small(depth, num_bases=num_bases).double().eval()
    theirs = ordinary(model, depth)
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    for ours, expected in zip(model(x), theirs(x), strict=True):
        torch.testing.assert_close(ours, expected)


def test_gradients_are_summed_over_copies():
    model = small(50, num_bases=2).double().eval()
    theirs = ordinary(model, 50)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for network in (model, theirs):
        sum(level.mean() for level in network(x)).backward()
    for layer in ('layer1', 'layer2', 'layer3', 'layer4'):
        bases, blocks = getattr(model, layer).bases, list(getattr(theirs, layer))
        torch.testing.assert_close(bases['middle'].weight.grad, sum(block.conv2.weight.grad for block in blocks[1:]))
        torch.testing.assert_close(bases['exit'].weight.grad, sum(block.conv3.weight.grad for block in blocks[1:]))


@pytest.mark.parametrize('num_bases', [1, 2])
def test_equals_mobilenet_with_copied_filters(num_bases):
    pytest.importorskip('mmpretrain')
    from mmpretrain.models.backbones import MobileNetV2
    model = shared_mobilenet_v2(num_bases=num_bases, widen_factor=0.25)
    theirs = MobileNetV2(widen_factor=0.25)
    weights = {key: value for key, value in model.state_dict().items() if '.bases.' not in key}
    for name in model.layers:
        stage = getattr(model, name)
        if isinstance(stage, SharedStage):
            for index, block in enumerate(stage):
                for position, module in enumerate(block.conv):
                    if isinstance(module.conv, SharedConv2d):
                        weights[f'{name}.{index}.conv.{position}.conv.weight'] = module.conv.filters.weight
    theirs.load_state_dict(weights)
    x = torch.rand(2, 3, 64, 64)
    model.train(False)
    theirs.train(False)
    torch.testing.assert_close(model(x)[0], theirs(x)[0])


@pytest.mark.parametrize(('depth', 'num_bases', 'names'), [
    (50, 1, {'middle'}), (50, 2, {'middle', 'exit'}), (50, 3, {'entry', 'middle', 'exit'}), (18, 1, {'entry'}),
    (18, 2, {'entry', 'exit'})])
def test_keys(depth, num_bases, names):
    """Shared filters have one key under their stage; nothing else is shared, and normalizations never are."""
    model = small(depth, num_bases=num_bases)
    keys = list(model.state_dict())
    assert {key for key in keys if '.bases.' in key} == {f'layer{i}.bases.{name}.weight' for i in (1, 2, 3, 4) for name in names}
    assert len({value.data_ptr() for value in model.state_dict().values()}) == len(keys)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    per_block = 3 if depth == 50 else 2
    blocks, extra = (16, 4) if depth == 50 else (8, 3)
    between = 2 * 4 if depth == 18 else 0
    assert len(norms) == 1 + per_block * blocks + extra + between


def test_second_basis_of_the_text():
    """The paper's text shares the first two convolutions; the error for such a checkpoint names the setting that fits."""
    model = small(50, num_bases=2, second_basis='entry').double().eval()
    assert set(model.layer3.bases) == {'entry', 'middle'}
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model(x), ordinary(model, 50)(x))
    with torch.device('meta'):
        sizes = [parameters(SharedResNet(50, num_bases=2, second_basis=basis)) for basis in ('entry', 'exit')]
    assert sizes[0] == sizes[1]
    with pytest.raises(ValueError, match="it shares the first 1x1 convolutions, so build the network with second_basis='entry'"):
        small(50, num_bases=2).load_state_dict(model.state_dict(), strict=False)


def sharing(model: nn.Module) -> list[FilterBasis]:
    """Return the distinct filters that the layers refer to."""
    filters = {id(module.filters): module.filters for module in model.modules() if hasattr(module, 'filters')}
    registered = {id(module) for module in model.modules()}
    assert set(filters) <= registered
    return list(filters.values())


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)),
                                       lambda model: ExponentialMovingAverage(model).module])
@pytest.mark.parametrize('depth', [18, 50])
def test_copies_keep_sharing(depth, duplicate):
    model = small(depth, num_bases=2).eval()
    other = duplicate(model).eval()
    assert len(sharing(other)) == len(sharing(model)) == 8
    assert not {id(basis) for basis in sharing(other)} & {id(basis) for basis in sharing(model)}
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(other(x), model(x))


def test_mobilenet_returns_itself_and_pickles():
    pytest.importorskip('mmpretrain')
    model = shared_mobilenet_v2(widen_factor=0.25)
    assert model.train() is model
    assert model.eval() is model
    x = torch.rand(1, 3, 64, 64)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other).__name__ == 'SharedMobileNetV2'
        assert torch.equal(other(x)[-1], model(x)[-1])
    weights = model.state_dict()
    del weights['layer3.bases.expand.weight']
    with pytest.raises(ValueError, match=r'SharedMobileNetV2: .* does not fit \(layer3.bases.expand.weight is missing\)'):
        model.load_state_dict(weights, strict=False)
    shared_mobilenet_v2(widen_factor=0.25, strict_checkpoint=False).load_state_dict(weights, strict=False)


@pytest.mark.parametrize('update_buffers', [False, True])
def test_moving_average_updates_a_basis_once(update_buffers):
    model = small(50)
    average = ExponentialMovingAverage(model, momentum=0.1, update_buffers=update_buffers)
    average.update_parameters(model)  # the first update copies
    before = model.layer3.bases['middle'].weight.detach().clone()
    nn.init.ones_(model.layer3.bases['middle'].weight)
    average.update_parameters(model)
    torch.testing.assert_close(average.module.layer3.bases['middle'].weight, 0.9 * before + 0.1)


def test_checkpoints():
    model, other = small(50).eval(), small(50).eval()
    other.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(other(x), model(x))
    weights = model.state_dict()
    del weights['layer2.bases.middle.weight']
    with pytest.raises(ValueError, match=r'does not fit \(layer2.bases.middle.weight is missing\)'):
        small(50).load_state_dict(weights, strict=False)
    with pytest.raises(ValueError, match='does not fit'):
        small(50, num_bases=2).load_state_dict(model.state_dict(), strict=False)


def test_fuse_conv_bn_keeps_shared_filters():
    for depth in (18, 50):
        model = small(depth, num_bases=2).eval()
        x = torch.rand(1, 3, 64, 64)
        expected = model(x)
        torch.testing.assert_close(fuse_conv_bn(copy.deepcopy(model))(x), expected, rtol=1e-4, atol=1e-4)


def test_parameter_wise_settings():
    """Bases can have their own learning rate and weight decay, by key, and each is in one parameter group."""
    model = small(50, num_bases=2)
    cfg = {'optimizer': {'type': 'SGD', 'lr': 1.0, 'weight_decay': 0.1},
           'paramwise_cfg': {'custom_keys': {'bases': {'lr_mult': 0.5, 'decay_mult': 0.}}}}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    chosen = [p for group in groups if (group['lr'], group['weight_decay']) == (0.5, 0.) for p in group['params']]
    assert {id(p) for p in chosen} == {id(basis.weight) for basis in sharing(model)}
    every = [id(p) for group in groups for p in group['params']]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize('depth', [18, 50])
def test_frozen_stages_and_norm_eval(depth):
    model = small(depth, frozen_stages=2, norm_eval=True).train()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(('stem', 'layer1', 'layer2'))), name
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@recomputing
@pytest.mark.parametrize('depth', [18, 50])
def test_with_cp_keeps_gradients_and_statistics(depth, with_cp):
    plain = small(depth)
    cheap = small(depth, with_cp=with_cp)
    cheap.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    for model in (plain, cheap):
        sum(level.mean() for level in model.train()(x)).backward()
    for (name, ours), (_, theirs) in zip(cheap.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name, rtol=1e-3, atol=1e-5)
    for (name, ours), theirs in zip(cheap.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize('settings', [
    {'deep_stem': True, 'avg_down': True}, {'style': 'caffe'}, {'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2)},
    {'num_stages': 3, 'out_indices': (2, )}, {'norm_cfg': {'type': 'GN', 'num_groups': 4}},
    {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 1 / 4}, 'position': 'after_conv2'}]}])
@pytest.mark.parametrize('depth', [18, 50])
def test_mmdet_settings(depth, settings):
    if depth == 18 and 'norm_cfg' in settings:  # for 32, 64, ... channels between basis and coefficients
        settings = {**settings, 'unique_elements': 0}
    model = small(depth, **settings).eval()
    levels = model(torch.rand(1, 3, 64, 64))
    expansion = 4 if depth == 50 else 1
    for index, level in zip(model.out_indices, levels, strict=True):
        assert level.shape[1] == 16 * expansion * 2**index
        size = 64 // 2**(index + 2)
        assert level.shape[2] == (size * 2 if 'dilations' in settings and index == 3 else size)


def test_trains_in_a_classifier():
    pytest.importorskip('mmpretrain')
    from mmpretrain.structures import DataSample
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # a Runner of another test may have set one
        model = MODELS.build({
            'type': 'mmpretrain.ImageClassifier',
            'backbone': {'type': 'mmtied.SharedResNetCIFAR', 'depth': 32, 'shared_elements': 16},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': 5, 'in_channels': 64}})
    images = torch.rand(2, 3, 32, 32)
    loss = model(images, [DataSample().set_gt_label(1)] * 2, mode='loss')['loss']
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model(images, mode='tensor').shape == (2, 5)


def test_shortcut_without_parameters():
    x = torch.rand(2, 3, 5, 6)
    out = PadShortcut(2, stride=2)(x)
    torch.testing.assert_close(out[:, :3], x[:, :, ::2, ::2])
    assert out.shape == (2, 5, 3, 3)
    assert not out[:, 3:].any()


def test_stage_runs_its_blocks_in_order():
    stage = small(50).layer2
    assert len(stage) == len(list(stage)) == 4
    assert stage[-1] is list(stage)[3]
    assert stage[1:] == list(stage)[1:]


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: SharedResNet(49), 'depth=49, expected one of 50, 101, 152, 18, 34'),
    (lambda: SharedResNet([50]), r'depth=\[50\], expected one of 50, 101, 152, 18, 34'),
    (lambda: SharedResNetCIFAR([50]), r'depth=\[50\], expected one of'),
    (lambda: SharedResNetCIFAR(33, shared_elements=16), 'SharedResNetCIFAR: depth=33, expected one of .* 20, 32, 44'),
    (lambda: SharedResNetCIFAR(50, shared_elements=16), 'they are for basic blocks .depth 18, 20, 32, 34, 44, 56, 110.'),
    (lambda: SharedResNet(34.0), 'depth=34.0, expected one of'),
    (lambda: SharedResNet(50, num_bases=2.0), 'num_bases=2.0 with depth 50, expected 0 to 3'),
    (lambda: SharedResNet(50, num_bases=True), 'num_bases=True with depth 50, expected 0 to 3'),
    (lambda: SharedResNet(18, unique_elements=-1), 'unique_elements=-1, expected 0 or a positive integer'),
    (lambda: shared_mobilenet_v2(num_bases=2.0), 'num_bases=2.0, expected 0, 1 or 2'),
    (lambda: SharedResNet(50, num_bases=2, second_basis='middle'), "second_basis='middle', expected one of 'exit', 'entry'"),
    (lambda: SharedResNet(50, second_basis='entry'), 'depth 50 and num_bases=1; it is for bottlenecks .* with num_bases=2'),
    (lambda: shared_mobilenet_v2(released=True, act_cfg={'type': 'ReLU'}), 'with released=True, which sets the activations'),
    (lambda: SharedResNet(50, num_bases=4), 'num_bases=4 with depth 50, expected 0 to 3'),
    (lambda: SharedResNet(34, num_bases=3), 'num_bases=3 with depth 34, expected 0 to 2'),
    (lambda: SharedResNet(50, shared_elements=48), 'a bottleneck shares whole convolutions'),
    (lambda: SharedResNet(18, shared_elements=3, base_channels=16), 'at 16 channels gives 0.75 elements'),
    (lambda: SharedResNet(18, shared_elements=0), 'shared_elements=0, expected a positive integer'),
    (lambda: SharedResNet(18, plugins=[{'cfg': {'type': 'ContextBlock'}, 'position': 'after_conv3'}]),
     "plugin position 'after_conv3', expected one of after_conv1, after_conv2$"),
    (lambda: SharedResNetCIFAR(56, num_stages=4), 'num_stages=4, expected one of 1, 2, 3'),
    (lambda: SharedResNetCIFAR(34, deep_stem=True), 'deep_stem=True, expected False'),
    (lambda: shared_mobilenet_v2(num_bases=3), 'num_bases=3, expected 0, 1 or 2'),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
