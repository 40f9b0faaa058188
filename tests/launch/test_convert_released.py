"""Convert the six released networks with shared bases: equal outputs, and errors for broken checkpoints."""

import re

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmtied.backbones import SharedResNet
from mmtied.launch.checkpoints import check_backbone, check_model, use_backbone_checkpoint
from mmtied.launch.config import load_config
from mmtied.related.shared_bases.released import convert_released, is_released
from tests.helpers.released_bases import NETWORKS, checkpoint, forward, random_weights

#: Config of each network, whose backbone and head the weights must fit.
CONFIGS = {
    'ResNet34_S48U1': 'sharedr34_s48u1', 'ResNet50_Shared': 'sharedr50', 'ResNet50_Shared_two_bases': 'sharedr50_2bases',
    'ResNet101_Shared': 'sharedr101', 'MobileNetV2_Shared': 'sharedmobilenetv2',
    'MobileNetV2_Shared_two_bases': 'sharedmobilenetv2_2bases',
}


@pytest.mark.parametrize('network', NETWORKS)
def test_equal_outputs(network):
    """The config's classifier with converted weights computes what the released network does."""
    pytest.importorskip('mmpretrain')
    weights = random_weights(network)
    assert is_released(weights)
    backbone, converted = convert_released(weights)
    cfg = load_config(f'configs/imagenet/{CONFIGS[network]}_in1k.py')
    cfg.model.backbone.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
    assert {**cfg.model.backbone, **backbone} == cfg.model.backbone  # the settings that the tool prints are the config's
    model.load_state_dict(converted, assign=True)
    biases = 1312 if 'Mobile' in network else 0  # made redundant by BatchNorm
    assert sum(p.numel() for p in model.parameters()) + biases == NETWORKS[network]['parameters']

    x = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        expected = forward(weights, x)
        levels = model.backbone(x)
        logits = model.head.fc(model.neck(levels)[-1])
    assert expected['logits'].std() > 0.05  # nothing died on the way
    torch.testing.assert_close(logits, expected['logits'], rtol=1e-5, atol=1e-5)
    last = expected.get('layer4', expected.get('last'))
    torch.testing.assert_close(levels[-1], last, rtol=1e-5, atol=1e-5)


def test_whole_classifier(run_tool, tmp_path):
    """With --keep-head the file is a classifier's checkpoint, as tools/test.py reads it."""
    pytest.importorskip('mmpretrain')
    source, out = tmp_path / 'released.pth', tmp_path / 'classifier.pth'
    torch.save(checkpoint(random_weights('MobileNetV2_Shared_two_bases'), 'module.'), source)
    code, printed, err = run_tool('convert_backbone.py', source, out, '--keep-head')
    assert code == 0, err
    assert printed.endswith('dropped 0 tensors of ' + str(source) + ': none\n')
    cfg = load_config('configs/imagenet/sharedmobilenetv2_2bases_in1k.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        check_model(MODELS.build(cfg.model), str(out))


def test_detector_starts_from_released_weights(run_tool, tmp_path):
    """Follow a config's comment: convert, then --backbone-checkpoint."""
    pytest.importorskip('mmdet')
    weights = random_weights('ResNet50_Shared_two_bases')
    source, out = tmp_path / 'ResNet50-Shared++.pth', tmp_path / 'sharedr50_2bases.pth'
    torch.save(checkpoint(weights), source)
    code, printed, err = run_tool('convert_backbone.py', source, out)
    assert code == 0, err
    assert "backbone=dict(type='mmtied.SharedResNet', depth=50, num_bases=2)" in printed
    assert 'dropped 2 tensors' in printed
    cfg = load_config('configs/retinanet_sharedr50_2bases_1x.py')
    with pytest.raises(ValueError, match='mmtied convert .* FILE, and use that file'):
        use_backbone_checkpoint(cfg, str(source))
    use_backbone_checkpoint(cfg, str(out))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    check_backbone(model, str(out))
    model.init_weights()
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        levels = model.backbone.eval()(x)
    expected = forward(weights, x)
    for index, level in enumerate(levels, 1):
        torch.testing.assert_close(level, expected[f'layer{index}'], rtol=1e-5, atol=1e-5)


def test_other_ranks():
    """A checkpoint of the authors' script with other numbers of elements yields other settings."""
    weights = random_weights('ResNet34_S48U1')
    for key, value in weights.items():
        if '_basis_' in key and 'layer' not in key:
            weights[key] = value[:len(value) // 3]
    for first, *others in NETWORKS['ResNet34_S48U1']['same_tensor']:
        weights.update({key: weights[first] for key in others})
    assert convert_released(weights)[0]['shared_elements'] == 16


def test_own_checkpoints_are_not_released():
    assert not is_released(SharedResNet(50, base_channels=8).state_dict())


@pytest.mark.parametrize(('change', 'message'), [
    ({'stage4.2.shared_basis1.weight': torch.zeros(384, 64, 1, 1)}, 'stage4.2.shared_basis1.weight differs from shared_basis_2'),
    ({'stage9.conv.weight': torch.zeros(3)}, r'stage9.conv.weight of shape \(3,\) do not belong to a released network'),
    ({'stage2.1.conv3.weight': torch.zeros(1)}, r'layer2.1.conv.2.conv.weight is \(1,\), expected \(24, 144, 1, 1\)'),
    ({'stage3.1.conv3.weight': None}, 'layer3.1.conv.2.conv.weight is missing'),
    ({'pre.0.bias': None, 'pre.1.running_mean': None}, 'conv1.bn.running_mean is missing'),
    ({'pre.1.bias': torch.full((32, ), float('nan'))}, 'conv1.bn.bias first'),
])
def test_errors(change, message, run_tool, tmp_path):
    pytest.importorskip('mmpretrain')
    weights = {**random_weights('MobileNetV2_Shared'), **change}
    torch.save(checkpoint({key: value for key, value in weights.items() if value is not None}), tmp_path / 'source.pth')
    code, _, err = run_tool('convert_backbone.py', tmp_path / 'source.pth', tmp_path / 'out.pth')
    assert (code, err.count('\n')) == (2, 1)
    assert err.startswith('error: checkpoint ')
    assert re.search(message, err)
    assert not (tmp_path / 'out.pth').exists()
