"""The torchmetrics-style metric against `evaluate` on the same data in COCO format."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api
from torch import distributed as torch_dist
from torch import multiprocessing

from mmtied.evaluation import Evaluation, OcclusionMeanAveragePrecision, evaluate
from mmtied.evaluation.protocol import IOU_THRESHOLDS, RECALL_POINTS
from mmtied.launch.runner import leave_processes
from tests.helpers.coco_oracle import coco_evaluation, statistics
from tests.helpers.processes import run_processes
from tests.helpers.simulated import many, simulated

EVALUATION = Evaluation(edges=(0, .3, .6, 1))


def to_xyxy(entries):
    boxes = torch.tensor([entry['bbox'] for entry in entries], dtype=torch.float64).reshape(-1, 4)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def as_lists(data, results, with_masks=False):
    """Return the predictions and targets of each image."""
    preds, target = [], []
    for image in data['images']:
        of_image = [[entry for entry in entries if entry['image_id'] == image['id']]
                    for entries in (results, data['annotations'])]
        for entries, into in zip(of_image, (preds, target), strict=True):
            into.append(dict(boxes=to_xyxy(entries), labels=torch.tensor([entry['category_id'] for entry in entries]).long()))
            if with_masks:
                masks = [mask_api.decode(entry['segmentation']) for entry in entries]
                into[-1]['masks'] = torch.from_numpy(np.array(masks).reshape(-1, image['height'], image['width'])).bool()
        preds[-1]['scores'] = torch.tensor([entry['score'] for entry in of_image[0]], dtype=torch.float64)
        target[-1] |= dict(iscrowd=torch.tensor([entry['iscrowd'] for entry in of_image[1]]).long(),
                           area=torch.tensor([entry['area'] for entry in of_image[1]]),
                           image_size=(image['height'], image['width']))
    return preds, target


def expected_values(report, iou_type, prefix=''):
    table = report[iou_type]
    keys = dict(AP='map', AP50='map_50', AP75='map_75', AP_S='map_small', AP_M='map_medium', AP_L='map_large',
                AR1='mar_1', AR10='mar_10', AR100='mar_100', AR_S='mar_small', AR_M='mar_medium', AR_L='mar_large')
    per_class = {f'{prefix}map_per_class': -1, f'{prefix}mar_100_per_class': -1}
    keys |= {name: name for name in ('MR-2', 'recall@P80', 'loc_error', 'duplicates')}
    values = {prefix + key: -1 if table['all'][name] is None else table['all'][name] for name, key in keys.items()}
    for bucket, row in zip(EVALUATION.buckets, table['buckets'], strict=True):
        for name in ('AP', 'AP75'):
            if row[name] is not None:
                values[f'{prefix}{keys[name]}_{bucket.key}'] = row[name]
    return values | per_class


def numbers(values):
    """Return the values as floats, without the labels."""
    return {name: value.item() for name, value in values.items() if name != 'classes'}


def test_values_match_evaluate():
    data, results = many(num_images=12, per_image=8)
    preds, target = as_lists(data, results)
    metric = OcclusionMeanAveragePrecision(evaluation=EVALUATION)
    for start in range(0, 12, 5):
        metric.update(preds[start:start + 5], target[start:start + 5])
    values = metric.compute()
    report = evaluate(data, results, EVALUATION).report
    assert numbers(values) == pytest.approx(expected_values(report, 'bbox'), abs=1e-12)
    assert metric.result.report['bbox']['all']['AP'] == pytest.approx(report['bbox']['all']['AP'], abs=1e-12)
    metric.reset()
    with pytest.raises(ValueError, match='call update before compute'):
        metric.compute()


def test_masks_and_default_targets():
    data, _ = many(num_images=5, per_image=4)
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        rle = mask_api.merge(mask_api.frPyObjects([[x, y, x + w, y, x + w, y + h, x, y + h]], 100, 100))
        entry.update(segmentation=rle, area=float(mask_api.area(rle)), iscrowd=0)
    results = simulated(data, 'segm')
    for entry in results:
        entry['bbox'] = mask_api.toBbox(entry['segmentation']).tolist()
    preds, target = as_lists(data, results, with_masks=True)
    for entry in target:
        del entry['area'], entry['iscrowd'], entry['image_size']
    metric = OcclusionMeanAveragePrecision(('bbox', 'segm'), EVALUATION)
    metric.update(preds, target)
    values = metric.compute()
    report = evaluate(data, results, EVALUATION, iou_types=('bbox', 'segm')).report
    expected = expected_values(report, 'bbox', 'bbox_') | expected_values(report, 'segm', 'segm_')
    assert numbers(values) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(('preds', 'target', 'message'), [
    ([], [{}], 'got 0 preds and 1 targets'),
    ([dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0))], [dict()], "preds has no 'scores'; it has boxes, labels"),
])
def test_invalid_update(preds, target, message):
    with pytest.raises(ValueError, match=message):
        OcclusionMeanAveragePrecision().update(preds, target)


@pytest.mark.parametrize(('of', 'wrong', 'message'), [
    ('target', dict(iscrowd=torch.zeros(3)), "target[0]: 'iscrowd' has shape (3,); expected (2,) for 2 labels"),
    ('target', dict(area=[1.]), "target[0]: 'area' has shape (1,); expected (2,) for 2 labels"),
    ('target', dict(boxes=torch.zeros(1, 4)), "target[0]: 'boxes' has shape (1, 4); expected (2, 4) for 2 labels"),
    ('preds', dict(boxes=torch.zeros(0, 4)), "preds[0]: 'boxes' has shape (0, 4); expected (2, 4) for 2 labels"),
    ('preds', dict(boxes=torch.zeros(2, 5)), "preds[0]: 'boxes' has shape (2, 5); expected (2, 4) for 2 labels"),
    ('preds', dict(scores=torch.ones(3)), "preds[0]: 'scores' has shape (3,); expected (2,) for 2 labels"),
    ('preds', dict(scores=torch.ones(2, 1)), "preds[0]: 'scores' has shape (2, 1); expected (2,) for 2 labels"),
    ('target', dict(labels=torch.ones(2, 3)), "target[0]: labels must be integers, one per object; got [[1.0, "),
    ('target', dict(labels=torch.tensor(1)), "target[0]: labels must be integers, one per object; got 1"),
    ('preds', dict(labels=torch.tensor([1.5, 1])), 'preds[0]: labels must be integers, one per object; got [1.5, 1.0]'),
    ('target', dict(image_size=(5, )), "target[0]: 'image_size' has shape (1,); expected height and width"),
])
def test_mismatched_lengths(of, wrong, message):
    """These used to fail with NumPy's concatenation error or an IndexError."""
    entries = dict(preds=dict(boxes=torch.ones(2, 4), scores=torch.ones(2), labels=torch.zeros(2)),
                   target=dict(boxes=torch.ones(2, 4), labels=torch.zeros(2)))
    entries[of] |= wrong
    with pytest.raises(ValueError, match=re.escape(message)):
        OcclusionMeanAveragePrecision().update([entries['preds']], [entries['target']])


