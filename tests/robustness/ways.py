"""Compare the evaluation with pycocotools, whichever way it is called: function, command, metric and hook, several processes."""

import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock

import torch

from mmtied.evaluation import Evaluation, evaluate, read_ground_truth
from mmtied.evaluation.buckets import make_plan
from tests.helpers.coco_oracle import assert_same, coco_evaluation, coco_statistics, restrict, statistics

DEFINITIONS = ('covered', 'union', 'pairwise', 'instance_mean', 'max_iou', 'box_mask', 'mask')
WAYS = ('function', 'command', '1 process', '2 processes', '4 processes', 'hook')
EDGES = (0, .2, .5, 1)


def compare(data: dict, found: list) -> str | None:
    """Compare AP of all images and of the buckets of a random evaluation, by a random way, with pycocotools."""
    draw = random.Random(json.dumps([data, found]))
    iou_type, way = 'bbox' if 'bbox' in found[0] else 'segm', draw.choice(WAYS)
    evaluation = Evaluation(draw.choice(DEFINITIONS if all('segmentation' in entry for entry in data['annotations'])
                                        else DEFINITIONS[:5]), EDGES, draw.choice(['image', 'instance']),
                            draw.random() < .5, draw.random() < .5)
    names = [category['name'] for category in data['categories']]
    if way not in ('function', 'command'):
        named = set(map(type, names)) <= {str} and len(set(names)) == len(names) and all(names)
        if not named or any(not isinstance(entry.get('segmentation', {}), dict) for entry in found):
            way = 'function'
        else:
            found = [dict(entry, bbox=corners_and_back(entry['bbox'])) if 'bbox' in entry else entry for entry in found]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        report = REPORTS[way.split()[-1]](way, data, found, evaluation, iou_type)
        rows = list(expected(data, found, evaluation, iou_type))
    try:
        for ours, theirs in zip([report[iou_type]['all'], *report[iou_type]['buckets']], rows, strict=True):
            if theirs:
                assert_same(ours, theirs, ours.get('name', 'all'))
    except AssertionError as error:
        return f'another number than pycocotools by {way}: {error} {evaluation}'
    return None


def expected(data: dict, found: list, evaluation: Evaluation, iou_type: str) -> Iterator[dict | None]:
    """Yield pycocotools' statistics of all images and of each bucket, None for an empty one.

    Annotations outside a bucket of instances get an area outside all ranges, for which COCOeval ignores them.
    """
    ground_truth = read_ground_truth(data)
    ratios, whole = make_plan(ground_truth, [evaluation]).ratios[0], coco_evaluation(data, found, iou_type)
    yield statistics(whole)
    for bucket in evaluation.buckets:
        inside = bucket.holds(ratios)
        if evaluation.unit == 'image':
            yield statistics(restrict(whole, ground_truth.image_ids[inside])) if inside.any() else None
        else:
            kept = set(ground_truth.annotation_ids[inside].tolist())
            changed = [entry if entry['id'] in kept else dict(entry, area=2e10) for entry in data['annotations']]
            yield coco_statistics(dict(data, annotations=changed), found, iou_type) if kept else None


def by_function(way: str, data: dict, found: list, evaluation: Evaluation, iou_type: str) -> dict:
    return evaluate(data, found, evaluation, iou_types=[iou_type]).report


def by_command(way: str, data: dict, found: list, evaluation: Evaluation, iou_type: str) -> dict:
    from tests.robustness.fuzz import run_tool
    with TemporaryDirectory() as folder:
        for name, value in (('truth', data), ('found', found)):
            Path(folder, f'{name}.json').write_text(json.dumps(value))
        flags = [flag for flag, given in (('--cumulative', evaluation.cumulative), ('--same-category', evaluation.same_category))
                 if given]
        code, _, err = run_tool('eval', [f'{folder}/truth.json', f'{folder}/found.json', '--iou-type', iou_type, '--definition',
                                         evaluation.definition, '--unit', evaluation.unit, '--edges', *map(str, EDGES), *flags,
                                         '--replicates', '0', '--out', f'{folder}/out'])
        assert code == 0, err
        return json.loads(Path(folder, 'out/report.json').read_text())


