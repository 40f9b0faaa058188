"""docs/plug_in.md: every config builds its model and trains on a small input."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.backbones import TiedResNeSt, TiedResNet
from mmtied.launch.config import load_config
from mmtied.layers import TBC
from mmtied.plugins import TiedGCB, TiedSE
from tests.helpers.detectors import two_images, use_small_heads
from tests.helpers.pages import named_configs, read_page
from tests.helpers.torch_versions import needs_dynamo_exporter

PAGE = read_page('plug_in.md')
SNIPPETS = named_configs(PAGE)
# Number of tied modules that each config must contain.
TIED = {
    'faster_rcnn_tiedr50_1x.py': {TiedResNet: 1},
    'retinanet_tiedr50s_1x.py': {TiedResNet: 1},
    'retinanet_effb0_tied_se_1x.py': {TiedResNet: 0, TiedSE: 16},
    'deformable_detr_tiedr50_50e.py': {TiedResNet: 1},
    'rtmdet_l_tiedr50_300e.py': {TiedResNet: 1},
    'tiedr50_in1k.py': {TiedResNet: 1},
    'faster_rcnn_r50_tied_fpn_1x.py': {TiedResNet: 0, TBC: 8},
    'rtmdet_s_tied_backbone_300e.py': {TiedResNet: 0, TBC: 30},
    'mask_rcnn_r50_tied_attention_1x.py': {TiedResNet: 0, TiedGCB: 4 + 6 + 3},
    'faster_rcnn_tiedr50_tied_se_1x.py': {TiedResNet: 1, TiedSE: 3 + 4 + 6 + 3},
}


def test_every_block_is_a_config():
    assert PAGE.count('```python') == len(SNIPPETS)
    assert set(SNIPPETS) == set(TIED)


@pytest.fixture
def config(request, tmp_path, monkeypatch, quick_init):
    """Write a snippet to a file and load it; one snippet names weights, which are written beside it."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    Path(request.param).write_text(SNIPPETS[request.param])
    if 'tiedr50s.pth' in SNIPPETS[request.param]:
        torch.save(TiedResNet(50, base_width=18).state_dict(), 'tiedr50s.pth')
    return load_config(request.param)


@pytest.mark.slow
@pytest.mark.parametrize('config', SNIPPETS, indirect=True)
def test_config_builds_and_trains(config, request):
    use_small_heads(config.model)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = revert_sync_batchnorm(MODELS.build(config.model))
        if 'torchvision:' not in str(config.model.backbone.get('init_cfg')):  # no downloads
            model.init_weights()
        model.train()
        batch = model.data_preprocessor(two_images(model, config.default_scope), True)
        losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    assert torch.isfinite(losses)
    for layer, count in TIED[request.node.callspec.params['config']].items():
        assert sum(isinstance(module, layer) for module in model.modules()) == count
    if isinstance(model.backbone, TiedResNet):
        from_scratch = config.model.backbone.get('init_cfg') is None
        assert all(p.requires_grad for p in model.backbone.parameters()) is from_scratch
        norms = [module for module in model.backbone.modules() if isinstance(module, _BatchNorm)]
        assert any(norm.training for norm in norms) is from_scratch
        assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize('config', ['retinanet_tiedr50s_1x.py'], indirect=True)
def test_pretrained_weights_are_loaded(config):
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    for name, value in torch.load('tiedr50s.pth').items():
        assert torch.equal(backbone.state_dict()[name], value), name


@pytest.mark.parametrize('config', ['deformable_detr_tiedr50_50e.py'], indirect=True)
def test_backbone_from_scratch_has_the_full_learning_rate(config):
    assert config.optim_wrapper.paramwise_cfg.custom_keys == {
        'backbone': {'lr_mult': 1.0}, 'sampling_offsets': {'lr_mult': 0.1}, 'reference_points': {'lr_mult': 0.1}}


@needs_dynamo_exporter
@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_onnx_block_exports_a_dynamic_batch(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TiedResNet, 'stage_blocks', {50: (1, 1, 1, 1)})
    names = {}
    exec(re.search(r'## ONNX\n.*?```\n(.*?)```', PAGE, re.DOTALL)[1], names)
    session = onnxruntime.InferenceSession('backbone.onnx', providers=['CPUExecutionProvider'])
    assert [level.name for level in session.get_outputs()] == ['c2', 'c3', 'c4', 'c5']
    levels = session.run(None, {'image': torch.rand(3, 3, 224, 224).numpy()})
    assert [level.shape for level in levels] == [(3, 256 * 2**i, 56 // 2**i, 56 // 2**i) for i in range(4)]


def test_fuse_conv_bn_fails_on_tied_layers():
    from mmcv.cnn.utils import fuse_conv_bn
    with pytest.raises(ValueError, match='TBC: weight of shape .* use mmtied.surgery.deploy instead of fuse_conv_bn'):
        fuse_conv_bn(TiedResNet(50, base_channels=8, split_blocks=(1, 2, 2, 4)))


@pytest.mark.parametrize('setting', ['dcn', 'stage_with_dcn', 'pretrained'])
def test_unsupported_settings_are_rejected(setting):
    with pytest.raises(TypeError, match=rf'\b{setting}\b'):
        MODELS.build({'type': 'mmtied.TiedResNet', 'depth': 50, setting: None})


def test_tied_resnest_trains_on_two_images_not_one():
    pytest.importorskip('mmpretrain')
    backbone = TiedResNeSt(50, base_channels=16)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        backbone(torch.zeros(1, 3, 32, 64))
    assert len(backbone(torch.zeros(2, 3, 32, 64))) == 4
    backbone = TiedResNeSt(50, base_channels=16, norm_eval=True).train()
    assert len(backbone(torch.zeros(1, 3, 32, 64))) == 4


@pytest.mark.parametrize('config', SNIPPETS, indirect=True)
def test_page_says_which_config_downloads_weights(config, request):
    name = request.node.callspec.params['config']
    said = 'download' in PAGE[:PAGE.index(f'# {name}')].rpartition('\n## ')[2]
    fetched = any(where in str(config.model) for where in ('torchvision:', 'https:'))
    second = name in ('faster_rcnn_tiedr50_tied_se_1x.py', 'rtmdet_s_tied_backbone_300e.py')  # of their sections; these have none
    assert fetched == (said and not second)


def test_output_channels(quick_init):
    """Build each backbone of the page's table from the settings printed there."""
    pytest.importorskip('mmpretrain')
    rows = re.findall(r'^\| [^|]+ \| `(type=.*?)`[^|]*\| ([\d, ]+) \|$', PAGE, re.MULTILINE)
    assert len(rows) == 7
    for settings, channels in rows:
        backbone = MODELS.build(eval(f'dict({settings})'))
        backbone.train(False)
        with torch.no_grad():
            levels = backbone(torch.zeros(1, 3, 64, 64))
        assert [level.shape[1] for level in levels] == [int(channel) for channel in channels.split(',')]
