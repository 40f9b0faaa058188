"""Every tied backbone: mmdet's settings, checkpoints, mmpretrain's classifier, and error messages."""

import copy
import pickle
import re
import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmtied.backbones as backbones
from mmtied.layers import TFC
from mmtied.plugins import TiedGCB, TiedSE
from tests.helpers.families import FAMILIES, tiny

families = pytest.mark.parametrize('family', FAMILIES)


def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return sum(level.square().mean() for level in model(x))


@families
@pytest.mark.parametrize('settings', [
    {}, {'depth': 101, 'out_indices': (3, )}, {'out_indices': (1, 2)}, {'style': 'caffe'}, {'deep_stem': True, 'avg_down': True},
    {'deep_stem': False, 'avg_down': False}, {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)}, {'in_channels': 1},
    {'num_stages': 2, 'out_indices': (0, 1)}, {'norm_cfg': {'type': 'GN', 'num_groups': 2}}, {'zero_init_residual': False},
], ids=str)
def test_builds_and_trains(family, settings):
    model = tiny(family, **settings)
    model.init_weights()
    levels = model(torch.randn(2, settings.get('in_channels', 3), 64, 64))
    channels, indices = 4 * FAMILIES[family]['base_channels'], settings.get('out_indices', (0, 1, 2, 3))
    sizes = (16, 8, 8, 8) if 'dilations' in settings else (16, 8, 4, 2)
    assert [tuple(level.shape) for level in levels] == [(2, channels * 2**i, sizes[i], sizes[i]) for i in indices]
    sum(level.square().mean() for level in levels).backward()
    reached = {'stem', *model.stage_names[:max(indices) + 1]}
    assert all(p.grad is not None for name, p in model.named_parameters() if name.split('.')[0] in reached)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@families
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages(family, frozen_stages):
    model = tiny(family, frozen_stages=frozen_stages)
    model.eval()
    model.train()
    parts = [model.stem, *(getattr(model, layer) for layer in model.stage_names)]
    for index, part in enumerate(parts):
        frozen = index <= frozen_stages
        assert all(p.requires_grad is not frozen for p in part.parameters())
        assert all(module.training is not frozen for module in part.modules())


@families
def test_norm_eval(family):
    model = tiny(family, norm_eval=True).train()
    assert not any(module.training for module in model.modules() if isinstance(module, _BatchNorm))
    assert model.layer1.training
    loss(model, torch.randn(1, 3, 64, 64)).backward()


@families
def test_with_cp_gives_the_same_gradients(family):
    plain, saving = tiny(family, norm_eval=True), tiny(family, norm_eval=True, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        loss(model.train(), x).backward()
    for (name, mine), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=name)


@families
@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
@pytest.mark.parametrize('plugin', [{'type': 'TiedSE'}, {'type': 'TiedGCB', 'ratio': 0.5}], ids=lambda plugin: plugin['type'])
def test_plugins(family, position, plugin):
    model = tiny(family, plugins=[{'cfg': plugin, 'stages': (False, True, False, True), 'position': position}])
    model.init_weights()
    counts = [{len(block.plugins.names[position]) for block in getattr(model, layer)} for layer in model.stage_names]
    assert counts == [{0}, {1}, {0}, {1}]
    plain = tiny(family, strict_checkpoint=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for block in (*model.layer2, *plain.layer2):
            block.last_norm.weight.fill_(1)
        mine, without = model.eval()(x), plain.eval()(x)
    assert torch.equal(mine[0], without[0])
    starts_as_identity = plugin['type'] == 'TiedGCB'
    assert torch.equal(mine[1], without[1]) is starts_as_identity
    loss(model.train(), x).backward()
    assert all(p.grad is not None for p in model.parameters())


@families
def test_state_dict_round_trip(family, tmp_path):
    model, other = tiny(family).eval(), tiny(family).eval()
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    other.load_state_dict(torch.load(tmp_path / 'weights.pth'))
    x = torch.randn(1, 3, 64, 64)
    for mine, theirs in zip(model(x), other(x), strict=True):
        assert torch.equal(mine, theirs)


@families
def test_mismatched_checkpoint(family, tmp_path):
    weights = tiny(family).state_dict()
    key = 'layer3.2.attention.fc1.weight' if 'SE' in family else 'layer3.2.entry.conv.weight'
    del weights[key]
    torch.save(weights, tmp_path / 'weights.pth')
    model = tiny(family, init_cfg={'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')})
    with pytest.raises(ValueError, match=re.escape(f'{family}: the checkpoint does not fit ({key} is missing);')):
        model.init_weights()


