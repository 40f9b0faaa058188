"""Null bands of instance buckets on simulated detectors without an occlusion effect: no verdict for any sizes or heights."""

import numpy as np
import pytest

from mmtied.evaluation import Bootstrap, Evaluation, evaluate, preset
from mmtied.evaluation.reporting.headlines import first_sentences, headlines
from mmtied.evaluation.reporting.runs import Run


def persons(found, num_images=40, per_image=8, seed=0):
    """Return people side by side with given heights and hidden shares, and detections of some of them.

    Args:
        found: Called with a generator for each person; returns height, hidden share of the box, and the chance of being found.
    """
    rng = np.random.default_rng(seed)
    data = dict(images=[dict(id=number, height=200, width=100 * per_image) for number in range(1, num_images + 1)],
                categories=[dict(id=1, name='person')], annotations=[])
    detections = []
    for image in data['images']:
        for place in range(per_image):
            height, hidden, chance = found(rng)
            box, where = [100. * place, 10., 40., float(height)], dict(image_id=image['id'], category_id=1)
            entry = dict(where, id=len(data['annotations']) + 1, bbox=box, area=40. * height, iscrowd=0)
            if hidden is not None:
                entry['vis_bbox'] = [*box[:3], (1 - hidden) * height]
            data['annotations'].append(entry)
            if rng.random() < chance:
                detections.append(dict(where, bbox=box, score=float(rng.random())))
            if rng.random() < .2:
                detections.append(dict(where, bbox=[box[0] + 50, *box[1:]], score=float(rng.random())))
    return data, detections


def test_people_in_no_bucket_are_not_drawn():
    """Small people, which are never found, and people without a visible box do not affect the others."""
    def found(rng):
        if rng.random() < .5:
            return (30, rng.uniform(0, .8), 0) if rng.random() < .5 else (80, None, 0)
        return 80, rng.uniform(0, .8), .8

    result = evaluate(*persons(found), preset('citypersons'), iou_types='bbox', bootstrap=Bootstrap(2))
    rows = {row['name']: row for row in result.report['bbox']['buckets']}
    for name in ('Bare', 'Partial', 'Heavy'):
        assert rows[name]['AP_null_ci'][0] <= rows[name]['AP'] <= rows[name]['AP_null_ci'][1]
        assert rows[name]['AP_excess_p'] > .05
    run = Run('x', result.report)
    assert 'do not show an effect of occlusion' in first_sentences(run, 'bbox')
    line, = headlines([run])
    row, overall = rows['Heavy'], result.report['bbox']['all']
    assert (line.statistic, line.high_statistic) == ('AP', 'recall@P80')
    assert line.high[0] == f'{100 * row["recall@P80"]:.1f}' and line.high[1].endswith(f'all: {100 * overall["recall@P80"]:.1f}')
    assert row['recall@P80_ci'][0] < row['recall@P80'] < row['recall@P80_ci'][1] <= 1


@pytest.mark.parametrize('harder', [False, True])
def test_p_values(harder):
    """Small people are found less often and occluded more often: no effect. An effect of occlusion itself is detected."""
    def found(rng):
        height = rng.choice([20, 100])
        hidden = rng.uniform(0, 1) if height == 20 else rng.uniform(0, 1) ** 2
        return height, hidden, (.4 if height == 20 else .9) * (.1 if harder and hidden > .5 else 1)

    p_values, excess = [], []
    for seed in range(1 if harder else 3):
        result = evaluate(*persons(found, 25, seed=seed), Evaluation('visible_box', (0, .25, .5, .75, 1), 'instance'),
                          iou_types='bbox', bootstrap=Bootstrap(2, null_sets=99))
        rows = [row for row in result.report['bbox']['buckets'] if row['AP_excess_p'] is not None]
        p_values += [row['AP_excess_p'] for row in rows]
        excess += [row['AP_excess'] for row in rows]
    if harder:
        assert p_values[-1] <= .05 and excess[-1] < -.05
    else:
        assert len(p_values) == 12
        assert np.mean(p_values) == pytest.approx(.5, abs=.25)
        assert min(p_values) > .02


def test_a_bucket_of_everything_has_no_null():
    data, detections = persons(lambda rng: (80, rng.uniform(0, .5), .8), num_images=25)
    row = evaluate(data, detections, Evaluation('visible_box', (.0, .6), 'instance', cumulative=True), iou_types='bbox',
                   bootstrap=Bootstrap(2, null_sets=9)).report['bbox']['buckets'][0]
    assert row['AP'] > .5
    assert row['AP_null'] is row['AP_excess_p'] is None
