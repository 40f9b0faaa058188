"""Miss rate, recall at a precision, localization error and duplicates, against mmdet, pycocotools and counts by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtied.evaluation import Evaluation, Statistic, evaluate, register_statistic
from mmtied.evaluation.measures import MeasureInput, compute_measure
from mmtied.evaluation.protocol import STATISTICS, evaluated_thresholds
from mmtied.evaluation.records import read_records, write_records
from tests.helpers.coco_oracle import cases, coco_evaluation, copied, match_all

MEASURES = ('MR-2', 'recall@P80', 'loc_error', 'duplicates')
LIMITS = (1, 10, 1000)


@pytest.fixture
def more_statistics():
    """The table of statistics, restored afterwards."""
    original = dict(STATISTICS)
    yield
    STATISTICS.clear()
    STATISTICS.update(original)


def crowd(seed, num_images=6):
    """Return a crowd of people, some ignored, with detections of distinct scores, some duplicates or false positives."""
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=number + 1, width=400, height=300) for number in range(num_images)],
                categories=[dict(id=1, name='person')], annotations=[])
    results = []
    for image in data['images']:
        for _ in range(rng.integers(1, 9)):
            size = rng.uniform(30, 90, 2)
            box = np.concatenate([rng.uniform(20, [280, 180]), size])
            data['annotations'].append(dict(id=len(data['annotations']) + 1, image_id=image['id'], category_id=1,
                                            bbox=box.tolist(), area=float(size.prod()), iscrowd=int(rng.random() < .15)))
            for _ in range(rng.integers(0, 4)):
                moved = box + rng.normal(size=4) * rng.choice([2, 8, 20])
                results.append(dict(image_id=image['id'], category_id=1, bbox=[*moved[:2], *np.maximum(moved[2:], 5)],
                                    score=float(rng.random())))
    return data, results


def mmdet_miss_rate(data, results, folder):
    """Return the unrounded miss rate of mmdet's CrowdHumanMetric."""
    from mmdet.evaluation.metrics.crowdhuman_metric import CrowdHumanMetric

    truth = folder / 'annotations.odgt'
    with truth.open('w') as file:
        for image in data['images']:
            here = [entry for entry in data['annotations'] if entry['image_id'] == image['id']]
            file.write(json.dumps(dict(ID=image['id'], gtboxes=[
                dict(tag='person', hbox=[0, 0, 1, 1], fbox=entry['bbox'], extra=dict(ignore=entry['iscrowd'])) for entry in here]
            )) + '\n')
    metric = CrowdHumanMetric(str(truth), metric='MR')
    predictions = folder / 'result.json'
    predictions.write_text(json.dumps([dict(image, ID=image['id'], dtboxes=[
        dict(box=entry['bbox'], score=entry['score'], tag=1) for entry in results if entry['image_id'] == image['id']])
        for image in data['images']]))
    samples = metric.load_eval_samples(str(predictions))
    number = sum(sample.gt_num - sample.ign_num for sample in samples.values())
    return metric.eval_mr(metric.compare(samples), number, len(samples))


@pytest.mark.parametrize('seed', range(12))
def test_miss_rate_equals_mmdets_crowdhuman_metric(seed, tmp_path):
    pytest.importorskip('mmdet')
    data, results = crowd(seed)
    ours = evaluate(data, results, iou_types='bbox', proposal_nums=LIMITS).report['bbox']['all']['MR-2']
    assert ours == pytest.approx(mmdet_miss_rate(data, results, tmp_path), abs=1e-9)


