"""Run tools/deploy.py: the file reproduces the outputs of the model, or is not written."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

import mmtied.launch.convert as launch
from mmtied.launch.config import load_config
from mmtied.launch.convert import runnable_parts
from mmtied.surgery import deploy
from tests.helpers.tools import ROOT, run_in_process

DETECTOR = f'''
_base_ = {str(ROOT / 'configs/mask_rcnn_tiedr50_2x.py')!r}
model = dict(backbone=dict(base_channels=16, num_stages=2, out_indices=(0, 1)),
             neck=dict(in_channels=[64, 128], out_channels=16, num_outs=2, norm_cfg=dict(type='BN')),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_head=dict(in_channels=16, fc_out_channels=16),
                           mask_head=dict(in_channels=16, conv_out_channels=16)))
'''
CLASSIFIER = f'''
_base_ = {str(ROOT / 'configs/imagenet/tiedr50_in1k.py')!r}
model = dict(backbone=dict(base_channels=16, num_stages=2, out_indices=(1, )), head=dict(in_channels=128, num_classes=10))
'''


@pytest.fixture
def run(monkeypatch, capfd):
    return lambda *arguments: run_in_process('deploy.py', arguments, monkeypatch, capfd)


@pytest.fixture
def trained(request, tmp_path):
    """Return a config, a checkpoint with its own statistics, and the model with these weights; 'gray' has one input channel."""
    kind = getattr(request, 'param', 'detector')
    if kind == 'classifier':
        pytest.importorskip('mmpretrain')
    (tmp_path / 'config.py').write_text(CLASSIFIER if kind == 'classifier' else DETECTOR)
    if kind == 'gray':
        with (tmp_path / 'config.py').open('a') as file:
            file.write("model['backbone']['in_channels'] = 1\n")
    cfg = load_config(str(tmp_path / 'config.py'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'model.pth')
    return tmp_path / 'config.py', tmp_path / 'model.pth', model.eval()


@pytest.mark.parametrize(('trained', 'names'), [('detector', 'backbone and neck'), ('classifier', 'backbone and neck and head')],
                         indirect=['trained'])
def test_torchscript_matches_model(run, trained, names, tmp_path):
    config, checkpoint, model = trained
    out = tmp_path / 'new/deployed.pt'
    code, printed, err = run(config, checkpoint, out, '--shape', 64, 96)
    assert code == 0, err
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got = torch.jit.load(str(out))(image)
        expected = model(image) if names.endswith('head') else model.extract_feat(image)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    first, *counts, last = printed.splitlines()[-4:]
    assert first == f'{out}: {names} as torchscript'
    parts = runnable_parts(model, names.endswith('head'))
    both = (parts, deploy(parts))
    assert counts == ['parameters: {:,} before, {:,} after'.format(*(sum(p.numel() for p in m.parameters()) for m in both)),
                      'modules: {:,} before, {:,} after'.format(*(len(list(m.modules())) for m in both))]
    assert last.startswith('largest difference of outputs: ')


@pytest.mark.parametrize('trained', ['gray'], indirect=True)
def test_grey_images(run, trained, tmp_path):
    config, checkpoint, model = trained
    code, _, err = run(config, checkpoint, tmp_path / 'gray.pt', '--shape', 64, 64)
    assert code == 0, err
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(torch.jit.load(tmp_path / 'gray.pt')(image), model.extract_feat(image), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_state_dict_fits_deployed_backbone(run, trained, tmp_path):
    config, checkpoint, model = trained
    code, printed, err = run(config, checkpoint, tmp_path / 'state.pth', '--format', 'state', '--backbone-only',
                             '--shape', 64, 64)
    assert code == 0, err
    assert 'state.pth: backbone as state' in printed
    weights = torch.load(tmp_path / 'state.pth', weights_only=True)['state_dict']
    fresh = MODELS.build(load_config(str(config)).model.backbone)
    deployed = deploy(torch.nn.ModuleDict({'backbone': fresh}))
    deployed.load_state_dict(weights)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(deployed['backbone'](image), model.backbone(image), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_onnx_accepts_other_batches_and_sizes(run, trained, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    config, checkpoint, model = trained
    out = tmp_path / 'deployed.onnx'
    code, _, err = run(config, checkpoint, out, '--shape', 64, 64, '--dynamic-size',  # .onnx implies --format onnx
                       '--cfg-options', 'model.backbone.frozen_stages=-1')
    assert code == 0, err
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    named, = session.get_inputs()
    assert (named.name, named.shape) == ('image', ['batch', 3, 'height', 'width'])
    assert [(level.name, level.shape[:2]) for level in session.get_outputs()] == [
        ('neck_0', ['batch', 16]), ('neck_1', ['batch', 16])]
    image = torch.randn(3, 3, 96, 160)
    with torch.no_grad():
        for mine, theirs in zip(session.run(None, {'image': image.numpy()}), model.extract_feat(image), strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('off_by', [1., float('nan')])
def test_mismatched_outputs_are_not_written(run, trained, tmp_path, monkeypatch, off_by):
    def wrong(model):
        deployed = deploy(model)
        next(parameter for name, parameter in deployed.named_parameters() if name.endswith('bias')).data += off_by
        return deployed

    monkeypatch.setattr(launch, 'deploy', wrong)
    out = tmp_path / 'deployed.pt'
    out.write_text('old')
    code, _, err = run(*trained[:2], out, '--shape', 64, 64)
    assert code == 2
    assert err.splitlines()[-1].startswith(f'error: {out} is not written: outputs differ by up to ')
    assert out.read_text() == 'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'deployed.pt', 'model.pth']


@pytest.mark.parametrize(('change', 'message'), [
    ({'checkpoint': 'nowhere.pth'}, 'checkpoint nowhere.pth: no such file'),
    ({'config': 'nowhere.py'}, 'config nowhere.py not found'),
    ({'out': '.'}, '. is a folder; name a file to write, such as deployed.pt'),
    ({'out': 'model.pth'}, 'model.pth is the checkpoint itself; name another file to write'),
    ({'out': 'out.onnx', 'more': ['--format', 'torchscript']}, "deploy: out.onnx with format 'torchscript'; use format onnx"),
    ({'more': ['--batch', 0]}, 'deploy: batch=0, expected a positive integer'),
    ({'more': ['--shape', 64, -1]}, 'deploy: width=-1, expected a positive integer'),
    ({'more': ['--cfg-options', 'model.backbone.base_channels=32']},
     "checkpoint model.pth: the checkpoint does not fit the config's"),
])
def test_user_errors_exit_with_2(run, trained, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    files = {'config': 'config.py', 'checkpoint': 'model.pth', 'out': 'out.pt', **change}
    before = (tmp_path / 'model.pth').read_bytes()
    code, _, err = run(files['config'], files['checkpoint'], files['out'], *change.get('more', []))
    assert code == 2
    assert err.splitlines()[-1].startswith(f'error: {message}')
    assert (tmp_path / 'model.pth').read_bytes() == before
    assert not (tmp_path / 'out.pt').exists()
