"""Run tools/train.py and tools/test.py end to end, and with user errors."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmtied.backbones import TiedResNet
from mmtied.launch.checkpoints import check_model
from mmtied.launch.config import load_config

ROOT = Path(__file__).parents[2]
DEMO = 'configs/demo/mask_rcnn_tiedr50_demo.py'
THIN = {'model.backbone': {'base_channels': 16}, 'model.neck': {'in_channels': [64, 128, 256, 512], 'out_channels': 16},
        'model.bbox_head': {'in_channels': 16, 'feat_channels': 16, 'stacked_convs': 1}}


@pytest.mark.slow
def test_train_resume_test_and_dump(run_tool, tiny_options, tmp_path):
    """Train an epoch, resume for another, test the checkpoint with predictions written and drawn."""
    work_dir = tmp_path / 'work'
    code, out, err = run_tool('train.py', DEMO, '--work-dir', work_dir, *tiny_options)
    assert code == 0, err
    assert out.count('no pretrained weights in init_cfg') == 1
    report = json.loads((work_dir / 'occlusion/report.json').read_text())
    assert report['bbox']['all']['images'] == report['segm']['all']['images'] == 4
    assert (work_dir / 'epoch_1.pth').exists()

    code, out, err = run_tool('train.py', DEMO, '--work-dir', work_dir, '--resume', *tiny_options, 'train_cfg.max_epochs=2')
    assert code == 0, err
    assert 'resumed epoch: 1' in out
    assert (work_dir / 'epoch_2.pth').exists()

    code, out, err = run_tool('test.py', DEMO, work_dir / 'epoch_2.pth', '--work-dir', work_dir, '--out', tmp_path / 'out.pkl',
                              '--show-dir', 'shown', *tiny_options)
    assert code == 0, err
    with (tmp_path / 'out.pkl').open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert len(list(work_dir.glob('*/shown/*'))) == 4


@pytest.mark.slow
def test_backbone_checkpoint_freezes_like_mmdet(run_tool, tiny_options, tmp_path):
    """Start the backbone from a classifier's checkpoint; stem, stage 1 and BatchNorm's statistics stay frozen."""
    trained = TiedResNet(50, base_channels=16)
    trained.init_weights()
    weights = {f'backbone.{key}': value + .01 * (value.dim() == 1) for key, value in trained.state_dict().items()}
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'classifier.pth')
    code, out, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, '--backbone-checkpoint', tmp_path / 'classifier.pth',
                              '--no-validate', *tiny_options)
    assert code == 0, err
    assert 'no pretrained weights' not in out
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    frozen = [key for key in weights if key.startswith(('backbone.stem', 'backbone.layer1')) or 'running' in key]
    assert len(frozen) > 100
    assert all(torch.equal(after[key], weights[key]) for key in frozen)
    assert not torch.equal(after['backbone.layer4.0.exit.conv.weight'], weights['backbone.layer4.0.exit.conv.weight'])


def one_line(err: str) -> str:
    """Return the message of a tool; assert that it is one line without a traceback."""
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, err
    assert 'Traceback' not in err
    return lines[0]


@pytest.mark.parametrize(('arguments', 'message'), [
    (['configs/mask_rcnn_tiedr50_2x.py'],
     'error: train data: data/coco/annotations/instances_train2017.json not found; val data: '
     'data/coco/annotations/instances_val2017.json not found. Put COCO 2017 there (train2017/, val2017/, '
     'annotations/ from cocodataset.org), or try the demo data instead: mmtied shapes data/occluded_shapes, '),
    (['configs/nowhere.py'], 'error: config configs/nowhere.py not found'),
    (['README.md'], 'is not a config file; expected a .py file'),
    (['mmdet::nowhere/nothing.py'], 'error: config mmdet::nowhere/nothing.py cannot be read: '),
    (['mmyolo::yolo/yolo.py'], 'error: the config mmyolo::yolo/yolo.py needs mmyolo, which is not installed'),
    ([DEMO, '--cfg-options', 'max_epochs'], 'error: --cfg-options max_epochs: expected KEY=VALUE'),
    ([DEMO, '--cfg-options', "model.backbone.plugins=[dict(cfg=dict(type='TiedSE'), position='after_conv3')]"],
     "position='after_conv3')]: dicts cannot be given on the command line; set values one by one"),
    ([DEMO, '--cfg-options', "model.neck={'type': 'FPN', 'num_outs': 5}"], "'num_outs': 5}: dicts cannot be given"),
    ([DEMO, '--cfg-options', 'model.neck.in_channels=[1,2'], 'in_channels=[1,2: expected numbers, words or lists'),
    ([DEMO, '--cfg-options', 'model.neck.type=f(1,2)'], 'model.neck.type=f(1,2): expected numbers, words or lists'),
    ([DEMO, '--cfg-options', 'model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=x.pth'],
     "is of type <class 'NoneType'> in base config; for weights of the backbone use tools/train.py --backbone-checkpoint FILE\n"),
    (['mmtied::nope.py'], 'error: config mmtied::nope.py cannot be read: no such file, or a _base_ that does not exist: '),
    ([DEMO, '--cfg-options', 'load_from=nowhere.pth'], 'error: load_from nowhere.pth: no such file'),
    ([DEMO, '--cfg-options', 'load_from=README.md'], 'error: load_from README.md: not a readable checkpoint'),
    (['configs/mask_rcnn_r50_2x.py', '--cfg-options', 'model.backbone.init_cfg.checkpoint=nowhere.pth'],
     'error: model.backbone.init_cfg.checkpoint nowhere.pth: no such file'),
    ([DEMO, '--resume', 'README.md'], 'error: --resume README.md: not a readable checkpoint'),
    ([DEMO, '--resume', 'nowhere.pth'], 'error: --resume nowhere.pth: no such file'),
    ([DEMO, '--backbone-checkpoint', 'nowhere.pth'], 'error: --backbone-checkpoint nowhere.pth: no such file'),
    ([DEMO, '--backbone-checkpoint', 'README.md'], 'error: --backbone-checkpoint README.md: not a readable checkpoint'),
    (['mmpretrain::resnet/resnet50_8xb32_in1k.py', '--backbone-checkpoint', 'x.pth'],
     'error: --backbone-checkpoint is for detectors'),
    ([DEMO, '--cfg-options', 'train_dataloader.dataset.data_root=gone/occluded_shapes',  # and not data, which `make demo` makes
      'val_dataloader.dataset.data_root=lost/occluded_shapes',
      'val_evaluator.ann_file=lost/occluded_shapes/annotations/instances_val2017.json'],
     'error: train data: gone/occluded_shapes/annotations/instances_train2017.json not found; val data: '
     'lost/occluded_shapes/annotations/instances_val2017.json not found. Make it: mmtied shapes '
     'data/occluded_shapes'),
    ([DEMO, '--cfg-options', 'val_dataloader.dataset.data_root=gone', 'train_dataloader.dataset.data_root=.',
      'train_dataloader.dataset.ann_file=setup.py', 'train_dataloader.dataset.data_prefix.img=tools',
      'val_evaluator.ann_file=gone.json'],
     'error: val data: gone/annotations/instances_val2017.json not found; val data: gone.json not found. Put the data there, or '
     'set its location with --cfg-options val_dataloader.dataset.data_root=... val_evaluator.ann_file=...'),
    (['configs/imagenet/tiedr50_in1k.py', '--cfg-options', 'val_dataloader.dataset.data_root=gone'],
     'error: train data: data/imagenet/train not found; val data: gone/val not found. Put the data there, or set its location '
     'with --cfg-options train_dataloader.dataset.data_root=... val_dataloader.dataset.data_root=...\n'),
    (['configs/faster_rcnn_tiedr50_voc.py'],
     'with --cfg-options train_dataloader.dataset.dataset.datasets.0.data_root=... '
     'train_dataloader.dataset.dataset.datasets.1.data_root=... val_dataloader.dataset.data_root=...\n'),
])
def test_user_errors_exit_with_2(run_tool, arguments, message):
    code, _, err = run_tool('train.py', *arguments)
    assert code == 2
    assert message in one_line(err) + '\n'


@pytest.mark.parametrize(('option', 'message'), [
    ('model.backbone.splits=3', 'no schedule of block numbers for splits=3; known: 2, 4, 6, 8'),
    ('model.backbone.foo=1', 'TiedResNet: unexpected argument foo'),
    ('model.backbone.type=mmtied.Nothing', 'mmtied.Nothing is not in the'),
    ('model.backbone.type=mmtied.TiedResnet', 'error: mmtied.TiedResnet is not in the model registry; did you mean '
     'mmtied.TiedResNet?'),
    ('model.neck.conv_cfg.type=TBCC', 'error: model.neck.conv_cfg: TBCC is not in the model registry; did you mean TBC?'),
    ('optim_wrapper.optimizer.type=AdmaW', 'error: AdmaW is not in the optimizer registry; did you mean AdamW?'),
    ('param_scheduler.1.type=CosineAnealingLR', 'error: CosineAnealingLR is not in the parameter scheduler registry; did you '
     'mean CosineAnnealingLR?'),
    ('train_dataloader.dataset.type=CocoDatset', 'did you mean CocoDataset?'),
    ('modle.backbone.depth=101', 'error: --cfg-options modle.backbone.depth: the config has no modle; did you mean '
     'model.backbone.depth?'),
    ('model.roi_head.mask_head.num_classes=5', 'error: the training data have 6 classes and '
     'model.roi_head.mask_head.num_classes is 5; set it to 6, or choose 5 classes with '
     'train_dataloader.dataset.metainfo.classes'),
    ('default_hooks.checkpoint.save_best=coco/bbox_mAP_r0.95-1', "error: save_best='coco/bbox_mAP_r0.95-1': the validation "
     'reports no such scalar; did you mean coco/bbox_mAP_r0.'),
    ('train_cfg.max_epochs=abc', "invalid literal for int() with base 10: 'abc'"),
    ('optim_wrapper.optimizer.lr=abc', "'<=' not supported between instances of"),
    ('val_evaluator.type=mmtied.Nothing', 'mmtied.Nothing is not in the'),
    ('train_dataloader.dataset.ann_file=annotations/nothing.json', 'annotations/nothing.json'),
])
def test_build_errors_exit_with_2(run_tool, tiny_options, tmp_path, option, message):
    code, out, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, *tiny_options, option)
    assert code == 2
    assert message in one_line(err)
    assert 'Config:' not in out  # only the error line


@pytest.mark.parametrize('given', [['circle', 'sqare', 'triangle', 'star', 'ring', 'cross'], ['crcle']])
def test_misspelt_class(run_tool, tiny_options, tmp_path, given):
    """mmdet would drop such a class and its annotations."""
    options = [f'{split}_dataloader.dataset.metainfo.classes={str(given).replace(" ", "")}' for split in ('train', 'val', 'test')]
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, *tiny_options, *options)
    assert code == 2
    name, meant = ('sqare', 'square') if len(given) > 1 else ('crcle', 'circle')
    assert re.search(rf"^error: train_dataloader.dataset.metainfo.classes: .*instances_train2017.json has no category '{name}'; "
                     rf"did you mean '{meant}'\? The file has circle, square, triangle, star, ring, cross$", one_line(err))


def test_unknown_metric(run_tool, tiny_options, tmp_path):
    cfg = load_config(DEMO)
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'model.pth')
    code, _, err = run_tool('test.py', DEMO, tmp_path / 'model.pth', '--work-dir', tmp_path, *tiny_options,
                            'test_evaluator.type=CocoMetric', 'test_evaluator.metric=area')
    assert code == 2
    assert 'but got area' in one_line(err)


def test_training_errors_keep_traceback(run_tool, tiny_options, tmp_path, monkeypatch):
    """An error hours into a run is a bug or a hardware fault, not a wrong setting."""
    from mmengine.runner import Runner

    def fail(self):
        raise ValueError('too many values to unpack')

    monkeypatch.setattr(Runner, 'train', fail)
    with pytest.raises(ValueError, match='too many values'):
        run_tool('train.py', DEMO, '--work-dir', tmp_path, *tiny_options)


def test_ctrl_c_says_how_to_resume(run_tool, tiny_options, tmp_path, monkeypatch):
    from mmengine.runner import Runner

    def stop(self):
        (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, 'train', stop)
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, *tiny_options)
    assert code == 130
    assert 'Traceback' not in err
    line = err.splitlines()[-1]
    command = f'tools/train.py {DEMO} --work-dir {tmp_path} --cfg-options '
    assert re.search(rf'^stopped by Ctrl-C; to resume from epoch_1.pth: python \S*{re.escape(command)}.* --resume$', line)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_tied_checkpoint_does_not_fit_untied_backbone(run_tool, tiny_options, tmp_path, prefix):
    weights = TiedResNet(50, base_channels=16).state_dict()
    torch.save({f'{prefix}{key}': value for key, value in weights.items()}, tmp_path / 'tied.pth')
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, '--backbone-checkpoint', tmp_path / 'tied.pth',
                            *tiny_options, 'model.backbone.type=ResNet')
    assert code == 2
    assert 'conv1.weight is missing' in one_line(err)


def test_checkpoint_of_another_model(run_tool, tiny_options, tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'other.pth')
    code, _, err = run_tool('test.py', DEMO, tmp_path / 'other.pth', '--work-dir', tmp_path, *tiny_options)
    assert code == 2
    assert "the config's MaskRCNN (backbone.stem.conv.weight is missing" in one_line(err)
    assert not (tmp_path / 'occlusion').exists()


@pytest.fixture
def retinanet(tmp_path):
    """Return the weights of RetinaNet with a thin TiedResNet-101."""
    cfg = load_config('configs/retinanet_tiedr101_1x.py', THIN)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model).state_dict()


@pytest.mark.parametrize(('config', 'changes', 'message'), [
    ('configs/retinanet_tiedr50_1x.py', {}, 'backbone.layer3.6.entry.conv.weight is not in this network'),
    ('configs/retinanet_tiedr101_1x.py', {'bbox_head.centerness.weight': 1}, 'bbox_head.centerness.weight is not in'),
    ('configs/retinanet_tiedr101_1x.py', {'mask_head.conv.weight': 1}, 'mask_head.conv.weight is not in this network'),
    ('configs/retinanet_tiedr101_1x.py', {'data_preprocessor.mean': 3, 'bbox_head.bn.num_batches_tracked': 1}, None),
], ids=['depth', 'branch', 'head', 'buffers'])
def test_checkpoint_with_unknown_weights(retinanet, tmp_path, config, changes, message):
    torch.save({'state_dict': {**retinanet, **{key: torch.zeros(size) for key, size in changes.items()}}}, tmp_path / 'it.pth')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(load_config(config, THIN).model)
    if message is None:
        check_model(model, str(tmp_path / 'it.pth'))
    else:
        with pytest.raises(ValueError, match=re.escape(f"does not fit the config's RetinaNet ({message}")):
            check_model(model, str(tmp_path / 'it.pth'))


#: Python of the processes that tests start as scripts: mmengine leaves its config's text unformatted, reports have blank figures.
QUICKLY = """
import os, sys
if 'RANK' in os.environ:
    from yapf.yapflib import yapf_api
    yapf_api.FormatCode = lambda text, **settings: (text, True)
    import mmtied
    from tests.helpers.figures import blank_figures
    blank = blank_figures()
    blank.__enter__()