def test_miss_rate_of_several_categories_is_their_mean(tmp_path):
    (first, found), (second, more) = crowd(1), crowd(2)
    rates = [evaluate(*one, iou_types='bbox', proposal_nums=LIMITS).report['bbox']['all']['MR-2']
             for one in ((first, found), (second, more))]
    for entry in (*second['annotations'], *more):
        entry['category_id'] = 2
    for entry in second['annotations']:
        entry['id'] += 1000
    both = dict(first, annotations=[*first['annotations'], *second['annotations']],
                categories=[dict(id=1, name='a'), dict(id=2, name='b'), dict(id=3, name='nowhere')])
    ours = evaluate(both, [*found, *more], iou_types='bbox', proposal_nums=LIMITS).report['bbox']['all']['MR-2']
    assert ours == pytest.approx(np.mean(rates), abs=1e-12)


def counted(data, results, precision):
    """Return recall, localization error and duplicates from pycocotools' matches at IoU 0.5."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = coco_evaluation(data, results, 'bbox', proposal_nums=LIMITS)
    truths = {entry['id']: entry for entry in data['annotations']}
    iou_of, detections = {}, []
    for one in evaluation.evalImgs[:len(data['images'])] if evaluation.params.useCats == 0 else evaluation.evalImgs:
        if one is None or one['aRng'] != [0, 1e10]:
            continue
        gts = evaluation._gts[one['image_id'], one['category_id']]
        ious = evaluation.ious[one['image_id'], one['category_id']]
        for place, (match, score, ignored) in enumerate(zip(one['dtMatches'][0], one['dtScores'], one['dtIgnore'][0],
                                                            strict=True)):
            overlaps = dict(zip([gt['id'] for gt in gts], ious[place], strict=True)) if len(gts) else {}
            real = {key: iou for key, iou in overlaps.items() if not truths[key]['iscrowd']}
            twice = not match and max(real.values(), default=0) >= .5
            if match and not ignored:
                iou_of[int(match)] = (overlaps[int(match)], score)
            detections.append((score, bool(match), bool(ignored), twice))
    lowest = None
    for score in sorted({detection[0] for detection in detections}):
        used = [true for other, true, ignored, _ in detections if other >= score and not ignored]
        if used and lowest is None and sum(used) >= precision * len(used):
            lowest = score
    number = sum(not entry['iscrowd'] for entry in data['annotations'])
    error = [1 - iou for iou, _ in iou_of.values()]
    found = [] if lowest is None else [score for _, score in iou_of.values() if score >= lowest]
    twice = 0 if lowest is None else sum(twice for score, *_, twice in detections if score >= lowest)
    return {'recall@P80': len(found) / number if number and lowest is not None else None,
            'loc_error': float(np.mean(error)) if error else None,
            'duplicates': twice / len(found) if found else None}


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(cases())
def test_objects_equal_counts_from_pycocotools(case):
    data, results = case
    row = evaluate(data, results, iou_types='bbox', proposal_nums=LIMITS).report['bbox']['all']
    expected = counted(data, results, .8) | {'duplicates': counted(data, results, .5)['duplicates']}
    for name, value in expected.items():
        assert row[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


def box_at(left, iou=1.):
    """Return a box of height 10 that has the given IoU with the square of side 10 at `left`."""
    return [left, 0., 10 * iou, 10.]


def by_hand():
    """Return two images, A with an isolated object and B with two that touch, and detections."""
    boxes = {1: [box_at(0)], 2: [box_at(0), box_at(9)]}
    data = dict(images=[dict(id=number, width=90, height=90) for number in (1, 2)], categories=[dict(id=1, name='a')],
                annotations=[dict(id=10 * image + number, image_id=image, category_id=1, bbox=box, area=100)
                             for image, listed in boxes.items() for number, box in enumerate(listed)])
    found = [(1, box_at(0, .8), .9), (1, box_at(0, .6), .8), (2, box_at(0, .7), .7), (1, [50, 50, 9, 9], .1)]
    return data, [dict(image_id=image, category_id=1, bbox=box, score=score) for image, box, score in found]


@pytest.mark.parametrize('unit', ['image', 'instance'])
def test_buckets_counted_by_hand(unit):
    data, results = by_hand()
    report = evaluate(data, results, Evaluation(edges=(0, 1), unit=unit)).report['bbox']
    everything, clear, touching = ({name: row[name] for name in MEASURES[1:]} for row in (report['all'], *report['buckets']))
    # 2 of 3 detections down to 0.7 are right: no score reaches 80 % but that of the first; three of the four reach half.
    assert everything == {'recall@P80': pytest.approx(1 / 3), 'loc_error': pytest.approx(.25), 'duplicates': pytest.approx(.5)}
    assert clear == {'recall@P80': 1., 'loc_error': pytest.approx(.2), 'duplicates': 1.}
    assert touching == {'recall@P80': 0., 'loc_error': pytest.approx(.3), 'duplicates': 0.}


@pytest.mark.parametrize('seed', range(4))
def test_weights_equal_copies(seed):
    data, results = crowd(seed)
    ids = [image['id'] for image in data['images']]
    weights = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (3, len(ids))))
    records, positives, num_categories = match_all(data, results, 'bbox', LIMITS)
    measured = MeasureInput(records, positives, len(ids), num_categories, 0, 1000)
    for name in ('MR-2', 'loc_error'):  # the others' score is that of the data as they are
        ours = compute_measure(measured, STATISTICS[name], torch.arange(len(ids)), weights)
        theirs = [evaluate(*copied(data, results, ids, row), iou_types='bbox', proposal_nums=LIMITS).report['bbox']['all'][name]
                  for row in weights.tolist()]
        assert ours.tolist() == pytest.approx(theirs, abs=1e-9)


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(cases(), st.sampled_from([.1, .33, .52, .97, 1.]))
def test_ap_at_any_threshold_equals_pycocotools(case, iou):
    data, results = case
    original = dict(STATISTICS)
    try:
        plain = evaluate(data, results, iou_types='bbox').report['bbox']['all']
        register_statistic(Statistic('AP_other', iou=iou))
        row = evaluate(data, results, iou_types='bbox').report['bbox']['all']
        assert {name: row[name] for name in plain} == plain
    finally:
        STATISTICS.clear()
        STATISTICS.update(original)
    evaluation = coco_evaluation(data, results, 'bbox')
    evaluation.params.iouThrs = np.array([iou])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][0, :, :, 0, -1]
    expected = precision[precision > -1].mean() if (precision > -1).any() else None
    assert row['AP_other'] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_at_most_five_other_thresholds(more_statistics):
    for number in range(5):
        register_statistic(Statistic(f'AP{number}', iou=.1 + number / 20))
    assert len(evaluated_thresholds()) == 15
    register_statistic(Statistic('AP_again', iou=.15))
    with pytest.raises(ValueError, match='statistic AP9: iou=0.47 is one IoU threshold too many'):
        register_statistic(Statistic('AP9', iou=.47))


def test_saved_records_know_their_thresholds(more_statistics, tmp_path):
    data, results = crowd(3)
    register_statistic(Statistic('AP30', iou=.3))
    register_statistic(Statistic('AP40', iou=.4))
    run = evaluate(data, results).saved_run()
    write_records(run, tmp_path / 'both')
    del STATISTICS['AP30']  # AP40 moves to another bit
    back = read_records(tmp_path / 'both').records['bbox']
    assert torch.equal(back.matched, evaluate(data, results).records['bbox'].matched[:, :1])
    assert torch.equal(back.target, run.records['bbox'].target)
    register_statistic(Statistic('AP20', iou=.2))
    with pytest.raises(ValueError, match=r'no matches at IoU 0\.2, which AP20 needs; evaluate again'):
        read_records(tmp_path / 'both')


def test_unknown_measures_are_refused():
    data, results = crowd(0)
    records, positives, num_categories = match_all(data, results, 'bbox')
    with pytest.raises(ValueError, match="statistic X: measure='recal' is unknown; use one of miss_rate, recall_at_precision"):
        compute_measure(MeasureInput(records, positives, 6, num_categories, 0, 100), Statistic('X', measure='recal'),
                        torch.arange(6), torch.ones(1, 6))
