"""Convert a classifier's checkpoint with tools/convert_backbone.py, and start a detector from it."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmtied.launch.checkpoints import check_backbone, use_backbone_checkpoint
from mmtied.launch.config import load_config

DEMO = 'configs/demo/mask_rcnn_tiedr50_demo.py'
THIN = {'base_channels': 16}  # as the demo's backbone


@pytest.fixture
def classifier():
    """Return a thin TiedResNet-50 classifier from its ImageNet config, with random weights everywhere."""
    pytest.importorskip('mmpretrain')
    cfg = load_config('configs/imagenet/tiedr50_in1k.py', {'model.backbone': THIN, 'model.head.in_channels': 512})
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-.1, .1)
    return model


@pytest.fixture
def checkpoint(classifier, tmp_path):
    """Save the classifier as mmengine does, with a history that plain weights_only=True refuses."""
    content = {'meta': {'epoch': 100}, 'state_dict': classifier.state_dict(), 'message_hub': {'loss': np.ones(3)},
               'ema_state_dict': {f'module.{key}': value + 1 for key, value in classifier.state_dict().items()}}
    torch.save(content, tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth'


def test_detector_starts_from_converted_classifier(run_tool, classifier, checkpoint, tmp_path):
    out = tmp_path / 'new/backbone.pth'
    code, printed, err = run_tool('convert_backbone.py', checkpoint, out)
    assert code == 0, err
    expected = classifier.backbone.state_dict()
    values = sum(value.numel() for value in expected.values()) / 1e6
    counted = sum(value.dim() > 0 for value in expected.values())  # without BatchNorm's counters
    assert printed == (f'{out}: kept {counted} tensors of the backbone, {values:.2f}M values\n'
                       f'dropped 2 tensors of {checkpoint}: head.fc.weight, head.fc.bias\n')
    converted = torch.load(out, weights_only=True)['state_dict']
    assert list(converted) == list(expected)
    assert all(torch.equal(converted[key], expected[key]) for key in expected)

    cfg = load_config(DEMO)
    use_backbone_checkpoint(cfg, str(out))
    pretrained = {'type': 'Pretrained', 'checkpoint': str(out)}
    assert cfg.model.backbone.init_cfg == pretrained
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg.model)
        by_hand = MODELS.build({**load_config(DEMO).model.backbone, 'init_cfg': pretrained})
    detector.init_weights()
    by_hand.init_weights()
    for backbone in (detector.backbone, by_hand):
        state = backbone.state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_weights_of_distributed_training(run_tool, classifier, tmp_path):
    """The prefix 'module.' is stripped by the conversion, and by a detector that loads the classifier's checkpoint itself."""
    source, out = tmp_path / 'wrapped.pth', tmp_path / 'backbone.pth'
    torch.save({f'module.{key}': value for key, value in classifier.state_dict().items()}, source)
    code, _, err = run_tool('convert_backbone.py', source, out)
    assert code == 0, err
    expected = classifier.backbone.state_dict()
    assert list(torch.load(out)['state_dict']) == list(expected)
    cfg = load_config(DEMO)
    use_backbone_checkpoint(cfg, str(source))
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg.model)
    detector.init_weights()
    check_backbone(detector, str(source))
    assert all(torch.equal(value, expected[key]) for key, value in detector.backbone.state_dict().items())


def test_rejects_folders(run_tool, checkpoint, tmp_path):
    code, _, err = run_tool('convert_backbone.py', tmp_path, tmp_path / 'out.pth')
    assert (code, err) == (2, f'error: checkpoint {tmp_path}: is a folder, expected a file\n')
    code, _, err = run_tool('convert_backbone.py', checkpoint, tmp_path)
    assert (code, err) == (2, f'error: {tmp_path} is a folder; name a file to write, such as {tmp_path}/backbone.pth\n')


def test_replaces_file_only_on_success(run_tool, checkpoint, tmp_path):
    out = tmp_path / 'backbone.pth'
    out.write_text('old')
    code, _, _ = run_tool('convert_backbone.py', 'nowhere.pth', out)
    assert code == 2
    assert out.read_text() == 'old'
    code, _, err = run_tool('convert_backbone.py', checkpoint, out)
    assert code == 0, err
    assert torch.load(out, weights_only=True)['state_dict']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['backbone.pth', 'classifier.pth']


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'no such file'),
    ('text', 'source.pth: not a readable checkpoint; expected a file that torch.save wrote\n'),
    ({'state_dict': {'backbone.a.weight': torch.zeros(1), 'backbone.b.weight': torch.tensor([1, float('nan')])}},
     '1 of 2 tensors of the backbone contain NaN or infinity (b.weight first)'),
    ({'meta': {}}, 'contains no weights'),
    ({'state_dict': {'head.fc.weight': torch.zeros(1)}}, 'no weights named backbone.* (the first is head.fc.weight)'),
    ({'stem.conv.weight': torch.zeros(1)}, "a backbone's own weights need no conversion"),
])
def test_user_errors_exit_with_2(run_tool, tmp_path, content, message):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'
    if isinstance(content, str):
        source.write_text(content)
    elif content is not None:
        torch.save(content, source)
    code, _, err = run_tool('convert_backbone.py', source, out)
    assert code == 2
    assert err.count('\n') == 1
    assert err.startswith('error: ')
    assert message in err
    assert not out.exists()


def test_source_is_not_overwritten(run_tool, checkpoint):
    before = checkpoint.read_bytes()
    code, _, err = run_tool('convert_backbone.py', checkpoint, checkpoint.parent / '.' / checkpoint.name)
    assert code == 2
    assert 'is the classifier itself; name another file to write' in err
    assert checkpoint.read_bytes() == before
