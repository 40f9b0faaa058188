"""Kill trainings at random times, while they write checkpoints and while they write reports, and resume them.

``python tests/robustness/killed_trainings.py 20`` prints how often each was killed and what was found, once every end has proved
to be that of an unbroken run. Each training is `tools/train.py CONFIG --resume` in a process forked from this one, which saves
the imports.
"""

import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import jinja2  # noqa: F401, as that of matplotlib, for all the processes
import matplotlib.pyplot as plt  # noqa: F401
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmtied.evaluation import read_records
from mmtied.evaluation.reporting.runs import read_report
from mmtied.launch import checkpoints, config, runner  # noqa: F401
from tests.helpers.figures import blank_figures

ROOT = Path(__file__).parents[2]
EPOCHS, IMAGES = 4, 6
#: What is killed: the training at any time, the writing of a checkpoint, that of a report.
KINDS = ('any time', 'checkpoint', 'report')
CONFIG = """
custom_imports = dict(imports=['mmtied'], allow_failed_imports=False)
model = dict(type='KilledDetector')
loader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='pseudo_collate'))
train_dataloader = dict(**loader, dataset=dict(type='KilledImages', noise=.1), sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(**loader, dataset=dict(type='KilledImages'), sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=2)
val_cfg = dict()
val_evaluator = dict(type='mmtied.OcclusionCocoMetric', ann_file={truth!r})
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.05, momentum=.9))
param_scheduler = dict(type='CosineAnnealingLR', T_max={epochs}, by_epoch=True, convert_to_iter_based=True)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
                     logger=dict(type='LoggerHook', interval=1),
                     occlusion=dict(type='mmtied.OcclusionEvalHook'), resume=dict(type='mmtied.ExactResumeHook'))
randomness = dict(seed=3)
"""