def evaluate_part(rank, path, results):
    torch_dist.init_process_group('gloo', init_method=f'file://{path}', rank=rank, world_size=2)
    preds, target = as_lists(*many(num_images=12, per_image=8))
    metric = OcclusionMeanAveragePrecision(evaluation=EVALUATION)
    mine = slice(6 * rank, 6 * rank + 6)  # in this order, as ties between images are broken by it
    metric.update(preds[mine], target[mine])
    results[rank] = numbers(metric.compute())
    leave_processes()


def test_two_processes_match_one(tmp_path):
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        run_processes(evaluate_part, (tmp_path / 'store', results))
        report = evaluate(*many(num_images=12, per_image=8), EVALUATION).report
        for rank in range(2):
            assert results[rank] == pytest.approx(expected_values(report, 'bbox'), abs=1e-12)


@pytest.mark.parametrize('masks', [torch.full((1, 8, 8), .9), torch.ones(1, 1, 8, 8, dtype=torch.bool),
                                   np.ones((8, 8), dtype=int), torch.ones(2, 8, 8, dtype=torch.uint8),
                                   [dict(size=[8, 8], counts=b'0P2')]])
@pytest.mark.parametrize('what', ['preds', 'target'])
def test_soft_masks_and_other_shapes_are_refused(masks, what):
    one = dict(boxes=torch.tensor([[0., 0., 8., 8.]]), scores=torch.ones(1), labels=torch.ones(1, dtype=torch.int64),
               masks=torch.ones(1, 8, 8, dtype=torch.bool))
    entries = dict(preds=[one], target=[one]) | {what: [dict(one, masks=masks)]}
    message = (rf"{what}: 'masks' must be boolean or integers of shape \(1, height, width\), got .*masks > 0.5.*"
               r'masks.squeeze\(1\)')
    with pytest.raises(ValueError, match=message) as error:
        OcclusionMeanAveragePrecision('segm').update(**entries)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('dtype', [torch.bool, torch.uint8, torch.int64])
