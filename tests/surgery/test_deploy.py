"""Deployed networks have the same outputs, with torch's own layers and without BatchNorm."""

import copy
import logging

import pytest
import torch
from torch import nn

from mmtied.layers import TBC
from mmtied.surgery import deploy
from tests.helpers.deployed import NETWORKS, SETTINGS, SHORT, build, difference, norms, packages, shake, trained
from tests.helpers.detectors import use_small_heads


@pytest.mark.parametrize('network', NETWORKS)
def test_deployed_backbone_keeps_outputs(network):
    model = build(network)
    before = copy.deepcopy(model.state_dict())
    deployed = deploy(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert difference(model, deployed, torch.randn(2, 3, 64, 64)) < 1e-4
    assert norms(model)
    assert not norms(deployed)
    assert packages(deployed) == ({'torch', 'mmcv'} if network == 'TiedEfficientNet' else {'torch'})  # its adaptive padding
    assert not any(module.training for module in deployed.modules())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    model.double()  # so that rounding hides nothing
    assert difference(model, deploy(model), torch.randn(1, 3, 32, 64, dtype=torch.float64)) < 1e-9


@pytest.mark.parametrize('settings', SETTINGS)
def test_settings_of_tied_resnet(settings):
    model = build('TiedResNet', **SHORT, **SETTINGS[settings])
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(2, 3, 64, 64)) < 1e-4
    assert norms(model)
    assert (norms(deployed), packages(deployed)) == ([], {'torch'})


@pytest.mark.parametrize(('package', 'name', 'settings'), [
    ('mmdet', 'ResNet', {'depth': 18, 'base_channels': 8, 'stem_channels': 8}),
    ('mmdet', 'ResNet', {'depth': 50, 'base_channels': 8, 'stem_channels': 8, 'deep_stem': True, 'avg_down': True}),
    ('mmdet', 'ResNeXt', {'depth': 50, 'base_channels': 16, 'stem_channels': 16, 'groups': 4, 'base_width': 4}),
    ('mmdet', 'ResNeSt', {'depth': 50, 'base_channels': 8, 'stem_channels': 8}),
    ('mmdet', 'ResNet', {'depth': 50, 'base_channels': 8, 'stem_channels': 8, 'plugins': [
        {'cfg': {'type': 'TiedGCB', 'num_blocks': 2}, 'position': 'after_conv3'}]}),
    ('mmdet', 'ResNet', {'depth': 50, 'base_channels': 8, 'stem_channels': 8,
                         'conv_cfg': {'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'}}),
    ('mmpretrain', 'ResNet', {'depth': 50, 'base_channels': 8, 'stem_channels': 8, 'expansion': 4, 'drop_path_rate': 0.1}),
    ('mmpretrain', 'SEResNet', {'depth': 50, 'out_indices': (0, 1), 'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1)}),
])
def test_backbones_of_mmdet_and_mmpretrain(package, name, settings):
    models = pytest.importorskip(f'{package}.models')
    model = trained(getattr(models.backbones, name)(**settings))
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(2, 3, 64, 64)) < 1e-4
    assert norms(model)
    assert (norms(deployed), packages(deployed)) == ([], {'torch'})


class PreActivation(nn.Module):
    """Block registered as conv, norm, conv, norm, but run as norm, conv, norm, conv."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.conv1(self.bn1(x).relu())
        return self.conv2(self.bn2(x).relu())


class UsedTwice(nn.Module):
    """Block that also uses the output of the convolution elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.conv(x)
        return x + self.bn(x)


class SharedConv(nn.Module):
    """Block with one convolution before two normalizations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.bns = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x):
        return self.bns[0](self.conv(x)) + self.bns[1](self.conv(2 * x))


class Standardised(nn.Conv2d):
    """Convolution whose output is not proportional to its weight."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


class Listed(nn.Module):
    """Block that calls its convolution through a Python list, which replacing a submodule does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.layers = [self.conv]

    def forward(self, x):
        return self.bn(self.layers[0](x))


class Renamed(nn.Module):
    """Block that calls its convolution by the second of two names, and the normalization by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 1)
        self.second, self.bn, self.last = self.first, nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.last(input=self.bn(self.second(x)))


