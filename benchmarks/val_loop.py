"""Time the overhead of a metric in a val loop: `process` per image and `evaluate` at the end, for boxes and boolean masks.

``benchmarks/evaluation.py`` starts it. Both metrics get the same predictions in turns, on the device; only their calls are timed.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger
from pycocotools import mask as mask_api
from simulated_detections import SimulatedDetections
from timing import synchronize

from mmtied.evaluation.metric import OcclusionCocoMetric

#: CocoMetric's default, so that both compute the same numbers.
PROPOSAL_NUMS = (100, 300, 1000)


def main() -> None:
    """Time both metrics once and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='folder with annotations.json and detections.npz')
    parser.add_argument('images', type=int)
    parser.add_argument('output', type=Path)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    MMLogger.get_instance('benchmark', log_level=logging.ERROR)
    MMLogger.get_instance('mmengine', log_level=logging.ERROR)

    data = json.loads((args.folder / 'annotations.json').read_text(encoding='utf-8'))
    data['images'] = data['images'][:args.images]
    chosen = [image['id'] for image in data['images']]
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in set(chosen)]
    subset = args.folder / 'val_annotations.json'
    subset.write_text(json.dumps(data), encoding='utf-8')
    common = dict(ann_file=str(subset), metric=['bbox', 'segm'], proposal_nums=PROPOSAL_NUMS)
    metrics = {'mmtied': OcclusionCocoMetric(**common), 'CocoMetric': CocoMetric(**common)}
    for metric in metrics.values():
        metric.dataset_meta = {'classes': [category['name'] for category in data['categories']]}
    seconds = {name: {'process': 0., 'compute': 0.} for name in metrics}

    detections = SimulatedDetections.load(args.folder / 'detections.npz')
    rles = detections.rles()
    labels = {category['id']: label for label, category in enumerate(data['categories'])}
    for image in data['images']:
        here = (detections.image_id == image['id']).nonzero()[0].tolist()
        sample = make_sample(image, detections, rles, here, labels, args.device)
        for name, metric in metrics.items():
            seconds[name]['process'] += timed(lambda: metric.process({}, [dict(sample)]), args.device)[0]  # noqa: B023
    found = {}
    for name, metric in metrics.items():
        seconds[name]['compute'], found[name] = timed(lambda: metric.evaluate(size=len(chosen)), args.device)  # noqa: B023
    names = [name for name in found['CocoMetric'] if name.split('_', 1)[1].startswith('mAP')]
    difference = max(abs(found['CocoMetric'][name] - found['mmtied'][name]) for name in names)
    args.output.write_text(json.dumps(dict(seconds=seconds, difference=difference)), encoding='utf-8')


def make_sample(image: dict, detections: SimulatedDetections, rles: list[dict], here: list[int], labels: dict[int, int],
                device: str) -> dict:
    """Build the data sample that mmdet passes to a metric for one image."""
    boxes = torch.from_numpy(detections.boxes_xywh[here]).float()
    masks = mask_api.decode([rles[number] for number in here]).transpose(2, 0, 1)
    predictions = dict(bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
                       scores=torch.from_numpy(detections.score[here]).float(),
                       labels=torch.tensor([labels[number] for number in detections.category_id[here].tolist()]),
                       masks=torch.from_numpy(masks.copy()).bool())
    return dict(img_id=image['id'], ori_shape=(image['height'], image['width']),
                pred_instances={key: value.to(device) for key, value in predictions.items()})


def timed(call: Callable[[], object], device: str) -> tuple[float, object]:
    """Return the seconds of a call, with a synchronized device, and its result."""
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - start, result


if __name__ == '__main__':
    main()
