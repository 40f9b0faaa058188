"""docs/train.md: its commands run in order on a few generated images."""

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

from tests.helpers.pages import ROOT, named_configs, read_page

PAGE = read_page('train.md')
CONFIGS = named_configs(PAGE)
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]
CLASSES = ('cat', 'dog', 'owl')
#: A thin network, one epoch, no worker processes.
SMALL = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'model.backbone.base_channels=16', 'train_dataloader.batch_size=2',
         *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test'))]
SMALL_OF = {
    'animals_tiedr50.py': [*SMALL, 'model.head.in_channels=512', 'train_dataloader.dataset.pipeline.1.scale=64'],
    'animals_faster_rcnn.py': [*SMALL, 'model.neck.in_channels=[64,128,256,512]',
                               *(f'{split}_dataloader.dataset.pipeline.{index}.scale=(64,64)'
                                 for split, index in (('train', 2), ('val', 1), ('test', 1)))],
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Make the folder that the page describes: configs, tools, images of three classes, and boxes on two images."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    for split in ('train', 'val'):
        for name in CLASSES:
            for index in range(2):
                save_image(tmp_path / f'data/animals/{split}/{name}/{index}.png')
        for index in range(2):
            save_image(tmp_path / f'data/animals_boxes/{split}/{index}.png')
        (tmp_path / f'data/animals_boxes/{split}.json').write_text(json.dumps({
            'images': [{'id': index, 'file_name': f'{index}.png', 'height': 64, 'width': 64} for index in range(2)],
            'categories': [{'id': index, 'name': name} for index, name in enumerate(CLASSES)],
            'annotations': [{'id': index + 1, 'image_id': index, 'category_id': index, 'bbox': [8, 8, 40, 40], 'area': 1600,
                             'iscrowd': 0} for index in range(2)]}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)


def run(command: str, monkeypatch, extra: list[str] | None = None) -> int:
    """Run one of the page's commands with small settings in this process and return the exit code."""
    python, tool, *arguments = shlex.split(command)
    assert python == 'python'
    arguments = [re.sub(r'epoch_\d+', 'epoch_1', argument) for argument in arguments]
    options = [*SMALL_OF.get(arguments[0], []), *(extra or [])]
    monkeypatch.setattr(sys, 'argv', [tool, *arguments, *(['--cfg-options', *options] if options else [])])
    MMLogger._instance_dict.clear()
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.usefixtures('blank_figures')
def test_every_command_runs(clone, monkeypatch, capsys):
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        assert run(command, monkeypatch) == 0, f'{command}\n{capsys.readouterr().err}'
    trained = torch.load('work_dirs/animals_tiedr50/epoch_1.pth', weights_only=False)['state_dict']
    assert trained['head.fc.weight'].shape == (3, 512)
    detector = torch.load('work_dirs/animals_faster_rcnn/epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(detector['backbone.stem.conv.weight'], trained['backbone.stem.conv.weight'])
    report = json.loads(Path('work_dirs/animals_faster_rcnn/occlusion/report.json').read_text())
    assert report['bbox']['all']['images'] == 2


def test_checkpoints_are_from_the_last_epoch():
    from mmtied.launch.config import load_config
    bases = {name: re.search("_base_ = '(.*)'", text)[1] for name, text in CONFIGS.items()}
    for name, base in bases.items():
        epochs = load_config(base if '::' in base else str(ROOT / base)).train_cfg.max_epochs
        assert set(re.findall(rf'{Path(name).stem}/epoch_(\d+)', PAGE)) == {str(epochs)}


@pytest.mark.parametrize(('option', 'message'), [
    ('model.head.num_classes=4', 'the data have 3 classes and model.head.num_classes is 4; set it'),
    ('train_dataloader.dataset.metainfo.classes=[cat,dog]', "The number of subfolders (3) doesn't match the number"),
])
@pytest.mark.filterwarnings('ignore')
def test_wrong_number_of_classes(clone, monkeypatch, capsys, option, message):
    assert run(COMMANDS[0], monkeypatch, [option]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: ')
    assert message in line
