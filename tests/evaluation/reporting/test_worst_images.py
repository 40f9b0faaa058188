"""Check the choice of worst images against hand-made cases and brute force."""

import numpy as np
import pytest
import torch

from mmtied.evaluation import evaluate
from mmtied.evaluation.accumulate import Positives, Records
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.pipeline import match_detections
from mmtied.evaluation.reporting.pictures import ImageErrors, choose_by_errors, count_errors, image_outcomes, shown_of
from mmtied.evaluation.stream import SCORE_THRESHOLD, shown_table
from mmtied.evaluation.targets import make_targets


def box_iou(a, b):
    width = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def brute_force(data, results, threshold):
    """Count hits, misses and false positives of each image by greedy matching, highest score first, without crowds."""
    counts = []
    for image in data['images']:
        free = [entry for entry in data['annotations'] if entry['image_id'] == image['id']]
        total, found, false = len(free), 0, 0
        here = [entry for entry in results if entry['image_id'] == image['id'] and entry['score'] >= threshold]
        for entry in sorted(here, key=lambda entry: -entry['score']):
            ious = [(box_iou(entry['bbox'], other['bbox']), other) for other in free
                    if other['category_id'] == entry['category_id']]
            best = max(ious, key=lambda pair: pair[0], default=(0, None))
            if best[0] >= .5:
                free.remove(best[1])
                found += 1
            else:
                false += 1
        counts.append((found, total - found, false))
    return counts


def random_case(seed):
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=number, height=100, width=100) for number in range(12)],
                categories=[dict(id=1, name='a'), dict(id=2, name='b')], annotations=[])
    results = []
    for image in range(12):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 50, 2), *rng.uniform(20, 45, 2)]
            category = int(rng.integers(1, 3))
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=image, category_id=category, bbox=box,
                                            area=box[2] * box[3], iscrowd=0))
            for _ in range(rng.integers(0, 3)):
                moved = [float(value) for value in np.array(box) + rng.normal(0, 6, 4)]
                moved[2:] = [max(value, 1.) for value in moved[2:]]
                results.append(dict(image_id=image, category_id=int(rng.choice([category, category, 1])), bbox=moved,
                                    score=float(rng.random())))
    results.append(dict(image_id=0, category_id=1, bbox=[0., 0., 5., 5.], score=.9))
    return data, results


@pytest.mark.parametrize('seed', range(8))
def test_counts_and_ranking_match_brute_force(seed):
    data, results = random_case(seed)
    ground_truth = read_ground_truth(data)
    categories = ground_truth.select_categories()
    targets = make_targets(ground_truth, categories)
    records = match_detections(make_detections(results, ground_truth, 'bbox'), ground_truth, targets, categories, 100)
    errors = count_errors(records, targets.positives(), 12)
    expected = brute_force(data, results, SCORE_THRESHOLD)
    assert [tuple(int(column[image]) for column in errors) for image in range(12)] == expected

    members = torch.from_numpy(np.random.default_rng(seed).random(12) < .7)
    ranking = []
    for image, (found, missed, false) in enumerate(expected):
        if members[image] and missed + false:
            ranking.append((2 * found / (2 * found + missed + false), -(found + missed), image))
    assert choose_by_errors(errors, members, 4) == [image for _, _, image in sorted(ranking)[:4]]


def test_ranking_order():
    found, missed, false = torch.tensor([[1, 0, 0, 4, 0, 0, 0], [1, 2, 9, 0, 2, 0, 0], [0, 0, 0, 0, 5, 3, 0]])
    errors = ImageErrors(found, missed, false)
    everything = torch.ones(7, dtype=torch.bool)
    assert choose_by_errors(errors, everything, 10) == [2, 1, 4, 5, 0]  # 3 has no error, 6 nothing at all
    assert choose_by_errors(errors, everything, 2) == [2, 1]
    assert choose_by_errors(errors, torch.tensor([True, False, False, True, False, False, True])) == [0]
    assert choose_by_errors(errors, torch.zeros(7, dtype=torch.bool)) == []