@families
def test_channels_last_and_batch_of_one(family):
    model = tiny(family).eval()
    x = torch.randn(3, 3, 64, 64)
    batch = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for level, other, one in zip(batch, last, model(x[1:2]), strict=True):
        torch.testing.assert_close(level, other, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(level[1:2], one, atol=1e-4, rtol=1e-4)


@families
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_registered_in_every_scope(family, scope):
    registry = pytest.importorskip(f'{scope}.registry').MODELS
    for name in (family, f'mmtied.{family}'):
        assert type(registry.build({'type': name, 'depth': 50, **FAMILIES[family]})) is getattr(backbones, family)


@pytest.mark.parametrize(('backbone', 'channels'), [
    *(({'type': family, 'depth': 50, 'out_indices': (3, ), **settings}, 32 * settings['base_channels'])
      for family, settings in FAMILIES.items()),
    ({'type': 'TiedEfficientNet', 'se_blocks': 4}, 1280),
], ids=lambda value: value['type'] if isinstance(value, dict) else '')
def test_mmpretrain_classifier(backbone, channels):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    from mmpretrain.structures import DataSample
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        classifier = registry.build({
            'type': 'ImageClassifier', 'backbone': backbone, 'neck': {'type': 'GlobalAveragePooling'},
            'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': channels, 'loss': {'type': 'CrossEntropyLoss'}}})
    classifier.init_weights()
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    value = classifier(torch.randn(2, 3, 64, 64), samples, mode='loss')['loss']
    value.backward()
    assert torch.isfinite(value)
    assert all(p.grad is not None for p in classifier.parameters())
    predictions = classifier.eval()(torch.randn(2, 3, 64, 64), samples, mode='predict')
    assert all(sample.pred_score.shape == (5, ) for sample in predictions)


@pytest.mark.parametrize('family', ['TiedSENet', 'TiedSEResNet'])
def test_every_block_has_attention(family):
    model = tiny(family, se_blocks=4)
    model.init_weights()
    layers = [module for module in model.modules() if isinstance(module, TiedSE)]
    assert len(layers) == 16
    assert {layer.fc1.num_blocks for layer in layers} == {4}
    linear = model.layer4[1].attention.fc2
    assert isinstance(linear, TFC)
    assert linear.bias.abs().max() == 0
    assert linear.weight.std().item() == pytest.approx((2 / linear.weight.shape[0])**0.5, rel=0.1)


