"""Datasets without a COCO file: Pascal VOC through mmdet's own reader."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.openmmlab import dataset_annotations
from mmtied.evaluation.occlusion import image_ratios

XML = '<annotation><size><width>64</width><height>48</height></size>{}</annotation>'
OBJECT = ('<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>'
          '</bndbox></object>')


@pytest.fixture
def voc(tmp_path):
    """Build a VOC data set: an image with two cats, one half covered by the other, and a difficult dog; and an empty image."""
    pytest.importorskip('mmdet')
    from mmdet.datasets import VOCDataset
    folder = tmp_path / 'VOC2007'
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    (folder / 'Annotations/000012.xml').write_text(XML.format(
        OBJECT.format('cat', 0, 1, 1, 21, 11) + OBJECT.format('cat', 0, 11, 1, 31, 11) + OBJECT.format('dog', 1, 1, 1, 61, 41)))
    (folder / 'Annotations/000003.xml').write_text(XML.format(''))
    (folder / 'ImageSets/Main/test.txt').write_text('000012\n000003\n')
    return VOCDataset(data_root=str(tmp_path), ann_file='VOC2007/ImageSets/Main/test.txt',
                      data_prefix=dict(sub_data_root='VOC2007/'), test_mode=True, pipeline=[])


def test_pascal_voc(voc):
    ground_truth = read_ground_truth(dataset_annotations(voc))
    assert ground_truth.image_ids.tolist() == [3, 12]
    assert ground_truth.image_sizes.tolist() == [[48, 64], [48, 64]]
    assert list(ground_truth.category_names.values()) == list(voc.metainfo['classes'])
    names = [ground_truth.category_names[ground_truth.category_ids[number]] for number in ground_truth.category]
    assert names == ['cat', 'cat', 'dog']
    assert ground_truth.boxes_xywh.tolist() == [[0, 0, 20, 10], [10, 0, 20, 10], [0, 0, 60, 40]]
    assert ground_truth.crowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(image_ratios(ground_truth), [np.nan, .5])  # the difficult dog occludes nothing


def test_metric_and_hook_accept_it(voc):
    torch = pytest.importorskip('torch')
    from mmtied.evaluation.hook import annotations_of
    from mmtied.evaluation.metric import OcclusionCocoMetric
    metric = OcclusionCocoMetric(annotations_of(voc), edges=(0, .4, 1))
    metric.dataset_meta = voc.metainfo
    cat, dog = (voc.metainfo['classes'].index(name) for name in ('cat', 'dog'))
    boxes = torch.tensor([[0., 0., 20., 10.], [10., 0., 30., 10.], [0., 0., 60., 40.]])
    found = dict(bboxes=boxes, scores=torch.tensor([.9, .8, .7]), labels=torch.tensor([cat, cat, dog]))
    nothing = dict(bboxes=boxes[:0], scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))
    metric.process({}, [dict(img_id='000012', pred_instances=found), dict(img_id='000003', pred_instances=nothing)])
    values = metric.evaluate(2)
    assert values['coco/bbox_mAP'] == values['coco/bbox_mAP_r0.4-1'] == pytest.approx(1)
    assert [row['images'] for row in metric.report['bbox']['buckets']] == [0, 0, 1]


class Listed:
    """Data set of one image."""

    metainfo = dict(classes=('a', ))

    def __init__(self, **info):
        self.info = info

    def __len__(self):
        return 1

    def get_data_info(self, number):
        return self.info


@pytest.mark.parametrize(('dataset', 'message'), [
    (SimpleNamespace(), 'SimpleNamespace has no COCO annotation file and names no classes'),
    (Listed(img_id=3), 'Listed has no COCO annotation file, and its images have no height, width, instances'),
    (Listed(img_path='a.jpg', height=9, width=9, instances=[]), 'Listed has no COCO annotation file, .* have no img_id'),
    (Listed(img_id=3, height=9, width=9, instances=[dict(bbox=[1, 2], bbox_label=0)]),
     r"Listed\[0\]: an instance has the 'bbox' \[1, 2\], expected \[x1, y1, x2, y2\]"),
    (Listed(img_id=3, height=9, width=9, instances=[dict(bbox=[1, 2, 3, 4], bbox_label=5)] * 2),
     r'Listed\[0\]: label 5 is outside 0 to 0, the classes; .*; 2 records cannot be used'),
], ids=['plain object', 'no sizes', 'no id', 'box', 'labels'])
def test_rejects_other_datasets(dataset, message):
    with pytest.raises(ValueError, match=f'^{message}$'):  # --skip-invalid does not apply to data sets
        dataset_annotations(dataset)
