"""The evaluation benchmark on a small data set: it runs, the tools agree, and it writes its section and no other."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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


def test_simulated_detections_are_seeded_whole_and_inside_the_image(tmp_path):
    from simulated_detections import SimulatedDetections, simulate

    from mmtied.evaluation.inputs.rle import rle_areas
    first, again, other = (simulate(small_set(), 100, seed) for seed in (0, 0, 1))
    assert (first.boxes_xywh == again.boxes_xywh).all() and (first.counts == again.counts).all()
    assert (first.boxes_xywh != other.boxes_xywh).any()
    assert len(first.image_id) == len(rle_areas(first.rles())) == 100
    assert first.boxes_xywh.min() >= 0 and (first.boxes_xywh[:, 2:] > 0).all()
    first.save(tmp_path / 'd.npz')
    assert SimulatedDetections.load(tmp_path / 'd.npz').entries('segm') == first.entries('segm')


def test_sections_are_replaced_and_the_rest_stays(tmp_path):
    from report_section import write_section
    page = tmp_path / 'page.md'
    write_section(page, 'one', 'first')
    write_section(page, 'two', 'second')
    write_section(page, 'one', 'changed')
    assert page.read_text() == ('# Benchmarks\n\n<!-- begin one -->\n\nchanged\n\n<!-- end one -->\n\n'
                                '<!-- begin two -->\n\nsecond\n\n<!-- end two -->\n')
    page.write_text('<!-- begin one -->')
    with pytest.raises(ValueError, match='must come once each'):
        write_section(page, 'one', 'text')
    assert page.read_text() == '<!-- begin one -->'


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU'))])
def test_boxes_from_memory_are_tensors_on_the_device_all_the_way(tmp_path, monkeypatch, device):
    import contenders
    from simulated_detections import simulate
    (tmp_path / 'annotations.json').write_text(json.dumps(small_set()))
    simulate(small_set(), 60).save(tmp_path / 'detections.npz')
    seen, evaluate_coco = [], contenders.evaluate_coco

    def watched(truth, detections, **options):
        seen.extend([detections['bbox'], options])
        return evaluate_coco(truth, detections, **options)
    monkeypatch.setattr(contenders, 'evaluate_coco', watched)
    settings = SimpleNamespace(folder=tmp_path, iou_type='bbox', source='memory', device=device)
    rows = contenders.prepare_mmtied(settings, {})()
    found, options = seen
    assert {column.device.type for column in (found.image, found.category, found.score, found.area, found.boxes_xywh)} == {device}
    assert options == dict(device=device)
    assert len(rows) == 12 and rows['all'][0] > 0


@pytest.mark.slow
def test_the_benchmark_runs_and_the_tools_agree(tmp_path):
    annotations, page = tmp_path / 'annotations.json', tmp_path / 'page.md'
    annotations.write_text(json.dumps(small_set()))
    run = subprocess.run([sys.executable, BENCHMARKS / 'evaluation.py', annotations, '--contenders', 'mmtied', 'pycocotools',
                          'hotcoco', '--detections', '60', '--repeat', '1', '--sources', 'memory', '--val-images', '4',
                          '--docs', page], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in page.read_text().splitlines() if line[:1] == '|']
    last = {row[0]: row[-1] for row in cells}
    for iou_type in ('bbox', 'segm'):
        assert last[f'pycocotools, {iou_type} from memory'] == 'oracle'
        assert float(last[f'mmtied, {iou_type} from memory']) < 1e-12
        assert float(last[f'hotcoco, {iou_type} from memory']) < 1e-12
    assert float(last['CocoMetric']) <= .00051  # it rounds to three digits
    assert '6 images, 24 instances, 60 simulated detections' in page.read_text()


def test_a_broken_annotation_file_is_one_line(tmp_path):
    path = tmp_path / 'annotations.json'
    path.write_text('{')
    run = subprocess.run([sys.executable, BENCHMARKS / 'evaluation.py', path], capture_output=True, text=True)
    assert run.returncode == 2
    assert 'not complete JSON' in run.stderr and run.stderr.count('\n') == 1
