"""The evaluation benchmark on a small data set: it runs and the tools agree."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.tools import run_script

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def small_set():
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(24):
        x, y, w, h = (float(value) for value in (*rng.uniform(0, 60, 2), *rng.uniform(20, 60, 2)))
        annotations.append(dict(id=number + 1, image_id=number % 6, category_id=1 + number % 3, bbox=[x, y, w, h], area=w * h,
                                iscrowd=0, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return dict(images=[dict(id=number, height=120, width=130) for number in range(6)], annotations=annotations,
                categories=[dict(id=number, name=f'c{number}') for number in (1, 2, 3)])


def test_simulated_detections_are_seeded_and_inside_the_image(tmp_path):
    from simulated_detections import SimulatedDetections, simulate

    from mmtied.evaluation.inputs.rle import rle_areas
    first, again, other = (simulate(small_set(), 100, seed) for seed in (0, 0, 1))
    assert (first.boxes_xywh == again.boxes_xywh).all() and (first.counts == again.counts).all()
    assert (first.boxes_xywh != other.boxes_xywh).any()
    assert len(first.image_id) == len(rle_areas(first.rles())) == 100
    assert first.boxes_xywh.min() >= 0 and (first.boxes_xywh[:, 2:] > 0).all()
    first.save(tmp_path / 'd.npz')
    assert SimulatedDetections.load(tmp_path / 'd.npz').entries('segm') == first.entries('segm')


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU'))])
def test_boxes_from_memory_stay_on_the_device(tmp_path, monkeypatch, device):
    import contenders
    from simulated_detections import simulate

    from mmtied.evaluation.inputs import results
    (tmp_path / 'annotations.json').write_text(json.dumps(small_set()))
    simulate(small_set(), 60).save(tmp_path / 'detections.npz')
    seen, tensor_detections = [], results.tensor_detections

    def spy(*args):
        seen.append(tensor_detections(*args))
        return seen[0]

    monkeypatch.setattr(results, 'tensor_detections', spy)
    settings = SimpleNamespace(folder=tmp_path, iou_type='bbox', source='memory', device=device)
    rows = contenders.prepare_mmtied(settings, {})()
    found, = seen
    assert {column.device.type for column in (found.image, found.category, found.score, found.area, found.boxes_xywh)} == {device}
    assert len(rows) == 12 and rows['all'][0] > 0


@pytest.fixture
def run_evaluation(tmp_path, monkeypatch):
    """Return a function that runs the benchmark in this process, and with it every process but those of mmtied's tool."""
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps(small_set()))
    start = subprocess.run

    def run_here(command, **settings):
        if Path(command[1]).parent != BENCHMARKS:
            return start(command, **settings)
        run_script(command[1], command[2:], monkeypatch)
        return subprocess.CompletedProcess(command, 0, '', '')

    def run(csv, *options):
        monkeypatch.setattr(subprocess, 'run', run_here)
        run_script(BENCHMARKS / 'evaluation.py', [annotations, '--detections', '60', '--repeats', '1', '--csv', csv, *options],
                   monkeypatch)

    return run


@pytest.mark.slow
def test_tools_agree(tmp_path, run_evaluation):
    from reporting import read_csv
    path = tmp_path / 'evaluation.csv'
    run_evaluation(path, '--contenders', 'mmtied', 'pycocotools', 'hotcoco', '--sources', 'memory', 'command', '--iou-types',
                   'segm')
    rows = read_csv(path)
    assert len(rows) == 3 * 2
    for row in rows:
        difference = row['largest difference']
        assert difference == 'oracle' if row['tool'] == 'pycocotools' else difference == '' or float(difference) < 1e-12
    assert [row['tool'] for row in rows if row['largest difference'] == ''] == ['mmtied']  # its command
    run, = read_csv(tmp_path / 'runs.csv')
    assert '6 images, 24 instances, 60 simulated detections' in run['title']


@pytest.mark.slow
def test_val_loop_matches_coco_metric(tmp_path, run_evaluation):
    from reporting import read_csv
    path = tmp_path / 'val_loop.csv'
    run_evaluation(path, '--val-images', '4')
    rows = read_csv(path)
    assert [row['metric'] for row in rows] == ['mmtied', 'CocoMetric']
    assert all(float(row['largest difference (CocoMetric rounds)']) <= .00051 for row in rows)  # to three digits


def test_broken_annotation_file(tmp_path, monkeypatch, capfd):
    path = tmp_path / 'annotations.json'
    path.write_text('{')
    monkeypatch.setattr(sys, 'argv', ['evaluation.py', str(path)])
    with pytest.raises(SystemExit, match='^2$'):
        runpy.run_path(str(BENCHMARKS / 'evaluation.py'), run_name='__main__')
    error = capfd.readouterr().err
    assert 'not complete JSON' in error and error.count('\n') == 1