def by_metric(way: str, data: dict, found: list, evaluation: Evaluation, iou_type: str) -> dict:
    """Let each of some processes have a part of the images, the first of them twice, and join what they would send."""
    from mmtied.evaluation import OcclusionCocoMetric
    from mmtied.evaluation.stream import MatchedImages
    number, parts = int(way.split()[0]), []
    images = samples(data, found)
    images += images[:-len(images) % number]  # as mmengine's sampler pads
    for rank in range(number):
        metric = OcclusionCocoMetric(ann_file=data, metric=iou_type, **options(evaluation))
        metric.dataset_meta = dict(classes=class_names(data))
        for image in images[rank::number]:
            metric.process(None, [image])
        parts.append([tensor.clone() for tensor in metric._once(metric.results).tensors()])
    metric.compute_metrics([MatchedImages.from_tensors(part, metric.metrics) for part in parts])
    return metric.report


def by_hook(way: str, data: dict, found: list, evaluation: Evaluation, iou_type: str) -> dict:
    """Let the hook add its metric to an evaluator, and read the report that it writes after a validation of a training."""
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger

    from mmtied.evaluation import OcclusionEvalHook
    from mmtied.evaluation.reporting.runs import read_report
    with TemporaryDirectory() as folder:
        Path(folder, 'truth.json').write_text(json.dumps(data))
        hook = OcclusionEvalHook(ann_file=f'{folder}/truth.json', metric=iou_type, **options(evaluation))
        evaluator, images = Evaluator([]), samples(data, found)
        evaluator.dataset_meta = dict(classes=class_names(data))
        runner = SimpleNamespace(hooks=[hook], logger=MMLogger.get_current_instance(), work_dir=folder, iter=0, epoch=0,
                                 _train_loop=None, model=None, visualizer=mock.Mock())
        hook._attach(runner, SimpleNamespace(metainfo=evaluator.dataset_meta), evaluator)
        for image in images:
            evaluator.process([image])
        evaluator.evaluate(len(images))
        hook._write(runner, SimpleNamespace(evaluator=evaluator), complete=False)
        return read_report(Path(folder, 'occlusion/report.json'))


REPORTS = {'function': by_function, 'command': by_command, 'process': by_metric, 'processes': by_metric, 'hook': by_hook}


def options(evaluation: Evaluation) -> dict:
    return dict(definition=evaluation.definition, edges=EDGES, unit=evaluation.unit, cumulative=evaluation.cumulative,
                same_category=evaluation.same_category)


def class_names(data: dict) -> list[str]:
    """Return the names of the labels, which follow the file, as mmdet's data sets number them."""
    return [category['name'] for category in data['categories']]


def corners_and_back(box: list) -> list:
    """Return a box as it is after its corners were computed, as detectors give them."""
    x, y, width, height = map(float, box)
    return [x, y, x + width - x, y + height - y]


def samples(data: dict, found: list) -> list[dict]:
    """Return the predictions of each image as mmdet's."""
    labels = {category['id']: label for label, category in enumerate(data['categories'])}
    made = []
    for image in data['images']:
        here = [entry for entry in found if entry['image_id'] == image['id']]
        boxes = torch.tensor([entry.get('bbox', [0, 0, 1, 1]) for entry in here], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = dict(bboxes=boxes, scores=torch.tensor([entry['score'] for entry in here], dtype=torch.float64),
                         labels=torch.tensor([labels[entry['category_id']] for entry in here], dtype=torch.int64))
        if any('segmentation' in entry for entry in found):
            instances['masks'] = [entry['segmentation'] for entry in here]
        made.append(dict(img_id=image['id'], pred_instances=instances))
    return made