def test_integer_masks_and_extra_keys(dtype):
    one = dict(boxes=torch.tensor([[0., 0., 8., 8.]]), scores=torch.ones(1), labels=torch.ones(1, dtype=torch.int64),
               masks=torch.ones(1, 8, 8).to(dtype) * (1 if dtype == torch.bool else 256 if dtype == torch.int64 else 255),
               file_name='a.jpg', meta=object())
    metric = OcclusionMeanAveragePrecision('segm', EVALUATION)
    metric.update([one], [one])
    assert metric.compute()['map'].item() == pytest.approx(1, abs=1e-12)


def torchmetrics_values(preds, target, **options):
    detection = pytest.importorskip('torchmetrics.detection')
    # By default it rounds the thresholds to single precision, and differs from pycocotools.
    metric = detection.MeanAveragePrecision(backend='pycocotools', iou_thresholds=IOU_THRESHOLDS.tolist(),
                                            rec_thresholds=RECALL_POINTS.tolist(), **options)
    metric.update(preds, [{key: value for key, value in entry.items() if key != 'image_size'} for entry in target])
    return metric.compute()


@pytest.mark.parametrize('options', [{}, dict(class_metrics=True), dict(max_detection_thresholds=[1, 10, 300]),
                                     dict(average='micro')])
def test_keys_and_values_are_torchmetrics(options):
    preds, target = as_lists(*many(num_images=8, per_image=8))
    for entry in target:
        entry['area'][::2] = 0  # which is computed
    theirs = torchmetrics_values(preds, target, **options)
    metric = OcclusionMeanAveragePrecision(evaluation=EVALUATION, **options)
    metric.update(preds, target)
    ours = metric.compute()
    assert set(theirs) <= set(ours)
    assert ours['classes'].dtype == theirs['classes'].dtype
    for name, value in theirs.items():
        if (name, value.tolist()) != ('map', -1):  # pycocotools has no AP where 100 is not among the limits
            assert ours[name].tolist() == pytest.approx(value.tolist(), abs=1e-6), name  # theirs are in single precision


def test_masks_alone():
    """torchmetrics needs no boxes for segm."""
    masks = torch.zeros(3, 40, 40, dtype=torch.bool)
    masks[0, 2:20, 2:20] = masks[1, 10:30, 10:30] = masks[2, 5:39, 25:39] = True
    target = [dict(masks=masks, labels=torch.tensor([1, 1, 2]))]
    preds = [dict(masks=masks.roll(2, dims=2), labels=torch.tensor([1, 1, 2]), scores=torch.tensor([.9, .8, .7]))]
    theirs = torchmetrics_values(preds, target, iou_type='segm')
    metric = OcclusionMeanAveragePrecision('segm', EVALUATION)
    metric.update(preds, target)
    ours = metric.compute()
    for name, value in theirs.items():
        assert ours[name].tolist() == pytest.approx(value.tolist(), abs=1e-6), name
    assert metric.result.ground_truth.boxes_xywh.tolist() == [[2, 2, 18, 18], [10, 10, 20, 20], [25, 5, 14, 34]]
    with pytest.raises(ValueError, match="preds has no 'boxes'; it has masks"):
        OcclusionMeanAveragePrecision(('bbox', 'segm')).update(preds, target)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(iou_thresholds=[.5]), "iou_thresholds must be COCO's, the default; register_statistic"),
    (dict(rec_thresholds=[0, .5, 1]), "rec_thresholds must be COCO's"),
    (dict(extended_summary=True), 'extended_summary=True is not supported; metric.result.records'),
    (dict(backend='other'), "backend='other'; use one of pycocotools, faster_coco_eval"),
    (dict(average='weighted'), "average='weighted'; use 'macro', or 'micro'"),
    (dict(average='micro', class_metrics=True), "average='micro'; use 'macro', or 'micro' without class_metrics"),
])
def test_options_of_torchmetrics(options, message):
    with pytest.raises(ValueError, match=message):
        OcclusionMeanAveragePrecision(**options)
    accepted = dict(iou_thresholds=IOU_THRESHOLDS.tolist(), rec_thresholds=RECALL_POINTS.tolist(), backend='faster_coco_eval')
    assert OcclusionMeanAveragePrecision(**accepted).proposal_nums == (1, 10, 100)


