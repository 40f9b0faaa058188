"""TiedResNet: the published sizes, the structure, mmdet's settings, checkpoints, and error messages."""

import copy
import pickle
import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.backbones import TiedResNet
from mmtied.backbones.tied_resnet import choose_split_blocks
from mmtied.layers import TBC

HEAD = 2048 * 1000 + 1000  # the ImageNet classifier's last layer, which published counts include

# Millions, as printed in the specification of the structure, and the exact counts behind them.
PUBLISHED_SIZES = [
    ({'depth': 50}, 21.95, 21952280),
    ({'depth': 101}, 39.29, 39286296),
    ({'depth': 50, 'base_width': 18}, 13.92, 13921358),
    ({'depth': 101, 'base_width': 18}, 24.00, 24000318),
    ({'splits': 2, 'base_width': 48}, 23.64, 23640392),
    ({'splits': 6, 'base_width': 24}, 23.24, 23239418),
    ({'splits': 8, 'base_width': 18}, 23.53, 23525141),
    ({'mixer_fusion': 'concat'}, 27.62, 27622232),
]


def tiny(**settings) -> TiedResNet:
    """Build a TiedResNet-50 with an eighth of the channels, which runs quickly."""
    return TiedResNet(**{'depth': 50, 'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4), **settings})


def count_by_hand(depth: int = 50, splits: int = 4, w: int = 32, blocks: tuple = (1, 2, 4, 8)) -> int:
    """Count the parameters of the specified structure by arithmetic (sum mixer, B = 2 at entry and shortcut)."""
    total, channels = 3 * 64 * 49 + 2 * 64, 64
    for planes, repeats in zip((64, 128, 256, 512), {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth], strict=True):
        width, out = w * planes // 64, 4 * planes
        wide, mixed = width * splits, planes // 2
        for index in range(repeats):
            total += channels * wide // 4 + 2 * wide
            total += sum((width // b)**2 * 9 for b in blocks) + 2 * wide
            total += width * width + 2 * width + width * mixed + 2 * mixed
            total += (wide + mixed) * out + 2 * out
            total += (channels * out // 4 + 2 * out) if index == 0 else 0
            channels = out
    return total + HEAD


@pytest.mark.parametrize(('settings', 'millions', 'exact'), PUBLISHED_SIZES, ids=str)
def test_parameter_counts(settings, millions, exact):
    count = sum(p.numel() for p in TiedResNet(**settings).parameters()) + HEAD
    assert count == exact
    assert f'{count / 1e6:.2f}' == f'{millions:.2f}'


def test_parameter_counts_by_hand():
    for depth in (50, 101):
        assert count_by_hand(depth) == sum(p.numel() for p in TiedResNet(depth).parameters()) + HEAD
        small = TiedResNet(depth, base_width=18)
        assert count_by_hand(depth, w=18, blocks=(1, 2, 2, 3)) == sum(p.numel() for p in small.parameters()) + HEAD


def test_block_weight_shapes():
    """The stage-1 example of the specification: 63 440 weights and 1152 of BatchNorm."""
    block = TiedResNet(50).layer1[1]
    assert block.entry.conv.weight.numel() == 8192
    assert [conv.weight.numel() for conv in block.splits.convs] == [9216, 2304, 576, 144]
    assert [block.mixer.mix.conv.weight.numel(), block.mixer.reduce.conv.weight.numel()] == [1024, 1024]
    assert block.exit.conv.weight.numel() == 40960
    assert sum(p.numel() for p in block.parameters() if p.dim() > 1) == 63440
    assert sum(p.numel() for p in block.parameters() if p.dim() == 1) == 1152
    assert isinstance(block.shortcut, nn.Identity)


@pytest.mark.parametrize(('splits', 'base_width', 'expected'), [
    (4, 32, (1, 2, 4, 8)), (2, 48, (1, 2)), (6, 24, (1, 1, 2, 4, 8, 8)), (8, 18, (1, 1, 1, 1, 2, 2, 3, 6)), (4, 18, (1, 2, 2, 3)),
    (4, 20, (1, 2, 4, 5)),
])
def test_split_schedules(splits, base_width, expected):
    assert choose_split_blocks(splits, base_width) == expected


def test_block_matches_description():
    """The bottleneck recomputed step by step from the specification, with plain functions on the block's own weights."""
    block = TiedResNet(50).layer2[0].eval()
    for module in block.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -.1, .1)
            nn.init.uniform_(module.running_var, .5, 1.5)
            nn.init.uniform_(module.weight, .5, 1.5)
    x = torch.randn(2, 256, 10, 10)

    def tied(x, weight, num_blocks, **kwargs):
        return torch.cat([nn.functional.conv2d(part, weight, **kwargs) for part in x.chunk(num_blocks, 1)], 1)

    entry = block.entry.norm(tied(x, block.entry.conv.weight, 2)).relu()
    parts = [tied(part, conv.weight, b, stride=2, padding=1)
             for part, conv, b in zip(entry.chunk(4, 1), block.splits.convs, (1, 2, 4, 8), strict=True)]
    norm = block.splits.norm
    statistics = zip(*[values.chunk(4) for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)], strict=True)
    parts = [nn.functional.batch_norm(part, *values).relu() for part, values in zip(parts, statistics, strict=True)]
    mixed = parts[0] + parts[1] + parts[2] + parts[3]
    for conv in (block.mixer.mix, block.mixer.reduce):
        mixed = conv.norm(nn.functional.conv2d(mixed, conv.conv.weight)).relu()
    out = block.exit.norm(nn.functional.conv2d(torch.cat([*parts, mixed], 1), block.exit.conv.weight))
    out = (out + block.shortcut.norm(tied(x, block.shortcut.conv.weight, 2, stride=2))).relu()
    torch.testing.assert_close(block(x), out, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('mode', [True, False])
def test_forward_shapes(mode):
    model = TiedResNet(50, base_width=18).train(mode)
    levels = model(torch.randn(2, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 256, 16, 24), (2, 512, 8, 12), (2, 1024, 4, 6), (2, 2048, 2, 3)]


@pytest.mark.parametrize('settings', [
    {'out_indices': (3, )}, {'out_indices': (1, 2)}, {'num_stages': 3, 'out_indices': (2, ), 'strides': (1, 2, 2)},
    {'style': 'caffe'}, {'deep_stem': True}, {'avg_down': True}, {'strides': (1, 2, 1, 1), 'dilations': (1, 1, 2, 4)},
    {'mixer_fusion': 'concat'}, {'mixer_fusion': 'none'}, {'mixer_out_ratio': 1.0}, {'stem_channels': 16}, {'in_channels': 1},
    {'norm_cfg': {'type': 'GN', 'num_groups': 2}}, {'conv_cfg': {'type': 'ConvWS'}}, {'zero_init_residual': False},
    {'entry_blocks': 4, 'shortcut_blocks': 1}, {'depth': 101}, {'depth': 152},
], ids=str)
def test_settings_train_with_expected_strides(settings):
    model = tiny(**settings)
    model.init_weights()
    levels = model(torch.randn(2, settings.get('in_channels', 3), 64, 64))
    strides = settings.get('strides', (1, 2, 2, 2))
    sizes, size = [], 16
    for stride in strides:
        size //= stride
        sizes.append(size)
    indices = settings.get('out_indices', (0, 1, 2, 3))
    assert [level.shape[1:] for level in levels] == [(32 * 2**i, sizes[i], sizes[i]) for i in indices]
    sum(level.square().mean() for level in levels).backward()
    reached = {f'layer{stage + 1}' for stage in range(max(indices) + 1)} | {'stem'}
    assert all(p.grad is not None for name, p in model.named_parameters() if name.split('.')[0] in reached)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages(frozen_stages):
    model = tiny(frozen_stages=frozen_stages)
    for mode in (True, False, True):
        model.train(mode)
        parts = [model.stem, model.layer1, model.layer2, model.layer3, model.layer4]
        for index, part in enumerate(parts):
            frozen = index <= frozen_stages
            assert all(p.requires_grad is not frozen for p in part.parameters())
            assert all(m.training is (mode and not frozen) for m in part.modules())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if frozen_stages < 4:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        sum(level.square().mean() for level in model(torch.randn(2, 3, 64, 64))).backward()
        optimizer.step()
    changed = {key.split('.')[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == ({'stem', 'layer1', 'layer2', 'layer3', 'layer4'} - {'stem', *model.stage_names[:max(frozen_stages, 0)]}
                       if frozen_stages >= 0 else {'stem', *model.stage_names})


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
def test_plugins(position):
    plugins = [{'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'stages': (False, True, True, False), 'position': position},
               {'cfg': {'type': 'NonLocal2d', 'reduction': 2},
                'stages': (False, False, True, False), 'position': position}]
    plain = tiny(strict_checkpoint=False).eval()
    model = tiny(plugins=plugins).eval()
    counts = [[len(block.plugins.names[position]) for block in getattr(model, layer)] for layer in model.stage_names]
    assert [set(stage) for stage in counts] == [{0}, {1}, {2}, {0}]
    assert sum(p.numel() for p in model.parameters()) > sum(p.numel() for p in plain.parameters())
    model.init_weights()
    x = torch.randn(2, 3, 64, 64)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model(x)[0], plain(x)[0])
    assert model(x)[-1].shape == plain(x)[-1].shape


def test_zero_init_residual_starts_blocks_as_identity():
    model = tiny()
    model.init_weights()
    x = torch.randn(2, 32, 8, 8).relu()
    torch.testing.assert_close(model.layer1[1](x), x)


def test_initialization_uses_the_thin_fan_out():
    model = TiedResNet(50)
    model.init_weights()
    for conv in (model.layer3[1].entry.conv, model.layer4[0].splits.convs[0], model.layer4[0].splits.convs[2]):
        assert isinstance(conv, TBC)
        fan_out = conv.weight.shape[0] * conv.weight[0, 0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_out)**0.5, rel=0.05)


def test_registered_by_scope_and_by_name():
    import mmtied  # noqa: F401
    by_scope = MODELS.build(ConfigDict(type='mmtied.TiedResNet', depth=50))
    by_name = MODELS.build({'type': 'TiedResNet', 'depth': 50})
    assert type(by_scope) is type(by_name) is TiedResNet


@pytest.mark.parametrize('key', ['stem.conv.weight', 'layer3.2.splits.convs.1.weight'])
def test_mismatched_checkpoint(tmp_path, key):
    path = tmp_path / 'weights.pth'
    weights = tiny().state_dict()

    def load(**settings):
        model = tiny(init_cfg={'type': 'Pretrained', 'checkpoint': str(path)}, **settings)
        model.init_weights()
        return model

    torch.save(weights, path)
    assert torch.equal(load().state_dict()[key], weights[key])
    torch.save({**weights, key: torch.zeros(1, 2, 3)}, path)
    with pytest.raises(ValueError, match=re.escape(f'{key} is (1, 2, 3), expected')):
        load()
    torch.save({k: v for k, v in weights.items() if k != key}, path)
    with pytest.raises(ValueError, match=re.escape(f'{key} is missing')):
        load()
    assert torch.equal(load(strict_checkpoint=False).state_dict()['layer1.0.entry.conv.weight'],
                       weights['layer1.0.entry.conv.weight'])
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, path)
    with pytest.raises(ValueError, match="add prefix='backbone.' to init_cfg"):
        load()


def test_untied_checkpoint_in_detector():
    """load_from with a plain ResNet's weights raises an error, where mmengine only warns."""
    from mmdet.models.backbones import ResNet
    detector = nn.ModuleDict({'backbone': tiny(), 'head': nn.Linear(2, 2)})
    weights = {f'backbone.{k}': v for k, v in ResNet(50).state_dict().items()}
    with pytest.raises(ValueError, match=r'TiedResNet: the checkpoint does not fit \(.* is missing; .* and \d+ more\)'):
        detector.load_state_dict(weights, strict=False)
    detector.load_state_dict({'head.weight': torch.zeros(2, 2), 'head.bias': torch.zeros(2)}, strict=False)


def test_pickles_and_copies():
    model = tiny().eval()
    x = torch.randn(1, 3, 64, 64)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(x)[-1], model(x)[-1])


def test_plugin_postfix_matches_mmdet():
    plugins = [{'cfg': {'type': 'ContextBlock', 'ratio': 0.25, 'postfix': '_mine'}, 'position': 'after_conv3'}]
    assert tiny(plugins=plugins).layer1[0].plugins.names['after_conv3'] == ['context_block_mine']


def test_trainable_plugin_weights_may_be_missing():
    """A plain network's weights fit a network with new plugins, unless these would be frozen untrained."""
    def load(stages, **settings):
        plugins = [{'cfg': {'type': 'TiedSE', 'num_blocks': 4}, 'position': 'after_conv3', 'stages': stages}]
        return tiny(plugins=plugins, **settings).load_state_dict(tiny().state_dict(), strict=False)

    everywhere, later = (True, ) * 4, (False, True, True, True)
    for incompatible in (load(everywhere), load(everywhere, frozen_stages=0), load(later, frozen_stages=1),
                         load(everywhere, frozen_stages=1, strict_checkpoint=False)):
        assert incompatible.missing_keys
        assert all('.plugins.' in key for key in incompatible.missing_keys)
    for stages, frozen_stages in ((everywhere, 1), (later, 2)):
        with pytest.raises(ValueError, match=r'tied_se_1\.fc1\.weight is missing and would be frozen untrained; '):
            load(stages, frozen_stages=frozen_stages)


SUPERSETS = {
    'depth 101 into 50': ({'depth': 101}, 'layer3.6.entry.conv.weight'),
    'attention into none': ({'attention': {'type': 'TiedSE', 'num_blocks': 4}}, 'layer1.0.attention.fc1.weight'),
    'GCB into none': ({'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'position': 'after_conv3'}]},
                      'layer1.0.plugins.context_block_1.'),
}


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('case', SUPERSETS)
def test_weights_of_larger_network(case, prefix, tmp_path):
    """The checkpoint has all of our weights, and others that its network depended on."""
    settings, key = SUPERSETS[case]
    weights = {f'{prefix}{name}': value for name, value in tiny(**settings).state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'weights.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')}
    if prefix:
        init_cfg['prefix'] = prefix
    with pytest.raises(ValueError, match=rf'TiedResNet: the checkpoint does not fit \({re.escape(key)}.* is not in this network'):
        tiny(init_cfg=init_cfg).init_weights()
    tiny(init_cfg=init_cfg, strict_checkpoint=False).init_weights()
    detector = nn.ModuleDict({'backbone': tiny(), 'head': nn.Linear(2, 2)})
    whole = {f'backbone.{name.removeprefix(prefix)}': value for name, value in weights.items()}
    with pytest.raises(ValueError, match=f'{re.escape(key)}.* is not in this network'):
        load_state_dict(detector, whole, strict=False)


def test_ignores_weights_of_absent_parts():
    """Ignored are a classifier's head and stages after the last one that a detector uses."""
    weights = tiny().state_dict()
    truncated = tiny(num_stages=2, out_indices=(0, 1))
    truncated.load_state_dict({**weights, 'fc.weight': torch.zeros(1)}, strict=False)
    assert torch.equal(truncated.layer2[3].exit.conv.weight, weights['layer2.3.exit.conv.weight'])
    weights['layer2.0.entry.bn.other.num_batches_tracked'] = torch.zeros(1)
    tiny().load_state_dict(weights, strict=False)
    del weights['stem.bn.num_batches_tracked']
    tiny().load_state_dict(weights, strict=False)


def test_random_weights_are_logged_once(monkeypatch):
    said = []
    monkeypatch.setattr('mmtied.backbones.resnet_base.print_log', lambda message, **_: said.append(message))
    model = tiny(frozen_stages=1)
    model.init_weights()
    model.init_weights()
    assert [message for message in said if 'no pretrained weights' in message] == said[:1]
    assert 'freezes random weights' in said[1]


@pytest.mark.parametrize(('settings', 'message'), [
    ({'depth': 34}, 'TiedResNet: depth=34 .*; expected one of 50, 101, 152'),
    ({'split_blocks': (1, 2, 3, 4)}, 'in_channels=32 is not divisible by num_blocks=3; use one of 1, 2, 4'),
    ({'split_blocks': (1, 2)}, r'split_blocks=\(1, 2\) has 2 values, expected one for each of the 4 splits'),
    ({'splits': 3}, 'no schedule of block numbers for splits=3; known: 2, 4, 6, 8'),
    ({'entry_blocks': 3}, 'in_channels=64 is not divisible by num_blocks=3'),
    ({'base_width': 18, 'base_channels': 16}, 'base_width=18 at 16 base channels gives a width of 4.5'),
    ({'mixer_fusion': 'max'}, "mixer_fusion='max', expected one of sum, concat, none"),
    ({'mixer_out_ratio': 0}, 'mixer_out_ratio=0, expected a number above 0'),
    ({'base_width': 0}, 'base_width=0, expected a positive integer'),
    ({'style': 'tensorflow'}, "style='tensorflow', expected one of 'pytorch', 'caffe'"),
    ({'num_stages': 5}, 'num_stages=5, expected one of 1, 2, 3, 4'),
    ({'num_stages': 2}, r'out_indices=\(0, 1, 2, 3\), expected some of \(0, 1\)'),
    ({'frozen_stages': 5}, 'frozen_stages=5, expected one of -1, 0, 1, 2, 3, 4'),
    ({'strides': (1, 2)}, r'strides=\(1, 2\) has 2 values'),
    ({'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'position': 'after_conv4'}]},
     "plugin position 'after_conv4', expected one of after_conv1, after_conv2, after_conv3"),
    ({'plugins': [{'cfg': {'type': 'ContextBlock'}, 'position': 'after_conv1', 'stages': (True, )}]}, 'has 1 values'),
    ({'plugins': {'cfg': {'type': 'TiedSE'}}}, r"plugins=\{.*\}, expected a tuple or a list, for example \(\{'cfg'"),
    ({'plugins': [{'cfg': {'type': 'TiedSee'}, 'position': 'after_conv1'}]}, "plugin type 'TiedSee' is not registered"),
    ({'attention': {'type': 'TiedSee'}}, "attention type 'TiedSee' is not registered"),
    ({'norm_cfg': {'type': 'BM'}}, "norm_cfg type 'BM' is not registered"),
    ({'out_indices': 3}, r'out_indices=3, expected a tuple or a list, for example \(3, \)'),
    ({'split_blocks': 4}, r'split_blocks=4, expected a tuple or a list'),
    ({'mixer_out_ratio': 'a'}, "mixer_out_ratio='a', expected a number above 0"),
    ({'mixer_out_ratio': 0.001}, 'mixer_out_ratio=0.001 of 64 base channels leaves no channels, expected at least 0.015625'),
    ({'depth': [50]}, r'depth=\[50\], expected one of 50, 101, 152'),
    ({'strides': (1, 0, 2, 2)}, 'strides=0, expected a positive integer'),
    ({'in_channels': 0}, 'in_channels=0, expected a positive integer'),
    ({'plugins': [{'position': 'after_conv1'}]}, r'must be dict\(cfg=dict\(type=\.\.\.\)'),
])
def test_user_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        TiedResNet(**settings)
