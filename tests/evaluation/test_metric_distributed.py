"""Several gloo processes give the numbers of one, and a dead process does not leave the others waiting."""

import json
import os
import time

import pytest

pytest.importorskip('mmengine')
import numpy as np
import torch
from mmengine import dist

from mmtied.evaluation.metric import OcclusionCocoMetric
from tests.helpers.coco_oracle import shape
from tests.helpers.processes import START, run_processes

HEIGHT, WIDTH, IMAGES = 60, 80, 7
BOUND_S = 120


def samples(rng):
    """Return an annotated image and a jittered prediction for each instance."""
    for image_id in range(1, IMAGES + 1):
        boxes = np.concatenate([rng.uniform(0, 40, (3, 2)), rng.uniform(8, 30, (3, 2))], axis=1)
        noisy = boxes + rng.normal(size=boxes.shape)
        masks = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
        for mask, (x, y, w, h) in zip(masks, noisy, strict=True):
            mask[max(0, int(y)):int(y + h), max(0, int(x)):int(x + w)] = True
        predictions = dict(bboxes=torch.from_numpy(np.concatenate([noisy[:, :2], noisy[:, :2] + noisy[:, 2:]], axis=1)),
                           scores=torch.from_numpy(rng.integers(1, 5, 3) / 5), labels=torch.zeros(3, dtype=torch.int64),
                           masks=torch.from_numpy(masks))
        annotations = [dict(id=10 * image_id + number, image_id=image_id, category_id=1, bbox=box.tolist(), iscrowd=0,
                            area=float(box[2] * box[3]), segmentation=shape(box, HEIGHT, WIDTH, rng, polygon=True))
                       for number, box in enumerate(boxes)]
        yield annotations, dict(img_id=image_id, pred_instances=predictions)


def join_group(rank, world_size, folder):
    if world_size > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store{world_size}', rank=rank, world_size=world_size)


def make_metric(folder):
    metric = OcclusionCocoMetric(f'{folder}/instances.json', metric=['bbox', 'segm'], edges=(0, .3, .6, 1),
                                 extra_evaluations=[dict(unit='instance', edges=(0, .5, 1))])
    metric.dataset_meta = dict(classes=('thing',))
    return metric


def evaluate(rank, world_size, folder, idle=None):
    join_group(rank, world_size, folder)
    predictions = [prediction for _, prediction in samples(np.random.default_rng(0))]
    metric = make_metric(folder)
    workers = [number for number in range(world_size) if number != idle]
    if rank in workers:
        padded = predictions + predictions[:-IMAGES % len(workers)]  # as mmengine's sampler pads
        for sample in padded[workers.index(rank)::len(workers)]:
            metric.process(None, [sample])
    values = metric.evaluate(IMAGES)
    assert not metric.results
    assert (metric.report is None) != dist.is_main_process()
    (folder / f'{world_size}_{rank}.json').write_text(json.dumps([values, metric.report]))


@pytest.fixture
def folder(tmp_path):
    annotations = [entry for entries, _ in samples(np.random.default_rng(0)) for entry in entries]
    images = [dict(id=number, height=HEIGHT, width=WIDTH) for number in range(1, IMAGES + 1)]
    (tmp_path / 'instances.json').write_text(json.dumps(dict(images=images, annotations=annotations,
                                                             categories=[dict(id=1, name='thing')])))
    return tmp_path


@pytest.mark.parametrize(('world_size', 'idle'), [(2, None), (4, None), (2, 0), (2, 1)])
def test_processes_match_one(folder, world_size, idle):
    evaluate(0, 1, folder)
    run_processes(evaluate, (world_size, folder, idle), world_size)
    one = json.loads((folder / '1_0.json').read_text())
    several = [json.loads((folder / f'{world_size}_{rank}.json').read_text()) for rank in range(world_size)]
    assert several[0] == one
    assert all(values == one[0] for values, _ in several)
    assert 0 < one[1]['segm']['all']['AP'] < 1


def lose_one(rank, world_size, folder, lost):
    join_group(rank, world_size, folder)
    torch.distributed.barrier()
    if rank == lost:
        os._exit(3)
    metric = make_metric(folder)
    metric.process(None, [next(samples(np.random.default_rng(0)))[1]])
    os.environ['MMTIED_PATIENCE'] = '5'
    with pytest.raises(ValueError, match=f'process {lost} of 3 hangs or has ended'):
        metric.evaluate(IMAGES)
    (folder / f'raised_{rank}').touch()


@pytest.mark.parametrize('lost', [0, 2])
def test_dead_process_raises_in_the_others(folder, lost):
    context = torch.multiprocessing.get_context(START)
    processes = [context.Process(target=lose_one, args=(rank, 3, folder, lost)) for rank in range(3)]
    for process in processes:
        process.start()
    end = time.monotonic() + BOUND_S
    for process in processes:
        process.join(max(0, end - time.monotonic()))
    waiting = [process for process in processes if process.is_alive()]
    for process in waiting:
        process.kill()
    assert not waiting
    assert sorted(path.name for path in folder.glob('raised_*')) == [f'raised_{rank}' for rank in range(3) if rank != lost]