def test_values_equal_pycocotools():
    data, results = many(num_images=8, per_image=8)
    metric = OcclusionMeanAveragePrecision()
    metric.update(*as_lists(data, results))
    values = metric.compute()
    evaluation = coco_evaluation(data, results, 'bbox')
    statistics(evaluation)
    names = ('map', 'map_50', 'map_75', 'map_small', 'map_medium', 'map_large', 'mar_1', 'mar_10', 'mar_100', 'mar_small',
             'mar_medium', 'mar_large')
    assert [values[name].item() for name in names] == pytest.approx(evaluation.stats.tolist(), abs=1e-12)
    assert values['map'].dtype == torch.float64


@pytest.mark.parametrize('box_format', ['xywh', 'cxcywh'])
def test_box_formats(box_format):
    preds, target = as_lists(*many(num_images=3, per_image=5))
    metrics = [OcclusionMeanAveragePrecision(box_format=name) for name in ('xyxy', box_format)]
    metrics[0].update(preds, target)
    for entry in (*preds, *target):
        low, high = entry['boxes'][:, :2], entry['boxes'][:, 2:]
        entry['boxes'] = torch.cat([low if box_format == 'xywh' else (low + high) / 2, high - low], dim=1)
    metrics[1].update(preds, target)
    first, second = (metric.compute() for metric in metrics)
    assert numbers(second) == pytest.approx(numbers(first), abs=1e-9)


def test_metric_of_torchmetrics():
    torchmetrics = pytest.importorskip('torchmetrics')
    preds, target = as_lists(*many(num_images=6, per_image=6))
    metric = OcclusionMeanAveragePrecision(evaluation=EVALUATION)
    assert isinstance(metric, torchmetrics.Metric)
    collection = torchmetrics.MetricCollection([metric.clone()])
    of_batch = metric(preds[:2], target[:2])
    alone = OcclusionMeanAveragePrecision(evaluation=EVALUATION)
    alone.update(preds[:2], target[:2])
    assert of_batch['map'] == alone.compute()['map']
    metric.update(preds[2:], target[2:])
    collection.update(preds, target)
    assert collection.compute()['map'] == metric.compute()['map']
    metric.reset()
    with pytest.raises(ValueError, match='call update before compute'):
        metric.compute()


@pytest.mark.parametrize('library', [None, 'supervision'])
def test_supervision_detections(library):
    make = pytest.importorskip(library).Detections if library else SimpleNamespace
    preds, target = as_lists(*many(num_images=3, per_image=5))
    for entry in target:
        del entry['area'], entry['iscrowd'], entry['image_size']
    expected, metric = OcclusionMeanAveragePrecision(), OcclusionMeanAveragePrecision()
    expected.update(preds, target)
    metric.update([make(xyxy=entry['boxes'].numpy(), confidence=entry['scores'].numpy(), class_id=entry['labels'].numpy())
                   for entry in preds],
                  [make(xyxy=entry['boxes'].numpy(), class_id=entry['labels'].numpy()) for entry in target])
    assert metric.compute()['map'] == expected.compute()['map']
    with pytest.raises(ValueError, match='supervision.Detections: confidence is None, expected one for each of the 1 boxes'):
        metric.update([make(xyxy=np.zeros((1, 4)), class_id=np.zeros(1, dtype=int), confidence=None)], target[:1])


