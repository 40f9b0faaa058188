"""Against hotcoco, an independent Rust implementation, as a second oracle beside pycocotools."""

import copy

import hotcoco
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation.buckets import make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.occlusion import image_ratios
from tests.helpers.buckets import assign_buckets
from tests.helpers.coco_oracle import STATISTICS, cases, report_of

EDGES = (0, .3, .6, 1)


def hotcoco_statistics(data, results, iou_type, image_ids):
    """Return AP, AP50 ... of some images."""
    truth = hotcoco.COCO(copy.deepcopy(data))
    evaluation = hotcoco.COCOeval(truth, truth.load_res(copy.deepcopy(results)), iou_type)
    evaluation.params.img_ids = image_ids
    evaluation.run()
    return dict(zip(STATISTICS, evaluation.stats[:6].tolist(), strict=True))


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_bucket_matches_hotcoco(iou_type, data):
    annotations, results = data.draw(cases(iou_type))
    truth = read_ground_truth(annotations)
    report = report_of(truth, {iou_type: make_detections(results, truth, iou_type)}, edges=EDGES)[iou_type]
    of_image = assign_buckets(image_ratios(truth), make_buckets(EDGES))
    rows = [(report['all'], truth.image_ids), *((row, truth.image_ids[of_image == number])
                                                for number, row in enumerate(report['buckets']))]
    for row, image_ids in rows:
        if not len(image_ids):
            continue
        theirs = hotcoco_statistics(annotations, results, iou_type, image_ids.tolist())
        ours = {name: -1 if row[name] is None else row[name] for name in STATISTICS}
        assert ours == pytest.approx(theirs, rel=0, abs=1e-12), row
