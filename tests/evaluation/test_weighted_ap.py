"""The bootstrap's arithmetic against a plain loop: resample the images, copy them, run pycocotools."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation import weighted_ap
from mmtied.evaluation.accumulate import accumulate, whole_set
from mmtied.evaluation.intervals import bootstrap_statistics
from mmtied.evaluation.protocol import RECALL_POINTS, bootstrapped_statistics
from tests.helpers.coco_oracle import cases, coco_statistics, copied, match_all
from tests.helpers.data import COCO128, data_path
from tests.helpers.simulated import many, simulated
from tests.helpers.weights import image_weights

few_cases = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def check_replicates(data, results, iou_type, image_ids, num_replicates, seed, proposal_nums=(1, 10, 100)):
    all_ids = sorted(image['id'] for image in data['images'])
    records, positives, num_categories = match_all(data, results, iou_type, proposal_nums)
    weights = image_weights(len(image_ids), num_replicates, seed)
    images = torch.tensor([all_ids.index(image_id) for image_id in image_ids])
    ours = bootstrap_statistics(records, positives, images, weights, num_categories, proposal_nums=proposal_nums)
    for replicate, row in zip(ours, weights.tolist(), strict=True):
        theirs = coco_statistics(*copied(data, results, image_ids, row), iou_type, proposal_nums=proposal_nums)
        for statistic, value in zip(bootstrapped_statistics(), replicate.tolist(), strict=True):
            if theirs[statistic.name] is None:
                assert np.isnan(value)
            else:
                assert abs(value - theirs[statistic.name]) <= 1e-12, (statistic.name, row)


@few_cases
@given(cases('bbox'), st.integers(0, 2**20), st.sampled_from([(1, 10, 100), (1, 2, 100), (100, 300, 1000)]))
def test_bbox_replicates_match_pycocotools(case, seed, proposal_nums):
    ids = sorted(image['id'] for image in case[0]['images'])
    check_replicates(*case, 'bbox', ids, 4, seed, proposal_nums)


@few_cases
@given(cases('segm'), st.integers(0, 2**20))
def test_segm_replicates_match_pycocotools(case, seed):
    ids = sorted(image['id'] for image in case[0]['images'])
    check_replicates(*case, 'segm', ids[::2], 4, seed)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_replicates_of_coco128_match_pycocotools(iou_type):
    data = json.loads(data_path(COCO128).read_text())
    crowded = {entry['image_id'] for entry in data['annotations'] if entry['iscrowd']}
    ids = sorted(crowded | {image['id'] for image in data['images'][:30]})
    data['images'] = [image for image in data['images'] if image['id'] in ids]
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in ids]
    results = simulated(data, iou_type)
    check_replicates(data, results, iou_type, ids, 4, seed=1)
    check_replicates(data, results, iou_type, ids[::3], 4, seed=2)


def test_chunk_sizes_do_not_matter(monkeypatch):
    data, results = many()
    check_replicates(data, results, 'bbox', [image['id'] for image in data['images']], 1, seed=3)
    records, positives, num_categories = match_all(data, results, 'bbox')
    weights, images = image_weights(40, 50, seed=0), torch.arange(40)
    expected = bootstrap_statistics(records, positives, images, weights, num_categories)
    monkeypatch.setattr(weighted_ap, '_CPU', weighted_ap._Sizes(blocks=4, elements=8, weightings=7))
    ours = bootstrap_statistics(records, positives, images, weights, num_categories)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)


def test_thread_count_does_not_matter_and_is_restored():
    records, positives, num_categories = match_all(*many(seed=4, num_images=12), 'bbox')
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            weights = image_weights(12, 5000, seed=0)
            results.append(bootstrap_statistics(records, positives, torch.arange(12), weights, num_categories))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_unit_weights_give_the_point_estimate():
    records, positives, num_categories = match_all(*many(seed=1), 'bbox')
    ap = accumulate(records, positives, whole_set(40), num_categories, 100)[0]
    for column in range(4):
        once = weighted_ap.weighted_average_precision(records, positives, torch.arange(40), torch.ones(1, 40, dtype=torch.int16),
                                                      num_categories, range(10), 100, column)
        torch.testing.assert_close(once[0], ap[column].nanmean(1), rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize('column', [1, 2])
def test_columns_with_ignored_ground_truth(column):
    data, results = many(seed=2, num_images=12)
    records, positives, num_categories = match_all(data, results, 'bbox')
    weights = image_weights(12, 3, seed=5)
    ours = weighted_ap.weighted_average_precision(records, positives, torch.arange(12), weights, num_categories, range(10), 100,
                                                  column)
    name = ('AP_S', 'AP_M')[column - 1]
    for value, row in zip(ours.mean(1).tolist(), weights.tolist(), strict=True):
        theirs = coco_statistics(*copied(data, results, range(1, 13), row), 'bbox')[name]
        assert (np.isnan(value) and theirs is None) or abs(value - theirs) <= 1e-12


def test_copies_of_tied_detections_alternate():
    """Two copies rank as true, false, true, false, as in COCOeval, not true, true, false, false."""
    box, far = [10., 10., 20., 20.], [70., 70., 20., 20.]
    data = dict(images=[dict(id=1, height=100, width=100)], categories=[dict(id=1, name='a')],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=box, area=400., iscrowd=0)])
    for first, second, expected in ((box, far, (51 + 50 * 2 / 3) / 101), (far, box, 1 / 2)):
        results = [dict(image_id=1, category_id=1, bbox=one, score=.5) for one in (first, second)]
        records, positives, _ = match_all(data, results, 'bbox')
        ours = bootstrap_statistics(records, positives, torch.tensor([0]), torch.tensor([[2]]), 1)
        assert ours[0, 1].item() == pytest.approx(expected, abs=1e-12)
        assert coco_statistics(*copied(data, results, [1], [2]), 'bbox')['AP50'] == pytest.approx(expected, abs=1e-12)


def test_recall_points_round_as_in_coco():
    """Every recall k / n for n up to 400, including those that differ from a recall point only by rounding."""
    total = torch.arange(1, 401, dtype=torch.float64)[:, None]
    counts = torch.arange(401, dtype=torch.float64).expand(400, 401)
    found = torch.empty_like(counts)
    weighted_ap._points_reached(counts, total, found)
    expected = torch.searchsorted(torch.from_numpy(RECALL_POINTS), counts / total, right=True).double()
    possible = counts <= total
    assert torch.equal(found[possible], expected[possible])


def test_counts_beyond_single_precision():
    """Without ties in an image, AP does not change if all weights are multiplied by millions."""
    records, positives, num_categories = match_all(*many(seed=3, num_images=4), 'bbox')
    records = records._replace(score=torch.linspace(1, 0, len(records.score), dtype=torch.float64))
    weights = torch.tensor([[1, 2, 0, 1]])
    once, often = (bootstrap_statistics(records, positives, torch.arange(4), weights * count, num_categories)
                   for count in (1, 10**6 + 3))
    assert once[0, 0] > 0
    torch.testing.assert_close(often, once, rtol=0, atol=1e-12)


@pytest.mark.parametrize('missing', ['detections', 'ground truth', 'images'])
def test_nothing_to_evaluate(missing):
    data, results = many(num_images=2, per_image=3)
    if missing == 'ground truth':
        data['annotations'] = []
    records, positives, num_categories = match_all(data, [] if missing == 'detections' else results, 'bbox')
    images = torch.arange(0 if missing == 'images' else 2)
    ours = bootstrap_statistics(records, positives, images, image_weights(len(images), 5, seed=0), num_categories)
    assert ours.shape == (5, 3)
    assert bool((ours == 0).all()) if missing == 'detections' else bool(ours.isnan().all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_matches_cpu():
    records, positives, num_categories = match_all(*many(), 'bbox')
    weights = image_weights(40, 100, seed=0)
    assert torch.equal(image_weights(40, 100, seed=0, device='cuda').cpu(), weights)
    expected = bootstrap_statistics(records, positives, torch.arange(40), weights, num_categories)
    records, positives = (type(table)(*(column.cuda() for column in table)) for table in (records, positives))
    ours = bootstrap_statistics(records, positives, torch.arange(40), weights, num_categories)
    assert ours.is_cuda
    torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=1e-12)
