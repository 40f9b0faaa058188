"""OcclusionCocoMetric against mmdet's CocoMetric on the same predictions."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet')
import torch
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mmtied.evaluation import evaluate
from mmtied.evaluation.masks import Crop
from mmtied.evaluation.metric import OcclusionCocoMetric
from mmtied.evaluation.stream import MatchedImages, as_masks
from tests.helpers.buckets import assign_buckets
from tests.helpers.coco_oracle import assert_same, coco_statistics
from tests.helpers.samples import CLASSES, HEIGHT, WIDTH, make_data, make_samples


@pytest.fixture
def ann_file(tmp_path):
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(make_data(np.random.default_rng(0))))
    return str(path)


def run(metric, samples, batch_size=2):
    metric.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start:start + batch_size])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('proposal_nums', [(1, 10, 100), (100, 300, 1000)])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_numbers_match_coco_metric(tmp_path, proposal_nums, seed):
    rng = np.random.default_rng(seed)
    data = make_data(rng)
    ann_file = tmp_path / 'instances.json'
    ann_file.write_text(json.dumps(data))
    samples = make_samples(data, rng)
    options = dict(ann_file=str(ann_file), metric=['bbox', 'segm'], proposal_nums=proposal_nums)
    ours = OcclusionCocoMetric(**options, edges=(0, .4, 1))
    values = run(ours, samples)
    expected = run(CocoMetric(**options, outfile_prefix=str(tmp_path / 'results')), samples)
    assert {name: round(values[name], 3) for name in expected} == expected

    # CocoMetric rounds to three digits: ask pycocotools about the files that it wrote.
    for iou_type in ('bbox', 'segm'):
        results = json.loads((tmp_path / f'results.{iou_type}.json').read_text())
        if iou_type == 'segm':
            for entry in results:
                entry.pop('bbox')
        chosen = dict(category_ids=[2, 4, 7], proposal_nums=proposal_nums)
        assert_same(ours.report[iou_type]['all'], coco_statistics(data, results, iou_type, **chosen))
        for number, bucket in enumerate(ours.report[iou_type]['buckets']):
            ids = ours.ground_truth.image_ids[assign_buckets(ours.ratios, ours.buckets) == number].tolist()
            assert_same(bucket, coco_statistics(data, results, iou_type, image_ids=ids, **chosen), bucket['name'])


def test_only_images_with_results(tmp_path):
    """Equals annotations of these images alone; without the option, the other objects count as missed, with a note."""
    rng = np.random.default_rng(3)
    data = make_data(rng)
    part = make_samples(data, rng)[:7]
    ids = [sample['img_id'] for sample in part]
    smaller = dict(data, images=[image for image in data['images'] if image['id'] in ids],
                   annotations=[entry for entry in data['annotations'] if entry['image_id'] in ids])
    metrics = []
    for number, (of_file, options) in enumerate([(data, dict(only_images_with_results=True)), (smaller, {}), (data, {})]):
        path = tmp_path / f'{number}.json'
        path.write_text(json.dumps(of_file))
        metrics.append(OcclusionCocoMetric(str(path), metric=['bbox', 'segm'], edges=(0, .4, 1), **options))
        run(metrics[-1], part)
    chosen, alone, all_images = metrics
    for iou_type in ('bbox', 'segm'):
        assert chosen.report[iou_type] == alone.report[iou_type]
        assert 0 < all_images.report[iou_type]['all']['AP'] < chosen.report[iou_type]['all']['AP']
    assert any('only 7 of the 12 annotated images were processed' in note for note in all_images.report['notes'])


def test_scalar_names(ann_file):
    data = json.loads(Path(ann_file).read_text())
    samples = make_samples(data, np.random.default_rng(0), with_masks=False)
    metric = METRICS.build(dict(type='OcclusionCocoMetric', ann_file=ann_file))
    values = run(metric, samples)
    overall = ['bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l']
    assert list(values)[:6] == [f'coco/{name}' for name in overall]
    for bucket, key in zip(metric.report['bbox']['buckets'], [bucket.key for bucket in metric.buckets], strict=True):
        assert values.get(f'coco/bbox_mAP_{key}') == bucket['AP']
        assert values.get(f'coco/bbox_mAP_75_{key}') == bucket['AP75']
    assert 'coco/bbox_mAP_r0.9-1' not in values or metric.report['bbox']['buckets'][-1]['AP'] is not None


def test_repeated_images_count_once(ann_file):
    data = json.loads(Path(ann_file).read_text())
    samples = make_samples(data, np.random.default_rng(1))
    once = OcclusionCocoMetric(ann_file, ['bbox', 'segm'])
    padded = OcclusionCocoMetric(ann_file, ['bbox', 'segm'])
    assert run(padded, samples + samples[:3]) == run(once, samples)


def test_images_and_masks_without_predictions_count(ann_file):
    metric = OcclusionCocoMetric(ann_file, ['bbox', 'segm'])
    data = json.loads(Path(ann_file).read_text())
    nothing = InstanceData(bboxes=torch.empty(0, 4), scores=torch.empty(0), labels=torch.empty(0, dtype=torch.int64),
                           masks=torch.empty(0, HEIGHT, WIDTH, dtype=torch.bool))
    sample = dict(img_id=data['images'][0]['id'], ori_shape=(HEIGHT, WIDTH), pred_instances=nothing)
    values = run(metric, [sample])
    assert values['coco/bbox_mAP'] == values['coco/segm_mAP'] == 0
    assert metric.report['bbox']['all']['images'] == len(data['images'])


def test_run_length_codes_and_arrays_match_tensors(ann_file):
    from pycocotools import mask as mask_api
    data = json.loads(Path(ann_file).read_text())
    expected = run(OcclusionCocoMetric(ann_file, 'segm'), make_samples(data, np.random.default_rng(2)))
    for convert in (lambda mask: mask.numpy(),
                    lambda mask: [mask_api.encode(np.asfortranarray(one.numpy().astype(np.uint8))) for one in mask]):
        samples = make_samples(data, np.random.default_rng(2))
        for sample in samples:
            sample['pred_instances'] = dict(sample['pred_instances'].items())
            sample['pred_instances']['masks'] = convert(sample['pred_instances']['masks'])
        assert run(OcclusionCocoMetric(ann_file, 'segm'), samples) == expected


@pytest.mark.parametrize(('options', 'message'), [
    (dict(ann_file=None), 'needs ann_file'),
    (dict(ann_file='nowhere.json'), 'nowhere.json: no such file'),
    (dict(ann_file=5), 'OcclusionCocoMetric: ann_file must be the path of a COCO instances file, a dict in that format.* got 5'),
    (dict(metric='proposal'), "unknown IoU type 'proposal'"),
    (dict(metric=None), 'unknown IoU type None; known: bbox, segm'),
    (dict(metric=[['bbox']]), r"unknown IoU type \['bbox'\]"),
    (dict(metric=[]), 'no IoU type given; known: bbox, segm'),
    (dict(proposal_nums=100), 'proposal_nums: expected positive integers such as .*, got 100'),
    (dict(edges=.5), 'bucket edges: .* such as .*, got 0.5'),
    (dict(edges=(0, 2)), "r by definition 'covered' is at most 1, got an edge of 2.0"),
    (dict(definition='some'), 'unknown occlusion definition'),
    (dict(edges=(1, 0)), 'strictly increasing'),
    (dict(unit='box'), "unknown bucket unit 'box'"),
    (dict(extra_evaluations=[dict(edges=(1, 0))]), 'strictly increasing'),
    (dict(format_only=True), 'keep a CocoMetric'),
    (dict(outfile_prefix='a/b'), 'keep a CocoMetric'),
    (dict(further=[dict(unit='instance')]), 'further is now called extra_evaluations'),
    (dict(edge=(0, 1)), "unexpected argument edge; did you mean edges"),
])
def test_invalid_options(ann_file, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        OcclusionCocoMetric(**{'ann_file': ann_file, **options})


def test_unknown_class(ann_file):
    metric = OcclusionCocoMetric(ann_file)
    with pytest.raises(ValueError, match="no category named 'zebra'"):  # when the loop is built, before anything runs
        metric.dataset_meta = dict(classes=('cat', 'zebra'))


def test_segm_without_masks(ann_file):
    data = json.loads(Path(ann_file).read_text())
    with pytest.raises(ValueError, match='needs masks, but the predictions have none'):
        run(OcclusionCocoMetric(ann_file, 'segm'), make_samples(data, np.random.default_rng(0), with_masks=False))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='compares a GPU with the CPU')
def test_gpu_records_match_cpu(ann_file):
    samples = make_samples(make_data(np.random.default_rng(0)), np.random.default_rng(1))
    reports, records = [], []
    for device in ('cpu', 'cuda'):
        metric = OcclusionCocoMetric(ann_file, metric=['bbox', 'segm'])
        moved = [{**sample, 'pred_instances': {key: value.to(device) for key, value in sample['pred_instances'].items()}}
                 for sample in samples]
        run(metric, moved)
        reports.append(metric.report)
        metric.process({}, moved)
        found, = metric._matched(metric.results)
        records.append([column.cpu() for column in found.tensors()])
    assert all(torch.equal(mine, other) for mine, other in zip(*records, strict=True))
    assert_same(reports[0]['bbox']['all'], reports[1]['bbox']['all'])


def test_batch_size_does_not_matter(ann_file, monkeypatch):
    samples = make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(3))
    samples += samples[:2]  # repeated in another batch
    values = []
    for batch in (1, 3, 100):
        monkeypatch.setattr('mmtied.evaluation.metric.BATCH', batch)
        metric = OcclusionCocoMetric(ann_file, ['bbox', 'segm'], extra_evaluations=[dict(unit='instance')])
        values.append(run(metric, samples))
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize('batch', [1, 2, 3, 100])
def test_first_of_repeated_images_counts(ann_file, monkeypatch, batch):
    monkeypatch.setattr('mmtied.evaluation.metric.BATCH', batch)
    data = json.loads(Path(ann_file).read_text())
    samples = make_samples(data, np.random.default_rng(3))
    others = make_samples(data, np.random.default_rng(4))  # the same images with other predictions
    first, repeated = (OcclusionCocoMetric(ann_file, ['bbox', 'segm']) for _ in range(2))
    interleaved = [sample for pair in zip(samples, others, strict=True) for sample in pair]
    expected = run(first, samples)
    assert run(repeated, interleaved, batch_size=1) == expected
    assert torch.equal(repeated.shown, first.shown)
    assert run(repeated, samples + others, batch_size=1) == expected
    assert run(repeated, others) != expected


def test_matched_images_keep_small_records(ann_file, monkeypatch):
    monkeypatch.setattr('mmtied.evaluation.metric.BATCH', 3)
    metric = OcclusionCocoMetric(ann_file, ['bbox', 'segm'])
    metric.dataset_meta = dict(classes=CLASSES)
    for number, sample in enumerate(make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(3)), 1):
        metric.process(None, [sample])
        waiting = [result for result in metric.results if not isinstance(result, MatchedImages)]
        assert len(waiting) == number % 3
    done = [result for result in metric.results if isinstance(result, MatchedImages)]
    tables = [table for result in done for table in result.records.values()]
    num_bytes = sum(column.element_size() * column[0].numel() for column in tables[0])
    # Positions and rank, score, two sets of bits in four area ranges, and the object with its IoU.
    assert num_bytes == 3 * 4 + 8 + 2 * 4 * 2 + 4 + 4
    assert sum(len(table.image) for table in tables) > 0


def test_second_epoch_decodes_no_masks(ann_file, monkeypatch):
    samples = make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(3))
    metric = OcclusionCocoMetric(ann_file, 'segm')
    first = run(metric, samples)
    monkeypatch.delattr(Crop, 'of')
    assert run(metric, samples) == first


def test_scalars_of_extra_evaluations(ann_file):
    samples = make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(0), with_masks=False)
    further = [dict(unit='instance', edges=(0, 1)), dict(cumulative=True, edges=(0, .4, 1)), dict(edges=(0, .4, 1))]
    metric = OcclusionCocoMetric(ann_file, extra_evaluations=further)
    values = run(metric, samples)
    keys = ['covered_instance_bbox_mAP_r0-1', 'covered_cumulative_bbox_mAP_75_r0.4-up', 'covered_2_bbox_mAP_r0.4-1']
    by_instance, cumulative, other = (report['bbox']['buckets'] for report in metric.report['further'])
    assert [values[f'coco/{key}'] for key in keys] == [by_instance[1]['AP'], cumulative[1]['AP75'], other[2]['AP']]


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning',
                        lambda line: None if 'orders the categories differently' in line else lines.append(line))
    return lines


def inverted_samples(data, sides):
    """Predictions whose highest-scoring box per image has swapped corners, along x or both axes."""
    samples = make_samples(data, np.random.default_rng(5), with_masks=False)
    changed = [sample for sample in samples if len(sample['pred_instances']['scores'])][1::3]
    for sample in changed:
        predictions = sample['pred_instances']
        predictions['scores'][0] = 1
        swap = [2, 1, 0, 3] if sides == 1 else [2, 3, 0, 1]
        predictions['bboxes'][0] = predictions['bboxes'][0][swap]
    return samples, [sample['img_id'] for sample in changed]


@pytest.mark.parametrize('sides', [1, 2])
def test_inverted_boxes_match_pycocotools_and_warn_once(ann_file, monkeypatch, warnings, sides):
    monkeypatch.setattr('mmtied.evaluation.metric.BATCH', 3)
    data = json.loads(Path(ann_file).read_text())
    samples, changed = inverted_samples(data, sides)
    metric = OcclusionCocoMetric(ann_file)
    run(metric, samples + samples[:4])  # a padded sampler repeats some
    assert warnings == [f'OcclusionCocoMetric: predicted boxes of {len(changed)} images, such as image id {changed[0]}, have '
                        'x2 < x1 or y2 < y1; as in pycocotools they match nothing, and are false positives only if both sides '
                        'are negative']
    category_ids = {0: 7, 1: 2, 2: 4}
    results = []
    for sample in samples:
        predictions = sample['pred_instances']
        for box, score, label in zip(*(predictions[key].tolist() for key in ('bboxes', 'scores', 'labels')), strict=True):
            results.append(dict(image_id=sample['img_id'], category_id=category_ids[label], score=score,
                                bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]]))
    expected = coco_statistics(data, results, 'bbox', category_ids=[2, 4, 7])
    assert_same(metric.report['bbox']['all'], expected)
    without = [entry for entry in results if entry['bbox'][2] >= 0]
    assert (coco_statistics(data, without, 'bbox', category_ids=[2, 4, 7]) == expected) == (sides == 1)


def test_no_warning_for_valid_boxes(ann_file, warnings):
    run(OcclusionCocoMetric(ann_file), make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(5)))
    assert warnings == []


def test_no_predictions(ann_file):
    metric = OcclusionCocoMetric(ann_file)
    metric.dataset_meta = dict(classes=CLASSES)
    values = metric.evaluate(12)
    assert values['coco/bbox_mAP'] == 0


def test_soft_masks_are_thresholded_at_one_half():
    """As in mmdet's heads; an empty float tensor, which SOLO returns without detections, means no masks."""
    soft = torch.tensor([[[0., .3, .5, .51, 1.]]])
    expected = [[[False, False, False, True, True]]]
    assert as_masks(soft).tolist() == as_masks(soft.numpy()).tolist() == as_masks(soft.half()).tolist() == expected
    assert as_masks(torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)).tolist() == [[[False, True, True]]]
    assert as_masks(torch.zeros(0, 4, 5)).shape == (0, 4, 5)


def test_annotations_as_coco_object(ann_file):
    coco, samples = COCO(ann_file), make_samples(json.loads(Path(ann_file).read_text()), np.random.default_rng(0))
    metrics = [OcclusionCocoMetric(given, ['bbox', 'segm']) for given in (ann_file, coco)]
    values = [run(metric, samples) for metric in metrics]
    assert values[0] == values[1]
    assert metrics[1].scalar_names() == list(values[1])


@pytest.mark.parametrize(('name', 'message'), [
    ('bbx', "unknown IoU type 'bbx'; did you mean 'bbox'[?] Known: bbox, segm"),
    ('masks', "did you mean 'segm'[?]"),
    ('keypoints', "unknown IoU type 'keypoints'; known: bbox, segm"),
])
def test_misspelled_iou_types(ann_file, name, message):
    with pytest.raises(ValueError, match=message):
        OcclusionCocoMetric(ann_file, ['bbox', name])
    with pytest.raises(ValueError, match=message):
        evaluate(json.loads(Path(ann_file).read_text()), [], iou_types=name)
