"""Every way into the evaluation gives pycocotools' numbers, for every definition, unit and kind of bucket."""

from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from mmtied.evaluation import Evaluation
from tests.helpers.coco_oracle import assert_same, cases
from tests.robustness import ways
from tests.robustness.ways import DEFINITIONS, EDGES, REPORTS, WAYS, compare, corners_and_back, expected

pytestmark = pytest.mark.usefixtures('blank_figures')
SETTINGS = list(product(('image', 'instance'), (False, True), (False, True)))


@pytest.mark.parametrize('number', range(7))
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.filterwarnings('ignore')
def test_every_way_matches_pycocotools(way, number):
    """Each definition with one of the eight settings; the fuzzer draws all."""
    iou_type = ('bbox', 'segm')[number % 2]

    @seed(number + len(way))
    @settings(max_examples=2 if way in ('command', 'hook') else 4, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(cases(iou_type))
    def check(case):
        data, found = case
        with_masks = all('segmentation' in entry for entry in data['annotations'])
        unit, cumulative, same_category = SETTINGS[(number + len(way)) % len(SETTINGS)]
        evaluation = Evaluation(DEFINITIONS[number if with_masks else number % 5], EDGES, unit, cumulative, same_category)
        if not found or any(not isinstance(entry.get('segmentation', {}), dict) for entry in found):
            return
        found = [dict(entry, bbox=corners_and_back(entry['bbox'])) if 'bbox' in entry else entry for entry in found]
        report = REPORTS[way.split()[-1]](way, data, found, evaluation, iou_type)[iou_type]
        rows = list(expected(data, found, evaluation, iou_type))
        for ours, theirs in zip([report['all'], *report['buckets']], rows, strict=True):
            if theirs:
                assert_same(ours, theirs, evaluation)

    check()


def test_a_wrong_number_is_found(monkeypatch):
    """Otherwise the fuzzer could not find one."""
    box = dict(category_id=1, bbox=[0, 0, 20, 20], image_id=1)
    data = dict(images=[dict(id=1, height=50, width=50)], categories=[dict(id=1, name='a')],
                annotations=[dict(box, id=1, area=400, iscrowd=0)])
    assert compare(data, [dict(box, score=.5)]) is None
    wrong = ways.evaluate(data, [dict(box, score=.5, bbox=[0, 0, 20, 12])]).report
    monkeypatch.setattr(ways, 'REPORTS', dict.fromkeys(REPORTS, lambda *_: wrong))
    monkeypatch.setattr(ways, 'Evaluation', lambda *_: Evaluation())
    assert 'another number than pycocotools' in compare(data, [dict(box, score=.5)])