def empty_image():
    return dict(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))


def test_empty_data_is_undefined():
    """As in torchmetrics, for an untrained detector on images without objects."""
    theirs = torchmetrics_values([empty_image()], [empty_image()])
    metric = OcclusionMeanAveragePrecision()
    metric.update([empty_image()], [empty_image()])
    with pytest.warns(UserWarning, match='there are no detections'):
        ours = metric.compute()
    assert {name: ours[name].tolist() for name in theirs} == {name: value.tolist() for name, value in theirs.items()}


@pytest.mark.parametrize('iou_type', ['segm', ('bbox', 'segm')])
@pytest.mark.parametrize('empty', ['preds', 'target'])
@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('library', [None, 'supervision'])
def test_images_without_objects_need_no_masks(iou_type, empty, place, library):
    """supervision's empty Detections have no masks."""
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[0, 2:20, 2:20] = masks[1, 10:30, 10:30] = True
    boxes = torch.tensor([[2., 2., 20., 20.], [10., 10., 30., 30.]])
    one = dict(boxes=boxes, scores=torch.tensor([.9, .8]), labels=torch.tensor([1, 1]), masks=masks)
    entries = dict(preds=[one, one], target=[one, one])
    nothing = empty_image()
    if library:
        nothing = pytest.importorskip(library).Detections.empty()
    entries[empty] = [*entries[empty][:place], nothing, *entries[empty][place + 1:]]
    metric, expected = OcclusionMeanAveragePrecision(iou_type), OcclusionMeanAveragePrecision(iou_type)
    with_masks = dict(empty_image(), masks=torch.zeros(0, 40, 40, dtype=torch.bool))
    metric.update(**entries)
    expected.update(**{**entries, empty: [with_masks if entry is nothing else entry for entry in entries[empty]]})
    assert numbers(metric.compute()) == numbers(expected.compute())


def test_masks_of_predictions_are_not_read_for_boxes():
    """torchvision's Mask R-CNN predicts probabilities."""
    preds, target = as_lists(*many(num_images=3, per_image=5))
    metric, expected = OcclusionMeanAveragePrecision(), OcclusionMeanAveragePrecision()
    expected.update(preds, target)
    metric.update([dict(entry, masks=torch.rand(len(entry['boxes']), 1, 8, 8)) for entry in preds], target)
    assert numbers(metric.compute()) == numbers(expected.compute())


def test_boxes_outside_an_image_of_unknown_size_keep_their_format():
    """The targets alone do not determine the image size."""
    corners = torch.arange(30.)
    boxes = torch.stack([corners + 200, corners + 300, corners + 260, corners + 380], dim=1)
    preds = [dict(boxes=boxes, scores=corners / 30, labels=torch.ones(30, dtype=torch.int64))]
    metric = OcclusionMeanAveragePrecision()
    metric.update(preds, [dict(boxes=torch.tensor([[10., 10., 300., 350.]]), labels=torch.tensor([1]))])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        metric.compute()


def test_compact_masks_of_supervision():
    compact = pytest.importorskip('supervision.detection.compact_mask')
    detections = pytest.importorskip('supervision').Detections
    masks, boxes = np.zeros((1, 40, 40), dtype=bool), np.array([[2., 2., 20., 20.]])
    masks[0, 2:20, 2:20] = True
    packed = compact.CompactMask.from_dense(masks, boxes, image_shape=(40, 40))
    metric = OcclusionMeanAveragePrecision('segm')
    metric.update([detections(xyxy=boxes, class_id=np.array([1]), confidence=np.ones(1), mask=packed)],
                  [detections(xyxy=boxes, class_id=np.array([1]), mask=masks)])
    assert metric.compute()['map'].item() == pytest.approx(1, abs=1e-12)


def test_unknown_box_format():
    with pytest.raises(ValueError, match="box_format='xyhw'; use one of xyxy, xywh, cxcywh"):
        OcclusionMeanAveragePrecision(box_format='xyhw')
