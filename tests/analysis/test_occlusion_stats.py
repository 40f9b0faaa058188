"""Check occlusion statistics against pixel counts, SciPy and the published counts of val2017."""


import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtied.analysis.occlusion_stats import occlusion_stats, spearman
from mmtied.evaluation.buckets import Evaluation
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from tests.helpers.data import VAL2017, data_path

HEIGHT, WIDTH = 14, 17
EDGES = (0, .25, .5, 1)


def random_data(seed):
    """Draw whole-pixel boxes, some outside the image or empty, crowds, and images without instances."""
    rng = np.random.default_rng(seed)
    images = [dict(id=int(image_id), height=HEIGHT, width=WIDTH) for image_id in rng.choice(50, 7, replace=False)]
    annotations = []
    for image in images:
        for _ in range(rng.integers(0, 6)):
            box = [int(value) for value in (*rng.integers(-2, 12, 2), *rng.integers(0, 10, 2))]
            annotations.append(dict(id=len(annotations) + 1, image_id=image['id'], category_id=int(rng.choice([3, 8])), bbox=box,
                                    area=float(rng.choice([50, 32**2, 2000, 96**2, 20000])), iscrowd=int(rng.random() < .15)))
    return dict(images=images, annotations=annotations, categories=[dict(id=id_, name=f'c{id_}') for id_ in (8, 3, 5)])


def counted_by_pixels(data, same_category):
    """Return r of each image, and image, annotation and ratio of each instance, by drawing boxes."""
    image_ratio, instances = {}, []
    for image in data['images']:
        here = [entry for entry in data['annotations'] if entry['image_id'] == image['id'] and not entry['iscrowd']]
        drawn = np.zeros((len(here), HEIGHT, WIDTH), dtype=bool)
        for mask, entry in zip(drawn, here, strict=True):
            x, y, w, h = entry['bbox']
            mask[max(0, y):max(0, y + h), max(0, x):max(0, x + w)] = True
        covered = []
        for number, entry in enumerate(here):
            others = [drawn[other] for other in range(len(here)) if other != number
                      and (not same_category or here[other]['category_id'] == entry['category_id'])]
            covered.append(int((drawn[number] & np.any(others, axis=0)).sum()) if others else 0)
        areas = drawn.sum(axis=(1, 2))
        if areas.sum():
            image_ratio[image['id']] = sum(covered) / areas.sum()
        for entry, cover, area in zip(here, covered, areas, strict=True):
            instances.append((image['id'], entry, cover / area if area else np.nan))
    return image_ratio, instances


def name_of(ratio):
    if ratio == 0:
        return 'r=0'
    return None if np.isnan(ratio) else '(0,0.25)' if ratio < .25 else '[0.25,0.5)' if ratio < .5 else '[0.5,1]'


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(['image', 'instance']), st.booleans())
def test_statistics_match_pixel_counts(seed, unit, same_category):
    data = random_data(seed)
    stats = occlusion_stats(read_ground_truth(data), Evaluation(unit=unit, edges=EDGES, same_category=same_category))
    image_ratio, instances = counted_by_pixels(data, same_category)
    number = {image['id']: sum(image_id == image['id'] for image_id, _, _ in instances) for image in data['images']}
    of = [image_ratio.get(image_id, np.nan) if unit == 'image' else own for image_id, _, own in instances]
    units = [(image_ratio.get(image['id'], np.nan), image['id']) for image in data['images']]
    if unit == 'instance':
        units = [(own, image_id) for image_id, _, own in instances]

    def mean(values):
        values = [value for value in values if not np.isnan(value)]
        return pytest.approx(np.mean(values)) if values else None

    assert (stats['images'], stats['instances']) == (7, len(instances))
    assert stats['outside'] == sum(np.isnan(ratio) for ratio, _ in units)
    assert stats['mean'] == mean([ratio for ratio, _ in units])
    for row in stats['buckets']:
        held = [entry for entry, ratio in zip(instances, of, strict=True) if name_of(ratio) == row['name']]
        assert row['instances'] == len(held)
        assert row['images'] == len({image_id for image_id, _, _ in held})
        assert row['categories'] == len({entry['category_id'] for _, entry, _ in held})
        assert row['instances_per_image'] == (len(held) / row['images'] if held else None)
        assert row['objects'] == mean([number[image_id] for ratio, image_id in units if name_of(ratio) == row['name']])
    sizes = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 1e10)}
    for row in stats['by_category'] + stats['by_size']:
        low, high = sizes.get(row['name'], (0, 1e10))
        members = [index for index, (_, entry, _) in enumerate(instances)
                   if entry['category_id'] == row.get('id', entry['category_id']) and low <= entry['area'] <= high]
        assert row['instances'] == len(members)
        assert row['mean'] == mean([instances[index][2] for index in members])
        assert row['high_share'] == (pytest.approx(np.mean([of[index] >= .5 for index in members])) if members else None)
    means = [row['mean'] for row in stats['by_category']]
    known = [value for value in means if value is not None]
    assert known == sorted(known, reverse=True) and means[:len(known)] == known
    assert {row['id'] for row in stats['by_category']} == {3, 5, 8}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-3, 3)), min_size=2, max_size=30))
def test_spearman_matches_scipy(pairs):
    stats = pytest.importorskip('scipy.stats')
    first, second = np.array(pairs).T
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) is None
    else:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


@pytest.mark.parametrize('definition', ['union', 'pairwise', 'instance_mean', 'box_mask', 'mask'])
def test_all_definitions(definition):
    boxes = [[0, 0, 10, 10], [5, 0, 10, 10]]
    data = dict(images=[dict(id=1, height=10, width=20)], categories=[dict(id=1, name='a')], annotations=[
        dict(id=number + 1, image_id=1, category_id=1, bbox=[x, y, w, h], area=100.,
             segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]) for number, (x, y, w, h) in enumerate(boxes)])
    stats = occlusion_stats(read_ground_truth(data), Evaluation(definition))
    expected = {'union': 1 / 3, 'pairwise': .25}.get(definition, .5)
    assert stats['mean'] == pytest.approx(expected)
    assert stats['by_category'][0]['mean'] == pytest.approx(.5)
    assert stats['crowding']['spearman'] is None  # one image only


def test_empty_data_set():
    data = dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1, name='a')], annotations=[])
    stats = occlusion_stats(read_ground_truth(data))
    assert (stats['instances'], stats['outside'], stats['mean']) == (0, 1, None)
    assert stats['by_category'] == [dict(id=1, name='a', instances=0, mean=None, high_share=None)]


def test_val2017_matches_published_counts():
    ground_truth = read_ground_truth(data_path(VAL2017))
    stats = occlusion_stats(ground_truth)
    assert [row['images'] for row in stats['buckets']] == [974, 876, 674, 561, 499, 377, 381, 264, 190, 109, 47]
    assert (stats['outside'], stats['instances']) == (48, 36335)
    assert (stats['buckets'][9]['instances'], stats['buckets'][9]['categories']) == (923, 62)
    of_instances = occlusion_stats(ground_truth, Evaluation(unit='instance'))
    assert sum(row['instances'] for row in of_instances['buckets']) == 36335  # none is lost to rounding
    assert of_instances['by_category'][0]['mean'] == stats['by_category'][0]['mean']


@pytest.mark.parametrize('high', [0, -1, float('nan')])
def test_rejects_invalid_bound(high):
    data = dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1, name='a')], annotations=[])
    with pytest.raises(ValueError, match='high: expected a ratio above 0'):
        occlusion_stats(read_ground_truth(data), high=high)
