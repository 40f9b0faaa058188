"""docs/distill.md: its config and commands run in order on a few images."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from mmtied.__main__ import COMMANDS as TOOLS
from mmtied.training import DistillationHook
from tests.helpers.pages import ROOT, named_configs, read_page

PAGE = read_page('distill.md')
CONFIGS = named_configs(PAGE)
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]
#: A thin student and detector, one step.
THIN = ['model.backbone.base_channels=16']
DETECTOR = [*THIN, 'model.neck.in_channels=[64,128,256,512]', 'model.neck.out_channels=16', 'model.bbox_head.in_channels=16',
            'model.bbox_head.feat_channels=16', 'model.bbox_head.stacked_convs=1', 'train_cfg.max_epochs=1',
            'train_dataloader.dataset.pipeline.2.scale=(64,64)', 'train_dataloader.num_workers=0',
            'train_dataloader.batch_size=2']
SMALL = ['--iters', '1', '--size', '32', '--batch-size', '2', '--workers', '0']


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Make the folder that the page takes for granted: configs, tools, images as COCO, a detector, and torchvision's weights."""
    pytest.importorskip('mmdet')
    from torchvision.models import resnet50
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    for folder in ('data/coco/train2017', 'data/my_images'):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f'{index}.png')
    from mmdet.datasets import CocoDataset
    (tmp_path / 'data/coco/annotations').mkdir()
    (tmp_path / 'data/coco/annotations/instances_train2017.json').write_text(json.dumps({
        'images': [{'id': index, 'file_name': f'{index}.png', 'height': 64, 'width': 64} for index in range(2)],
        'categories': [{'id': index, 'name': name} for index, name in enumerate(CocoDataset.METAINFO['classes'])],
        'annotations': [{'id': index + 1, 'image_id': index, 'category_id': index, 'bbox': [8, 8, 40, 40], 'area': 1600,
                         'iscrowd': 0} for index in range(2)]}))
    network = resnet50()
    torch.save(network.state_dict(), tmp_path / 'resnet50.pth')
    (tmp_path / 'my_detector.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    weights = {f'backbone.{key}': value for key, value in network.state_dict().items() if not key.startswith('fc.')}
    torch.save({'state_dict': weights}, tmp_path / 'my_detector.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, monkeypatch, extra: list[str]) -> int:
    """Run a command in this process with more arguments, and return the exit code."""
    program, tool, *arguments = shlex.split(command)
    if program == 'mmtied':
        tool = f'tools/{TOOLS[tool][0]}.py'
    monkeypatch.setattr(sys, 'argv', [tool, *arguments, *extra])
    MMLogger._instance_dict.clear()
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_every_command_runs(clone, monkeypatch, capsys):
    hook, alone, detector, own = COMMANDS
    options = ['--no-validate', '--cfg-options', *DETECTOR]
    for command, extra in ((hook, [*options, 'custom_hooks.0.weights=resnet50.pth']),
                           (alone, ['--weights', 'resnet50.pth', *SMALL, '--cfg-options', *THIN]), (detector, options),
                           (own, [*SMALL, '--cfg-options', *THIN])):
        assert run(command, monkeypatch, extra) == 0, f'{command}\n{capsys.readouterr().err}'
    log = next(Path('work_dirs/distilled_retinanet').rglob('*.log')).read_text()
    assert re.search(r'loss_distill: [12]\.', log)  # of random weights; loss_weight is 2
    assert 'cosine distance to resnet50' in log
    trained = torch.load('work_dirs/retinanet_tiedr50_1x/epoch_1.pth', weights_only=False)['state_dict']
    backbone = torch.load('work_dirs/distill_retinanet_tiedr50_1x/backbone.pth', weights_only=True)['state_dict']
    assert backbone['stem.conv.weight'].shape == trained['backbone.stem.conv.weight'].shape


def test_table_has_every_setting():
    import inspect
    rows = re.findall(r'^\| (`.*?) \|', PAGE, re.MULTILINE)
    named = re.findall(r'`(\w+)`', ' '.join(rows))
    assert named == list(inspect.signature(DistillationHook.__init__).parameters)[1:]