def test_other_attention():
    model = tiny('TiedResNet', attention={'type': 'TiedGCB', 'ratio': 0.5})
    assert isinstance(model.layer1[0].attention, TiedGCB)
    model.init_weights()
    loss(model, torch.randn(2, 3, 64, 64)).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(('family', 'settings', 'message'), [
    *((family, {'depth': 34}, f'{family}: depth=34 has blocks of two 3x3 convolutions') for family in FAMILIES),
    *((family, {'plugins': [{'cfg': {'type': 'TiedSE'}, 'position': 'after_conv4'}]},
       f"{family}: plugin position 'after_conv4', expected one of after_conv1, after_conv2, after_conv3") for family in FAMILIES),
    ('TiedSENet', {'se_blocks': 3}, 'TiedSE: in_channels=256 is not divisible by num_blocks=3; use one of'),
    ('TiedSENet', {'se_blocks': 64}, 'TiedSE: squeeze_channels=32 is not divisible by num_blocks=64'),
    ('TiedSENet', {'se_ratio': 0}, 'TiedSE: ratio=0, expected a positive integer'),
    ('TiedResNet', {'attention': {'ratio': 4}}, "TiedResNet: attention={'ratio': 4} must be dict(type=..., ...)"),
    ('TiedSENet', {'splits': 3}, 'TiedSENet: no schedule of block numbers for splits=3; known: 2, 4, 6, 8'),
    ('TiedResNeXt', {'base_width': 40}, 'TiedResNeXt: no preset of groups for base_width=40; known: 64, 72, 36. Give'),
    ('TiedResNeXt', {'split_groups': 6}, 'TiedResNeXt: base_width=64 is not divisible by groups=6'),
    ('TiedResNeXt', {'split_blocks': (1, 2, 4, 16)}, 'TGC: in_channels=64 is not divisible by groups=8 times num_blocks=16'),
    ('TiedResNeXt', {'split_groups': 0}, 'TiedResNeXt: split_groups=0, expected a positive integer'),
    ('TiedResNeSt', {'conv_blocks': 3}, 'TGC: in_channels=64 is not divisible by groups=2 times num_blocks=3'),
    ('TiedResNeSt', {'entry_blocks': 5}, 'TBC: in_channels=256 is not divisible by num_blocks=5'),
    ('TiedResNeSt', {'radix': 0}, 'TiedResNeSt: radix=0, expected a positive integer'),
    ('tied_efficientnet', {'arch': 'b9'}, "TiedEfficientNet: arch='b9', expected one of b0, b1"),
    ('tied_efficientnet', {'se_blocks': 5}, 'TiedSE: in_channels=32 is not divisible by num_blocks=5'),
    ('tied_efficientnet', {'se_blocks': 0}, 'TiedEfficientNet: se_blocks=0, expected a positive integer'),
], ids=str)
def test_user_errors(family, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(backbones, family)(**settings)


@pytest.mark.parametrize('family', [*FAMILIES, 'tied_efficientnet'])
def test_misspelled_setting(family):
    name = 'TiedEfficientNet' if family == 'tied_efficientnet' else family
    with pytest.raises(TypeError, match=f'{name}: unexpected argument norm_evl; did you mean norm_eval\\?'):
        getattr(backbones, family)(norm_evl=True)
    with pytest.raises(TypeError, match=f'{name}: unexpected argument qqqqqq$'):
        getattr(backbones, family)(qqqqqq=True)


def test_misspelled_setting_of_subclass():
    with pytest.raises(TypeError, match='TiedResNeXt: unexpected argument split_gruops; did you mean split_groups?'):
        backbones.TiedResNeXt(split_gruops=4)


@pytest.mark.parametrize('memory_format', [None, 'contiguous', 'channels_last'])
def test_memory_format(memory_format):
    model = tiny('TiedResNet', memory_format=memory_format).eval()
    seen = []
    model.layer2[1].exit.conv.register_forward_hook(lambda conv, inputs, output: seen.append(output))
    x = torch.randn(2, 3, 64, 64)
    for given in (x, x.to(memory_format=torch.channels_last)):
        levels = model(given)
        inside = given.is_contiguous(memory_format=torch.channels_last) if memory_format is None else (
            memory_format == 'channels_last')
        assert seen.pop().is_contiguous(memory_format=torch.channels_last) is inside
        assert all(level.is_contiguous() for level in levels) is (memory_format is not None or not inside)
    with pytest.raises(ValueError, match="memory_format='nhwc', expected one of None, 'contiguous', 'channels_last'"):
        tiny('TiedResNet', memory_format='nhwc')


def test_efficientnet_settings(tmp_path):
    """mmpretrain's own settings still work with the attention replaced."""
    pytest.importorskip('mmpretrain')
    model = MODELS.build({'type': 'mmtied.TiedEfficientNet', 'frozen_stages': 2, 'norm_eval': True,
                          'out_indices': (2, 3, 4)})
    model.init_weights()
    model.train()
    levels = model(torch.randn(2, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    sum(level.square().mean() for level in levels).backward()
    layers = [module for module in model.modules() if isinstance(module, TiedSE)]
    assert len(layers) == 16
    assert not any(p.requires_grad for layer in model.layers[:2] for p in layer.parameters())
    assert model.layers[3][0].se.fc1.weight.grad is not None
    assert not any(module.training for module in model.modules() if isinstance(module, _BatchNorm))
    weights = model.state_dict()
    tied = backbones.tied_efficientnet(out_indices=(2, 3, 4))
    tied.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    for network in (model, tied):
        network.eval()
    for mine, theirs in zip(model(x), tied(x), strict=True):
        assert torch.equal(mine, theirs)
    del weights['layers.3.0.se.fc1.weight']
    with pytest.raises(ValueError, match=r'layers\.3\.0\.se\.fc1\.weight is missing'):
        tied.load_state_dict(weights, strict=False)


def test_efficientnet_returns_itself_and_pickles():
    pytest.importorskip('mmpretrain')
    model = backbones.tied_efficientnet()
    assert model.train() is model
    assert model.eval() is model
    x = torch.randn(1, 3, 64, 64)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other).__name__ == 'TiedEfficientNet'
        assert torch.equal(other(x)[-1], model(x)[-1])


def test_importing_mmtied_imports_neither_mmdet_nor_mmpretrain():
    """They are slow to import, and either may be missing."""
    code = 'import sys, mmtied; print([name for name in ("mmdet", "mmpretrain") if name in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