def test_score_threshold_is_inclusive():
    score = torch.tensor([SCORE_THRESHOLD, np.nextafter(SCORE_THRESHOLD, 0)], dtype=torch.float64)
    zero, bits = torch.tensor([0, 0]), torch.zeros(2, 1, dtype=torch.int16)
    records = Records(zero, zero, torch.arange(2), score, bits, bits, zero - 1, score.float())
    positives = Positives(zero[:0], zero[:0], torch.ones(0, 1, dtype=torch.bool))
    assert count_errors(records, positives, 1).false.tolist() == [1]
    assert shown_table(zero, zero, score, torch.tensor([[0., 0., 1., 1.]] * 2))[:, 2].tolist() == [SCORE_THRESHOLD]


def test_crowds_are_ignored():
    box = [10., 10., 40., 40.]
    data = dict(images=[dict(id=1, height=100, width=100)], categories=[dict(id=1, name='a')],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=box, area=1600, iscrowd=1)])
    ground_truth = read_ground_truth(data)
    categories = ground_truth.select_categories()
    targets = make_targets(ground_truth, categories)
    results = [dict(image_id=1, category_id=1, bbox=box, score=.9), dict(image_id=1, category_id=1, bbox=box, score=.8)]
    records = match_detections(make_detections(results, ground_truth, 'bbox'), ground_truth, targets, categories, 100)
    assert [column.tolist() for column in count_errors(records, targets.positives(), 1)] == [[0], [0], [0]]


def test_typical_and_random_choice():
    found, missed, false = torch.tensor([[1, 4, 3, 2, 0, 0], [0, 0, 1, 2, 4, 0], [0, 0, 0, 0, 0, 0]])
    errors, members = ImageErrors(found, missed, false), torch.tensor([True, True, True, True, True, True])
    assert choose_by_errors(errors, members, 2, 'typical') == [2, 1]  # F1 1, 1, 0.86, 0.67, 0: the median is 0.86; nothing in 5
    drawn = [tuple(choose_by_errors(errors, members, 3, 'random', seed)) for seed in range(20)]
    assert drawn == [tuple(choose_by_errors(errors, members, 3, 'random', seed)) for seed in range(20)]
    assert {image for images in drawn for image in images} == {0, 1, 2, 3, 4}
    assert choose_by_errors(errors, torch.zeros(6, dtype=torch.bool), 3, 'typical') == []
    with pytest.raises(ValueError, match="images: choice='best'; use one of worst, typical, random"):
        choose_by_errors(errors, members, 3, 'best')


def brute_outcomes(data, results, threshold):
    """Return for each image the outcome of each detection, highest score first, and the ids of missed objects."""
    outcomes = []
    for image in data['images']:
        here = [entry for entry in data['annotations'] if entry['image_id'] == image['id']]
        free, names = list(here), []
        found = [entry for entry in results if entry['image_id'] == image['id'] and entry['score'] >= threshold]
        for entry in sorted(found, key=lambda entry: -entry['score']):
            def overlapping(others, entry=entry):
                ious = [(box_iou(entry['bbox'], other['bbox']), other) for other in others
                        if other['category_id'] == entry['category_id']]
                return max(ious, key=lambda pair: pair[0], default=(0, None))
            best, twice = overlapping(free), overlapping(here)
            if best[0] >= .5:
                free.remove(best[1])
            names.append('found' if best[0] >= .5 else 'duplicate' if twice[0] >= .5 else 'unmatched')
        outcomes.append((names, [entry['id'] for entry in free]))
    return outcomes


def test_outcomes_match_brute_force():
    kinds = set()
    for seed in range(6):
        data, results = random_case(seed)
        result = evaluate(data, results)
        for image, (names, missed) in enumerate(brute_outcomes(data, results, SCORE_THRESHOLD)):
            shown = shown_of(result.detections['bbox'].arrays(), image)
            outcomes = image_outcomes(result, 'bbox', image, shown.category, 0)
            assert outcomes.detections == names
            assert sorted(result.ground_truth.annotation_ids[outcomes.missed]) == missed
            assert outcomes.duplicates == names.count('duplicate')
            kinds |= set(names)
    assert kinds == {'found', 'duplicate', 'unmatched'}