def ground_truth() -> dict:
    """Return two objects in each image; the second covers a part of the first, another part in each image."""
    boxes = [[8 * (number % 2) * (1 + number // 4), 4, 30, 30] for number in range(2 * IMAGES)]
    return dict(images=[dict(id=image, height=64, width=64, file_name=f'{image}.png') for image in range(IMAGES)],
                annotations=[dict(id=number + 1, image_id=number // 2, category_id=1, bbox=box, area=900, iscrowd=0)
                             for number, box in enumerate(boxes)], categories=[dict(id=1, name='a')])


@DATASETS.register_module(force=True)  # pytest also imports this file by itself, for its doctests
class KilledImages(Dataset):
    """Images, with random noise as from augmentation."""

    metainfo = dict(classes=('a', ))

    def __init__(self, noise: float = 0.) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        pixels = torch.full((3, 8, 8), index / IMAGES)
        return dict(inputs=pixels + self.noise * torch.randn(3, 8, 8), data_samples=index)


@MODELS.register_module(force=True)
class KilledDetector(BaseModel):
    """Detector of the annotated boxes, shifted by what it has learned; its checkpoints are of 8 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(.3), nn.Flatten(),
                                    nn.Linear(256, 4096))
        self.truth = ground_truth()['annotations']

    def forward(self, inputs: list[Tensor], data_samples: list[int], mode: str = 'loss') -> dict | list:
        """Return the loss, or predictions."""
        found = self.layers(torch.stack(inputs))
        return dict(loss=found.square().mean()) if mode == 'loss' else [
            dict(img_id=index, pred_instances=self._predictions(index, shift)) for index, shift in zip(
                data_samples, found.mean(1).tolist(), strict=True)]

    def _predictions(self, index: int, shift: float) -> InstanceData:
        boxes = torch.tensor([entry['bbox'] for entry in self.truth if entry['image_id'] == index], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        return InstanceData(bboxes=boxes + 200 * shift, scores=torch.tensor([.9, .8]) - shift, labels=torch.zeros(2).long())


def start(settings: Path, work_dir: Path) -> int:
    """Train in another process, whose output goes into a file beside its settings; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(settings.with_name('log'), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(ROOT)
        sys.argv = ['train.py', str(settings), '--work-dir', str(work_dir), '--resume']
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def kill(child: int, kind: str, work_dir: Path, draw: random.Random, longest: float) -> bool:
    """Kill a training at its moment; return False where it ended before."""
    end, sign = time.monotonic() + longest * draw.random(), None
    if kind == 'checkpoint':
        sign = (work_dir, re.compile(r'\.epoch_\d+\..*'))
    elif kind == 'report':
        sign = (work_dir / 'occlusion', re.compile(r'\.mmtied-.*'))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0, f'a training failed with {os.waitstatus_to_exitcode(status)}'
            return False
        if sign and sign[0].is_dir() and any(sign[1].fullmatch(path.name) for path in sign[0].iterdir()):
            time.sleep(draw.choice([0, .001, .005, .2]) if kind == 'checkpoint' else .1 * draw.random())
            break
        if not sign and time.monotonic() > end:
            break
        time.sleep(.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def whole_checkpoints(work_dir: Path) -> list[int]:
    """Return the epochs of the checkpoints; raise an error for one that is not whole."""
    epochs = []
    for path in work_dir.glob('epoch_*.pth'):
        saved = torch.load(path, weights_only=False)
        assert saved['meta']['epoch'] == int(path.stem.removeprefix('epoch_'))
        epochs.append(saved['meta']['epoch'])
    return sorted(epochs)


def check_report(folder: Path) -> str:
    """Return whether a folder holds a whole report; raise an error for a mixture."""
    try:
        report = read_report(folder / 'report.json')
    except ValueError as error:
        assert 'no such file' in str(error), error
        return 'no report'
    assert report['run'] == read_records(folder).run
    return 'a whole report'


def end_state(work_dir: Path) -> tuple[dict, dict]:
    """Return weights and optimizer at the end."""
    saved = torch.load(work_dir / f'epoch_{EPOCHS}.pth', weights_only=False)
    return saved['state_dict'], saved['optimizer']['state']


def last_report(work_dir: Path) -> dict:
    """Return the report of the last validation."""
    report = json.loads((work_dir / 'occlusion/report.json').read_text())
    return {key: report[key] for key in ('run', 'bbox')}


def check_end(work_dir: Path, straight: Path) -> None:
    """Raise an error unless a training ended as the unbroken one did, to the bit, with its one checkpoint and nothing half."""
    torch.testing.assert_close(end_state(work_dir), end_state(straight), rtol=0, atol=0)
    assert whole_checkpoints(work_dir) == [EPOCHS]
    assert not [path for path in work_dir.rglob('.*') if path.suffix == '.pth']
    assert last_report(work_dir) == last_report(straight)
    assert not [path for path in work_dir.rglob('.*') if '.mmtied-' in path.name]


def kill_often(number: int, seed: int = 0) -> Counter:
    """Kill trainings `number` times, resume each time, and compare every end with that of an unbroken one."""
    draw, counts = random.Random(seed), Counter()
    with blank_figures(), tempfile.TemporaryDirectory() as name:
        settings, log, work_dir = (Path(name, part) for part in ('config.py', 'log', 'work/killed'))
        (Path(name) / 'truth.json').write_text(json.dumps(ground_truth()))
        settings.write_text(CONFIG.format(epochs=EPOCHS, truth=f'{name}/truth.json'))
        begin = time.monotonic()
        assert not os.waitpid(start(settings, Path(name, 'straight/killed')), 0)[1], log.read_text()
        longest, best = time.monotonic() - begin, 0
        while True:
            stop = sum(counts[kind] for kind in KINDS) == number
            kind = KINDS[sum(counts[kind] for kind in KINDS) % 3]
            child = start(settings, work_dir)
            killed = not stop and kill(child, kind, work_dir, draw, longest)
            assert stop is False or not os.waitpid(child, 0)[1], log.read_text()
            said = re.search(r'resumed epoch: (\d+)|starts from the beginning', log.read_text())
            if said:  # or it was killed before it came so far
                assert int(said[1] or 0) == best, f'resumed from {said[0]}, and the last whole checkpoint was {best}'
                counts['resumed' if best else 'started and said so'] += 1
            if killed:
                counts[kind] += 1
                epochs = whole_checkpoints(work_dir)
                assert max(epochs, default=0) >= best, 'a good checkpoint is gone'
                assert len(epochs) <= 2, epochs
                best = max(epochs, default=0)
                counts[f'then {check_report(work_dir / "occlusion")}'] += 1
                continue
            assert said
            check_end(work_dir, Path(name, 'straight/killed'))
            counts['ended equal' if best < EPOCHS else 'ended equal, killed in its last validation'] += 1
            shutil.rmtree(work_dir)
            best = 0
            if stop:
                return counts


if __name__ == '__main__':
    torch.set_num_threads(1)
    print(dict(kill_often(int(sys.argv[1]) if len(sys.argv) > 1 else 20)))
