"""Run tools/tie.py on a detector of mmdet, and load its output."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmtied.launch.config import load_config
from mmtied.layers import TBC
from tests.helpers.tools import run_in_process

CONFIG = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(base_channels=16, stem_channels=16, init_cfg=None),
             neck=dict(in_channels=[16, 32, 64, 128], out_channels=16), bbox_head=dict(in_channels=16, feat_channels=16))
'''


@pytest.fixture
def run(monkeypatch, capfd):
    return lambda *arguments: run_in_process('tie.py', arguments, monkeypatch, capfd)


def build(path, *options):
    cfg = load_config(str(path), options or None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.fixture
def trained(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'config.py').write_text(CONFIG)
    torch.save({'state_dict': build(tmp_path / 'config.py').state_dict()}, tmp_path / 'model.pth')
    return tmp_path / 'config.py', tmp_path / 'model.pth'


def test_written_weights_load_into_the_config_that_the_tool_names(run, trained, tmp_path):
    config, checkpoint = trained
    code, printed, err = run(config, checkpoint, tmp_path / 'tied.pth')
    assert code == 0, err
    assert printed.startswith('19 layers tied: ')
    assert "model.backbone.conv_cfg={'type': 'TBC', 'num_blocks': 2, 'indivisible': 'untie'}" in printed
    config.write_text(CONFIG.replace('init_cfg=None', "init_cfg=None, conv_cfg=dict(type='TBC', indivisible='untie')"))
    model = build(config)
    weights = torch.load(tmp_path / 'tied.pth', weights_only=True)['state_dict']
    model.load_state_dict(weights)
    tied = model.backbone.layer4[1].conv2
    assert type(tied) is TBC
    dense = torch.load(checkpoint, weights_only=True)['state_dict']['backbone.layer4.1.conv2.weight']
    torch.testing.assert_close(tied.weight, (dense[:64, :64] + dense[64:, 64:]) / 2)


def test_some_layers(run, trained, tmp_path):
    config, checkpoint = trained
    code, printed, err = run(config, checkpoint, tmp_path / 'tied.pth', '--layers', 'neck.*.conv', '--num-blocks', 4)
    assert code == 0, err
    assert 'no backbone conv_cfg ties exactly these layers' in printed
    assert torch.load(tmp_path / 'tied.pth', weights_only=True)['meta']['tied'][0] == 'neck.lateral_convs.0.conv'


@pytest.mark.parametrize(('options', 'message'), [
    (['--num-blocks', '0'], 'tie: num_blocks=0'),
    (['--layers', 'head.*'], "tie: 'head.*' matches no layer that num_blocks=2 can tie; use one of backbone.layer1.0.conv1, "),
    (['--error-budget', '0'], 'is not written: no layer can be tied within an error budget of 0.0'),
])
def test_mistakes_are_one_line_and_write_nothing(run, trained, tmp_path, options, message):
    config, checkpoint = trained
    code, _, err = run(config, checkpoint, tmp_path / 'tied.pth', *options)
    assert code == 2
    assert err.count('error: ') == 1
    assert message in err
    assert not (tmp_path / 'tied.pth').exists()
