"""Pages on the evaluation by occlusion and README.md: their snippets run on a small data set."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS

from tests.helpers.pages import read_page, snippets


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Write the files that the snippets name, with one image."""
    boxes = np.array([[10, 10, 50, 50], [30, 10, 70, 50]])
    annotations = [dict(id=number + 1, image_id=139, category_id=1, bbox=[*box[:2], *(box[2:] - box[:2])], area=1600, iscrowd=0,
                        segmentation=[[10, 10, 50, 10, 50, 50]]) for number, box in enumerate(boxes)]
    text = json.dumps(dict(images=[dict(id=139, height=100, width=100)], categories=[dict(id=1, name='cat')],
                           annotations=annotations), default=int)
    (tmp_path / 'instances_val2017.json').write_text(text)
    entries = [dict(image_id=139, category_id=1, bbox=[10, 10, 40, 40], score=.9)]
    (tmp_path / 'results.bbox.json').write_text(json.dumps(entries))
    mask = dict(size=[100, 100], counts=[1010, 40] + [60, 40] * 39 + [5050])
    (tmp_path / 'results.segm.json').write_text(json.dumps([dict(image_id=139, category_id=1, score=.9, segmentation=mask)]))
    monkeypatch.chdir(tmp_path)
    return dict(boxes_xyxy=torch.tensor(boxes, dtype=torch.float32), scores=torch.tensor([.9, .8]), labels=torch.tensor([0, 0]))


def test_evaluate_snippet(data, tmp_path):
    snippet, = (text for text in snippets(read_page('occlusion_evaluation.md')) if 'evaluate(' in text)
    exec(snippet, data)
    assert data['other'].report['bbox']['all']['AP'] == pytest.approx(1)
    assert (tmp_path / 'occlusion' / 'report.json').is_file()


def test_mean_ap_snippet(data, tmp_path):
    snippet, = (text for text in snippets(read_page('occlusion_evaluation.md')) if 'OcclusionMeanAveragePrecision(' in text)
    exec(snippet, data)
    assert {'map', 'map_50', 'map_small', 'map_r0.5-1', 'map_75_r0.5-1'} <= set(data['values'])
    assert 'map_r0' not in data['values'] and data['values']['map'] == pytest.approx(1)
    assert (tmp_path / 'occlusion' / 'report.html').is_file()


def test_ratio_snippet():
    snippet, = (text for text in snippets(read_page('occlusion_ratio.md')) if 'Evaluation(' in text)
    scope = {}
    exec(snippet, scope)
    assert scope['by_instance'].unit == 'instance' and scope['by_preset']


def test_annotate_snippet(data, tmp_path):
    snippet, = (text for text in snippets(read_page('data_occlusion.md')) if 'annotate(' in text)
    exec(snippet, data)
    assert data['found'].annotations['images'][0]['occlusion_ratio'] == pytest.approx(.5)
    assert sorted(path.name for path in (tmp_path / 'annotated').iterdir()) == ['annotations.json', 'buckets.json']


def test_readme_snippet(data, tmp_path):
    snippet, = (text for text in snippets(read_page('README.md')) if 'evaluate(' in text)
    exec(snippet, data)
    assert set(data['result'].report) >= {'segm', 'definition'}
    assert (tmp_path / 'occlusion' / 'report.html').is_file()


def test_hook_snippets_build():
    for page in ('occlusion_evaluation.md', 'occlusion_ratio.md', 'README.md'):
        for snippet in snippets(read_page(page)):
            if 'default_hooks' in snippet:
                scope = {}
                exec(snippet, scope)
                assert HOOKS.build(scope['default_hooks']['occlusion'])
