"""Two processes over gloo give the numbers of one, also when a padded sampler repeats an image."""

import json

import pytest

pytest.importorskip('mmengine')
import numpy as np
import torch
from coco_oracle import shape
from mmengine import dist

from mmtied.evaluation.metric import OcclusionCocoMetric

HEIGHT, WIDTH, IMAGES = 60, 80, 7


def samples(rng):
    """An annotated image and a prediction for each of its instances, jittered."""
    for image_id in range(1, IMAGES + 1):
        boxes = np.concatenate([rng.uniform(0, 40, (3, 2)), rng.uniform(8, 30, (3, 2))], axis=1)
        noisy = boxes + rng.normal(size=boxes.shape)
        predictions = dict(bboxes=torch.from_numpy(np.concatenate([noisy[:, :2], noisy[:, :2] + noisy[:, 2:]], axis=1)),
                           scores=torch.from_numpy(rng.integers(1, 5, 3) / 5), labels=torch.zeros(3, dtype=torch.int64))
        annotations = [dict(id=10 * image_id + number, image_id=image_id, category_id=1, bbox=box.tolist(), iscrowd=0,
                            area=float(box[2] * box[3]), segmentation=shape(box, HEIGHT, WIDTH, rng, polygon=True))
                       for number, box in enumerate(boxes)]
        yield annotations, dict(img_id=image_id, pred_instances=predictions)


def evaluate(rank, world_size, folder):
    if world_size > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    annotations, predictions = zip(*samples(np.random.default_rng(0)), strict=True)
    metric = OcclusionCocoMetric(f'{folder}/instances.json')
    metric.dataset_meta = dict(classes=('thing',))
    mine = (predictions + predictions)[rank:IMAGES + IMAGES % world_size:world_size]  # padded with the first images
    for sample in mine:
        metric.process(None, [sample])
    metric.collect_dir = f'{folder}/collect'
    values = metric.evaluate(IMAGES)
    if dist.is_main_process():
        (folder / f'{world_size}.json').write_text(json.dumps([values, metric.report]))


def test_two_processes_equal_one(tmp_path):
    annotations = [entry for entries, _ in samples(np.random.default_rng(0)) for entry in entries]
    images = [dict(id=number, height=HEIGHT, width=WIDTH) for number in range(1, IMAGES + 1)]
    (tmp_path / 'instances.json').write_text(json.dumps(dict(images=images, annotations=annotations,
                                                             categories=[dict(id=1, name='thing')])))
    evaluate(0, 1, tmp_path)
    torch.multiprocessing.spawn(evaluate, (2, tmp_path), nprocs=2)
    one, two = (json.loads((tmp_path / f'{number}.json').read_text()) for number in (1, 2))
    assert two == one
    assert 0 < one[1]['bbox']['all']['AP'] < 1