"""


@pytest.mark.slow
def test_two_processes_on_cpu(shapes, tiny_options, tmp_path):
    """Run tools/dist_train.sh without a GPU: two processes evaluate every image once."""
    # formatting the config's text and drawing figures take half of the time
    (tmp_path / 'sitecustomize.py').write_text(QUICKLY)
    result = subprocess.run(['bash', 'tools/dist_train.sh', DEMO, '2', '--work-dir', tmp_path, *tiny_options], cwd=ROOT,
                            env={**os.environ, 'PYTHON': sys.executable, 'PORT': '29617', 'OMP_NUM_THREADS': '1',
                                 'CUDA_VISIBLE_DEVICES': '',
                                 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])},
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('no pretrained weights in init_cfg') == 1
    assert json.loads((tmp_path / 'occlusion/report.json').read_text())['bbox']['all']['images'] == 4
    assert (tmp_path / 'epoch_1.pth').exists()
    assert (tmp_path / 'occlusion/report.html').exists()


def test_backbone_checkpoint_of_other_width(run_tool, tiny_options, tmp_path):
    torch.save(TiedResNet(50, base_channels=32).state_dict(), tmp_path / 'wide.pth')
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, '--backbone-checkpoint', tmp_path / 'wide.pth',
                            *tiny_options)
    assert code == 2
    assert 'the checkpoint does not fit' in one_line(err)
    assert 'stem.conv.weight is (32, 3, 7, 7), expected (16, 3, 7, 7)' in one_line(err)


@pytest.mark.parametrize(('settings', 'name'), [
    ({'depth': 101}, 'layer3.6.entry.conv.weight'),
    ({'attention': {'type': 'TiedSE'}}, 'layer1.0.attention.fc1.weight'),
], ids=['depth', 'attention'])
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_backbone_checkpoint_of_larger_network(run_tool, tiny_options, tmp_path, settings, name, prefix):
    weights = TiedResNet(**{'depth': 50, 'base_channels': 16, **settings}).state_dict()
    torch.save({f'{prefix}{key}': value for key, value in weights.items()}, tmp_path / 'large.pth')
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, '--backbone-checkpoint', tmp_path / 'large.pth',
                            *tiny_options)
    assert code == 2
    assert f'the checkpoint does not fit the config\'s TiedResNet ({name} is not in this network' in one_line(err)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([DEMO, 'nowhere.pth'], 'error: checkpoint nowhere.pth: no such file'),
    ([DEMO, 'setup.py'], 'error: checkpoint setup.py: not a readable checkpoint'),
])
def test_errors_of_test_tool(run_tool, arguments, message):
    code, _, err = run_tool('test.py', *arguments)
    assert code == 2
    assert message in one_line(err)


def test_out_requires_pickle_suffix(run_tool, tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'weights.pth')
    code, _, err = run_tool('test.py', DEMO, tmp_path / 'weights.pth', '--out', 'results.json')
    assert code == 2
    assert '--out results.json: expected a file name that ends in .pkl' in one_line(err)
