from dataclasses import fields

import numpy as np
import pytest
import torch

from mmtied.evaluation import OcclusionMeanAveragePrecision
from mmtied.evaluation.buckets import Evaluation
from mmtied.evaluation.inputs import load_detections
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections, tensor_detections
from mmtied.evaluation.pipeline import evaluate_detections
from tests.helpers.coco_oracle import STATISTICS, assert_same, report_of
from tests.helpers.on_device import Departures
from tests.helpers.pretend import PretendCuda
from tests.helpers.simulated import many

DATA, RESULTS = many(num_images=16, per_image=10)


def tensors(results=RESULTS, device='cpu'):
    columns = [[entry[key] for entry in results] for key in ('image_id', 'category_id', 'score', 'bbox')]
    return [torch.tensor(column, device=device, dtype=torch.int64 if number < 2 else torch.float64)
            for number, column in enumerate(columns)]


def test_tensors_match_results_format():
    truth = read_ground_truth(DATA)
    ours, expected = tensor_detections(truth, *tensors()), make_detections(RESULTS, truth, 'bbox')
    for field in fields(expected):
        if field.name != 'rles':
            np.testing.assert_array_equal(getattr(ours, field.name).numpy(), getattr(expected, field.name), field.name)
    report, from_arrays = (report_of(truth, {'bbox': found}, edges=(0, .3, 1), category_ids=[2, 3])
                           for found in (ours, expected))
    assert report == from_arrays


def test_no_large_copies_to_host():
    """Run everything from tensors to the report, with an evaluation that needs its own columns."""
    truth = read_ground_truth(DATA)
    given_tensors = [column.repeat(8, *[1] * (column.ndim - 1)) for column in tensors()]
    with Departures() as departures:
        found = tensor_detections(truth, *given_tensors)
        evaluate_detections(truth, {'bbox': found}, [Evaluation(), Evaluation(unit='instance', edges=(0, .5, 1))])
    assert len(departures.sizes) > 10
    assert max(departures.sizes) < len(found.score) / 2
    with Departures() as departures:
        found.image.cpu()
    assert departures.sizes == [len(found.score)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='compares a GPU with the CPU')
def test_gpu_records_are_bit_equal_to_cpu():
    truth, evaluations = read_ground_truth(DATA), [Evaluation(), Evaluation(unit='instance')]
    here, there = (evaluate_detections(truth, {'bbox': tensor_detections(truth, *tensors(device=device))}, evaluations)
                   for device in ('cpu', 'cuda'))
    assert all(column.is_cuda for column in there.records['bbox'])
    assert all(map(torch.equal, here.records['bbox'], (column.cpu() for column in there.records['bbox'])))
    for ours, expected in zip(there.report['bbox']['buckets'], here.report['bbox']['buckets'], strict=True):
        assert_same(ours, {name: expected[name] for name in STATISTICS})


@pytest.mark.parametrize(('change', 'message'), [
    (dict(image_id=999), 'detection 2: the image id is not in the annotation file; got image id 999'),
    (dict(category_id=4), 'detection 2: the category id is not in the annotation file'),
    (dict(score=float('nan')), 'detection 2: the score must be a finite number'),
    (dict(bbox=[0., 0., -1., 2.]), r'detection 2: the box must be four finite .* box \[0.0, 0.0, -1.0, 2.0\]'),
    (dict(bbox=[0., 0., float('inf'), 2.]), 'detection 2: the box must be four finite'),
])
def test_invalid_values(change, message):
    results = [*RESULTS[:2], dict(RESULTS[2], **change), *RESULTS[3:]]
    with pytest.raises(ValueError, match=message):
        tensor_detections(read_ground_truth(DATA), *tensors(results))


def test_mismatched_shapes():
    image_ids, category_ids, scores, boxes = tensors()
    with pytest.raises(ValueError, match=r'boxes_xywh: expected shape \(\d+, 4\) for \d+ scores, got \(\d+, 3\)'):
        tensor_detections(read_ground_truth(DATA), image_ids, category_ids, scores, boxes[:, :3])


def test_no_detections():
    truth = read_ground_truth(DATA)
    nothing = tensor_detections(truth, *(column[:0] for column in tensors()))
    assert report_of(truth, {'bbox': nothing})['bbox']['all']['AP'] == 0


def test_pictures_of_tensors(tmp_path, device):
    image = pytest.importorskip('PIL.Image')
    data = dict(DATA, images=[dict(entry, file_name=f'{entry["id"]}.png') for entry in DATA['images']])
    for entry in data['images']:
        image.new('RGB', (entry['width'], entry['height'])).save(tmp_path / entry['file_name'])
    truth, pages = read_ground_truth(data), []
    for found in (tensor_detections(truth, *tensors(device=device)), make_detections(RESULTS, truth, 'bbox')):
        folder = tmp_path / type(found.image).__name__
        evaluate_detections(truth, {'bbox': found}, [Evaluation(edges=(0, .5, 1))]).save(folder, images=tmp_path)
        pages.append((folder / 'report.html').read_text())
    assert pages[0] == pages[1]


def predictions(num_images, device):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (num_images, 3, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + 5], axis=2))
    return [dict(boxes=boxes[number].to(device), scores=torch.arange(3., device=device), labels=torch.arange(3, device=device))
            for number in range(num_images)]


@pytest.mark.parametrize('num_images', [2, 9])
def test_predictions_by_image_leave_the_device_in_one_copy_per_key(num_images):
    truth = read_ground_truth(DATA)
    ids = truth.image_ids[:num_images].tolist()
    with PretendCuda() as watch:
        found, expected = (load_detections([dict(entry, image_id=image_id) for entry, image_id in zip(
            predictions(num_images, device), ids, strict=True)], truth)['bbox'] for device in ('cuda', 'cpu'))
    assert watch.transfers == 3
    for name in ('image', 'category', 'score', 'boxes_xywh'):
        assert (getattr(found, name) == getattr(expected, name)).all()


def test_update_copies_the_boxes_of_all_its_images_together():
    with PretendCuda() as watch:
        metric = OcclusionMeanAveragePrecision()
        metric.update(predictions(7, 'cuda'), predictions(7, 'cuda'))
        assert watch.transfers == 5  # boxes, scores, labels of predictions; boxes, labels of targets
        assert metric.compute()['map'] == 1
