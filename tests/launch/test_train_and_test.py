"""tools/train.py and tools/test.py, from end to end, and what a user sees who makes a mistake."""

import json
import pickle

import pytest
import torch

from mmtied.backbones import TiedResNet

DEMO = 'configs/demo/mask_rcnn_tiedr50_demo.py'


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
def test_backbone_checkpoint_freezes_as_mmdet_does(run_tool, tiny_options, tmp_path):
    """A classifier's checkpoint becomes the backbone; stem, stage 1 and BatchNorm's statistics stay as they came."""
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
    """The tool's message, when it is one line and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, err
    assert 'Traceback' not in err
    return lines[0]


@pytest.mark.parametrize(('arguments', 'message'), [
    (['configs/mask_rcnn_tiedr50_2x.py'],
     'error: train data: data/coco/annotations/instances_train2017.json not found. Put COCO 2017 there (train2017/, val2017/, '
     'annotations/ from cocodataset.org), or try the demo data instead: python tools/make_occluded_shapes.py'),
    (['configs/nowhere.py'], 'error: config configs/nowhere.py not found'),
    (['README.md'], 'is not a config file, expected a .py file'),
    (['mmdet::nowhere/nothing.py'], 'error: '),
    ([DEMO, '--resume', 'nowhere.pth'], 'error: --resume nowhere.pth: no such file'),
    ([DEMO, '--backbone-checkpoint', 'nowhere.pth'], 'error: --backbone-checkpoint nowhere.pth: no such file'),
    ([DEMO, '--backbone-checkpoint', 'README.md'], 'error: --backbone-checkpoint README.md: not a readable checkpoint'),
    (['mmpretrain::resnet/resnet50_8xb32_in1k.py', '--backbone-checkpoint', 'x.pth'],
     'error: --backbone-checkpoint is for detectors'),
    ([DEMO, '--cfg-options', 'model.backbone.splits=3', 'train_dataloader.dataset.data_root=.'], 'error: '),
])
def test_mistakes_are_one_line_and_exit_code_2(run_tool, arguments, message):
    code, _, err = run_tool('train.py', *arguments)
    assert code == 2
    assert message in one_line(err)


def test_mistakes_that_only_building_finds(run_tool, tiny_options, tmp_path):
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, *tiny_options, 'model.backbone.splits=3')
    assert code == 2
    assert 'no schedule of block numbers for splits=3; known: 2, 4, 6, 8' in one_line(err)


def test_a_backbone_checkpoint_that_does_not_fit(run_tool, tiny_options, tmp_path):
    torch.save(TiedResNet(50, base_channels=32).state_dict(), tmp_path / 'wide.pth')
    code, _, err = run_tool('train.py', DEMO, '--work-dir', tmp_path, '--backbone-checkpoint', tmp_path / 'wide.pth',
                            *tiny_options)
    assert code == 2
    assert 'the checkpoint does not fit' in one_line(err)
    assert 'stem.conv.weight is (32, 3, 7, 7), expected (16, 3, 7, 7)' in one_line(err)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([DEMO, 'nowhere.pth'], 'error: checkpoint nowhere.pth: no such file'),
    ([DEMO, 'setup.py'], 'error: checkpoint setup.py: not a readable checkpoint'),
])
def test_mistakes_in_testing(run_tool, arguments, message):
    code, _, err = run_tool('test.py', *arguments)
    assert code == 2
    assert message in one_line(err)


def test_out_must_be_a_pickle(run_tool, tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'weights.pth')
    code, _, err = run_tool('test.py', DEMO, tmp_path / 'weights.pth', '--out', 'results.json')
    assert code == 2
    assert '--out results.json: expected a file name that ends in .pkl' in one_line(err)
