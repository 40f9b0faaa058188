"""Settings of mmdet's and mmpretrain's ResNets: norms without weights, layer-wise learning rates, unsupported arguments."""

from functools import partial

import pytest
import torch

import mmtied.backbones as backbones
from tests.helpers.families import FAMILIES, tiny

SMALL = {
    **{family: partial(tiny, family, num_stages=2, out_indices=(1, )) for family in FAMILIES},
    'GResNeXt': partial(backbones.GResNeXt, 50, base_channels=8, num_stages=2, out_indices=(1, )),
    'IGCNet': partial(backbones.IGCNet, 18, base_channels=16, num_stages=2, out_indices=(1, )),
    'SharedResNet': partial(backbones.SharedResNet, 50, base_channels=8, num_stages=2, out_indices=(1, )),
}
NETWORKS = {**SMALL, 'SharedMobileNetV2': backbones.shared_mobilenet_v2, 'TiedEfficientNet': backbones.tied_efficientnet}


@pytest.mark.parametrize(('family', 'norm_cfg'), [
    pytest.param(family, norm_cfg, id=f'{family}, {norm_cfg}') for family in SMALL
    for norm_cfg in ({'type': 'IN'}, {'type': 'BN', 'affine': False}, {'type': 'GN', 'num_groups': 2})
    # ResNeSt's attention normalizes one value per image and channel, which InstanceNorm rejects.
    if (family, norm_cfg['type']) != ('TiedResNeSt', 'IN')])
def test_initializes_and_trains_with_any_norm(family, norm_cfg):
    model = SMALL[family](norm_cfg=norm_cfg)
    model.init_weights()
    out, = model.train()(torch.rand(2, 3, 64, 64))
    assert out.isfinite().all()
    blocks = [block for name in model.stage_names for block in getattr(model, name)]
    weights = [block.last_norm.weight for block in blocks]
    assert all(weight is None or not weight.any() for weight in weights)
    assert (weights[0] is None) == (norm_cfg['type'] != 'GN')


@pytest.mark.parametrize('family', NETWORKS)
def test_settings_of_older_mmdet_are_refused_by_the_name_in_the_config(family):
    with pytest.raises(TypeError, match=rf"^{family}: pretrained is not supported; use init_cfg=dict\(type='Pretrained'"):
        NETWORKS[family](pretrained='torchvision://resnet50')


@pytest.mark.parametrize('family', SMALL)
@pytest.mark.parametrize(('setting', 'advice'), [
    ({'dcn': {'type': 'DCNv2'}}, 'dcn is not supported; .* use mmdet.ResNet'),
    ({'stage_with_dcn': (False, True, True, True)}, 'stage_with_dcn is not supported'),
    ({'trident_dilations': (1, 2, 3)}, 'trident_dilations is not supported; it is for mmdet.TridentResNet'),
])
def test_settings_of_mmdets_resnets_are_refused_by_the_name_in_the_config(family, setting, advice):
    with pytest.raises(TypeError, match=f'^{family}: {advice}'):
        SMALL[family](**setting)


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: backbones.TiedResNeSt(50, base_channels=30), r'^TiedResNeSt: layer1 with base_channels=30: .*: '),
    (lambda: backbones.IGCNet(18, base_channels=31), '^IGCNet: layer1 with base_channels=31: IGC: out_channels=31 is not'),
    (lambda: backbones.TiedResNet(depth=18), '^TiedResNet: depth=18 has blocks of two 3x3 .* mmdet.ResNet conv_cfg=dict'),
    (lambda: backbones.GResNeXt(depth=34), '^GResNeXt: depth=34 has blocks of two 3x3 convolutions'),
    (lambda: backbones.IGCNet(18, style='caffe'), "^IGCNet: style='caffe', expected 'pytorch'"),
])
def test_channels_that_do_not_fit_a_layer_are_reported_as_the_networks(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('depth', [50, 101, 152])
def test_layer_depths_are_mmpretrains(depth):
    ResNet = pytest.importorskip('mmpretrain.models.backbones').ResNet  # noqa: N806
    theirs, ours = ResNet(depth), tiny('TiedResNet', depth=depth)
    for stage, layer in enumerate(ours.stage_names):
        for block in range(ours.stage_blocks[depth][stage]):
            name = f'backbone.{layer}.{block}.conv1.weight'
            assert ours.get_layer_depth(name, 'backbone.') == theirs.get_layer_depth(name, 'backbone.')
    assert ours.get_layer_depth('backbone.stem.conv.weight', 'backbone.') == theirs.get_layer_depth('backbone.conv1.weight',
                                                                                                    'backbone.')
    assert ours.get_layer_depth('head.fc.weight', 'backbone.') == theirs.get_layer_depth('head.fc.weight', 'backbone.')


def test_layer_wise_learning_rates():
    pytest.importorskip('mmpretrain')
    from mmengine.registry import DefaultScope
    from mmpretrain.models import ImageClassifier
    from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(
            {'type': 'mmtied.SharedResNet', 'depth': 50, 'base_channels': 8, 'out_indices': (3, )},
            {'type': 'GlobalAveragePooling'}, {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 256})
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build({
            'type': 'LearningRateDecayOptimWrapperConstructor',
            'optim_wrapper_cfg': {'optimizer': {'type': 'SGD', 'lr': 1., 'weight_decay': 0.}},
            'paramwise_cfg': {'layer_decay_rate': 0.5}})
        optimizer = constructor(model).optimizer
    rates = {group['param_name']: group['lr'] for group in optimizer.param_groups}
    assert rates['head.fc.weight'] == 1
    assert rates['backbone.layer4.0.entry.conv.weight'] == rates['backbone.layer4.bases.middle.weight'] == 0.5
    assert rates['backbone.layer3.5.entry.conv.weight'] == 0.25
    assert rates['backbone.layer3.bases.middle.weight'] == 0.125
    assert rates['backbone.stem.conv.weight'] == 0.5**7