class Decides(nn.Module):
    """Block whose forward depends on the values of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.conv(x)) if x.mean() > 0 else x


@pytest.mark.parametrize(('model', 'left'), [
    (PreActivation(), ['bn1']),  # bn2 follows conv1
    (UsedTwice(), ['bn']),
    (SharedConv(), ['bns.0', 'bns.1']),
    (nn.Sequential(Standardised(8, 8, 1), nn.BatchNorm2d(8)), ['1']),
    (nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8)), ['1']),
    (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8)), ['1']),
    (nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)), ['1']),
    (nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)), ['0']),
    (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)), ['2']),
    (Decides(), ['bn']),
    (Listed(), ['bn']),
    (Renamed(), ['last']),
], ids=lambda value: type(value).__name__)
def test_unfoldable_norms_are_kept_and_logged_once(model, left, caplog):
    model = trained(copy.deepcopy(model), (16, 8, 6, 6))
    with caplog.at_level(logging.WARNING, 'mmtied'):
        deployed = deploy(model)
    assert difference(model, deployed, torch.randn(3, 8, 5, 5).abs()) < 1e-5
    assert [name for name, module in deployed.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)] == left
    [record] = caplog.records
    assert record.getMessage() == 'deploy: left as they are: ' + ', '.join(f'{name} (BatchNorm2d)' for name in left)


def test_other_normalizations_are_kept_silently(caplog):
    model = trained(nn.Sequential(TBC(8, 16, 3, num_blocks=2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False),
                                  nn.BatchNorm2d(8, affine=False), nn.LayerNorm(4)), (16, 8, 6, 6))
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(3, 8, 6, 6)) < 1e-5
    assert [type(layer) for layer in deployed] == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.Conv2d, nn.Identity, nn.LayerNorm]
    assert not caplog.records


@pytest.mark.parametrize(('layer', 'norm', 'shape'), [
    (nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2), nn.BatchNorm2d(12), (16, 8, 5, 5)),
    (nn.Conv1d(8, 6, 3, bias=False), nn.BatchNorm1d(6), (16, 8, 9)),
])
def test_other_convolutions_fold(layer, norm, shape):
    model = trained(nn.Sequential(copy.deepcopy(layer), norm), shape)
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(shape)) < 1e-5
    assert type(deployed[1]) is nn.Identity


def test_conv_modules_become_a_convolution_and_an_activation():
    cnn = pytest.importorskip('mmcv.cnn')
    norm_cfg = {'type': 'BN'}
    folds = [cnn.ConvModule(8, 8, 3, padding=1, norm_cfg=norm_cfg), cnn.ConvModule(8, 8, 1, norm_cfg=norm_cfg, act_cfg=None),
             cnn.ConvModule(8, 8, 3, padding=1, padding_mode='reflect', norm_cfg=norm_cfg, bias=True),
             cnn.ConvModule(8, 8, 1, norm_cfg=norm_cfg, conv_cfg={'type': 'IGC', 'num_primary': 4}),
             cnn.ConvModule(8, 8, 1, norm_cfg=norm_cfg, act_cfg=None, efficient_conv_bn_eval=True)]
    stays = [cnn.ConvModule(8, 8, 1, norm_cfg=norm_cfg, order=('norm', 'act', 'conv')),
             cnn.ConvModule(8, 8, 1, norm_cfg=norm_cfg, with_spectral_norm=True), cnn.ConvModule(8, 8, 1)]
    folds[1].conv = folds[0].conv = nn.Conv2d(8, 8, 1)  # as heads share them between levels, each with its own normalization
    model = trained(nn.Sequential(*folds, *stays), (16, 8, 6, 6))
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(3, 8, 5, 5)) < 1e-5
    kinds = [type(part) if type(part) is not nn.Sequential else [type(layer) for layer in part] for part in deployed]
    assert kinds == [[nn.Conv2d, nn.ReLU], nn.Conv2d, [nn.ReflectionPad2d, nn.Conv2d, nn.ReLU], [nn.Conv2d, nn.Conv2d, nn.ReLU],
                     nn.Conv2d, *[cnn.ConvModule] * 3]


def test_linear_is_not_folded_into_norm_of_another_dimension():
    model = trained(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), (16, 8, 5))  # (N, 8, 8): by rows, not by features
    assert difference(model, deploy(model), torch.randn(3, 8, 5)) < 1e-5


def test_shared_module_stays_shared():
    block = nn.Sequential(TBC(8, 8, 1, num_blocks=2, bias=False), shake(nn.BatchNorm2d(8)))
    model = nn.Sequential(block, nn.ReLU(), block)
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(2, 8, 5, 5)) < 1e-5
    assert deployed[0] is deployed[2]


def test_memory_format_of_weights_is_kept():
    model = build('TiedResNet', **SHORT).to(memory_format=torch.channels_last)
    for deployed, expected in ((deploy(model), True), (deploy(model.to(memory_format=torch.contiguous_format)), False)):
        wide = [p for p in deployed.parameters() if p.dim() == 4 and min(p.shape) > 1]
        assert wide
        assert all(p.is_contiguous(memory_format=torch.channels_last) is expected for p in wide)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'configs/mask_rcnn_tiedr50_2x.py'])
def test_mask_rcnn_keeps_predictions(name):
    pytest.importorskip('mmdet')
    from mmdet.testing import demo_mm_inputs
    from mmengine.registry import MODELS, DefaultScope

    from mmtied.launch.config import load_config
    neck_and_heads = {'norm_cfg': {'type': 'BN'}}
    cfg = load_config(name)
    thin = {'stem_channels': 16, 'base_channels': 16, 'init_cfg': None}
    cfg.merge_from_dict({'model.backbone': thin, 'model.neck': {'in_channels': [64, 128, 256, 512], **neck_and_heads},
                         'model.roi_head.mask_head': neck_and_heads, 'model.test_cfg.rcnn.score_thr': 0.0})
    use_small_heads(cfg.model)
    cfg.model.test_cfg.rpn.max_per_img, cfg.model.test_cfg.rcnn.max_per_img = 50, 20
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model = trained_detector(model)
        deployed = deploy(model)
        data = model.data_preprocessor(demo_mm_inputs(1, [(3, 96, 128)]), False)
        model.eval()
        with torch.no_grad():
            [expected], [got] = (each.predict(data['inputs'], copy.deepcopy(data['data_samples'])) for each in (model, deployed))
    assert norms(model.neck)
    assert not norms(deployed)
    assert packages(deployed.backbone) == {'torch'}
    assert 'mmtied' not in packages(deployed)
    assert len(expected.pred_instances) == 20
    for key in ('bboxes', 'scores', 'labels', 'masks'):
        mine, theirs = got.pred_instances[key].float(), expected.pred_instances[key].float()
        if key == 'masks':  # a pixel on the threshold may fall on either side
            assert (mine != theirs).float().mean() < 1e-4
        else:
            torch.testing.assert_close(mine, theirs, atol=1e-3 if key == 'bboxes' else 1e-4, rtol=1e-4)


def trained_detector(model: nn.Module) -> nn.Module:
    """Return a detector with realistic statistics in backbone and neck, and random ones in the heads."""
    for norm in norms(model.roi_head):
        shake(norm)
    trained(nn.Sequential(model.backbone, model.neck), (4, 3, 64, 64))
    return model


def test_rejects_non_module():
    with pytest.raises(ValueError, match='deploy: expected a torch.nn.Module, got NoneType'):
        deploy(None)
