"""Occlusion stated by annotations (fields, visible extents, levels, presets) against counts by hand and pycocotools."""

import json

import numpy as np
import pytest

from mmtied.evaluation import Bootstrap, Evaluation, annotate, compare, evaluate, preset, read_ground_truth
from mmtied.evaluation.reporting.headlines import first_sentences
from mmtied.evaluation.reporting.runs import Run
from mmtied.evaluation.stated import stated_ratios, with_image_field
from tests.helpers.coco_oracle import assert_same, coco_evaluation, restrict, statistics
from tests.helpers.data import data_path
from tests.helpers.simulated import many


def street(**fields):
    """Return four people in two images and a perfect detector; `fields` have one value per person."""
    boxes = [[0, 0, 30, 60], [40, 0, 30, 60], [0, 0, 30, 100], [50, 0, 20, 40]]
    entries = [dict(id=number + 1, image_id=1 + number // 2, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0,
                    **{name: values[number] for name, values in fields.items()}) for number, box in enumerate(boxes)]
    data = dict(images=[dict(id=1, width=200, height=200), dict(id=2, width=200, height=200)],
                categories=[dict(id=1, name='person')], annotations=entries)
    return data, [dict(image_id=entry['image_id'], category_id=1, bbox=entry['bbox'], score=.9) for entry in entries]


def held(evaluation, data):
    """Return the ids in each bucket by name."""
    return annotate(data, evaluation).buckets


def test_numeric_field_of_annotations():
    data, results = street(vis_ratio=[1., .7, .3, None])
    evaluation = Evaluation('field:vis_ratio', edges=(0, .5, 1), unit='instance')
    assert held(evaluation, data) == {'r=0': [], '(0,0.5)': [3], '[0.5,1]': [1, 2]}
    hidden = Evaluation('field:1-vis_ratio', edges=(0, .3, 1), unit='instance')
    assert held(hidden, data) == {'r=0': [1], '(0,0.3)': [], '[0.3,1]': [2, 3]}
    of_images = Evaluation('field:vis_ratio', edges=(0, .5, 1))
    assert held(of_images, data) == {'r=0': [], '(0,0.5)': [2], '[0.5,1]': [1]}  # means 0.85 and 0.3
    assert evaluate(data, results, hidden).report['bbox']['buckets'][2]['instances'] == 2


def test_image_fields_apply_to_instances():
    data, _ = street()
    data['images'][0]['rain'] = 3
    ground_truth = read_ground_truth(data)
    assert stated_ratios(ground_truth, 'field:rain', 'image').tolist()[0] == 3
    assert np.isnan(stated_ratios(ground_truth, 'field:rain', 'image')[1])
    assert stated_ratios(ground_truth, 'field:rain', 'instance').tolist()[:2] == [3, 3]


@pytest.mark.parametrize('full', ['fbox', None])
def test_visible_over_full_box(full):
    visible = [[0, 0, 30, 60], [40, 0, 15, 60], [0, 0, 30, 10], [50, 0, 20, 40]]
    data, _ = street(**({'vis_bbox': visible} if full is None else {'vbox': visible}))
    if full:
        for entry in data['annotations']:
            entry[full] = entry['bbox']
    ground_truth = read_ground_truth(data)
    assert stated_ratios(ground_truth, 'visible_box', 'instance').tolist() == [0, .5, .9, 0]
    assert stated_ratios(ground_truth, 'visible_box', 'image').tolist() == pytest.approx([900 / 3600, 2700 / 3800])


def test_visible_over_full_mask():
    def square(width):
        return [[0, 0, width, 0, width, 10, 0, 10]]

    data, _ = street(i_segm=[square(10), square(5), square(2), square(10)], a_segm=[square(10)] * 4)
    assert stated_ratios(read_ground_truth(data), 'visible_mask', 'instance').tolist() == [0, .5, .8, 0]


def test_citypersons_levels_by_hand():
    share = [1., .7, .3, 1.]  # visible; the last is 40 pixels high
    data, results = street(vis_bbox=[[0, 0, 100, 100 * part] for part in share])
    for entry, part in zip(data['annotations'], share, strict=True):
        x, y, w, h = entry['bbox']
        entry['vis_bbox'] = [x, y, w, h * part]
    evaluation = preset('citypersons')
    report = evaluate(data, results[:2], evaluation).report['bbox']
    counts = {row['name']: row['instances'] for row in report['buckets']}
    assert counts == {'Reasonable': 2, 'Bare': 1, 'Partial': 1, 'Heavy': 1}
    rates = {row['name']: row['MR-2'] for row in report['buckets']}
    assert rates == {'Reasonable': 0, 'Bare': 0, 'Partial': 0, 'Heavy': 1}
    assert [bucket.key for bucket in evaluation.buckets] == ['Reasonable', 'Bare', 'Partial', 'Heavy']


def test_crowdhuman_and_ochuman_levels_by_hand():
    data, results = street(vbox=[[0, 0, 30, 60], [40, 0, 15, 60], [0, 0, 30, 10], [50, 0, 20, 40]])
    for entry in data['annotations']:
        entry['fbox'] = entry['bbox']
    assert {row['name']: row['instances'] for row in evaluate(data, results, preset('crowdhuman')).report['bbox']['buckets']} == {
        'bare': 2, 'partial': 1, 'heavy': 1}
    data['annotations'][1]['bbox'] = [0, 0, 30, 80]  # IoU 0.75 with the first
    assert {row['name']: row['instances'] for row in evaluate(data, results, preset('ochuman')).report['bbox']['buckets']} == {
        'apart': 2, 'moderate': 0, 'hard': 2}


def test_named_levels_equal_pycocotools_on_their_images():
    data, results = many(num_images=12, per_image=6)
    names = ('low', 'mid', 'high')
    labels = {str(image['id']).zfill(12): names[number % 3] for number, image in enumerate(data['images'])}
    ground_truth = with_image_field(read_ground_truth(data), 'occlusion_level', labels)
    result = evaluate(ground_truth, results, preset('olac'))
    oracle = coco_evaluation(data, results, 'bbox')
    for number, row in enumerate(result.report['bbox']['buckets']):
        assert (row['name'], row['images']) == (names[number], 4)
        assert_same(row, statistics(restrict(oracle, [image['id'] for image in data['images']][number::3])))
    assert 'by occlusion_level' in repr(result)


def test_saved_levels_are_compared(tmp_path):
    data, results = many(num_images=48, per_image=6)
    for number, image in enumerate(data['images']):
        image['occlusion_level'] = ('low', 'high')[number % 2]
    result = evaluate(data, results, Evaluation('field:occlusion_level', levels=('low', 'high')))
    result.save(tmp_path)
    page = (tmp_path / 'report.html').read_text()
    assert 'level high' in page and 'sorted by an annotated value: occlusion_level' in page
    rows = compare(result, tmp_path, names=['a', 'b'], bootstrap=Bootstrap(5)).report['evaluations'][0]['bbox']['buckets']
    assert [row['name'] for row in rows] == ['low', 'high']


def test_human_levels_of_val2017():
    labels = json.loads(data_path('val2017/occlusion_label_val.json').read_text(encoding='utf-8'))
    ground_truth = read_ground_truth(data_path('val2017/instances_val2017_rebuilt.json'))
    levels = preset('olac').ratios(with_image_field(ground_truth, 'occlusion_level', labels))
    assert np.bincount(levels.astype(int)).tolist() == [1134, 2075, 1791]
    assert levels.mean() < levels[preset('ochuman').ratios(ground_truth, 'image') > .5].mean()


@pytest.mark.parametrize(('options', 'message'), [
    (dict(definition='field:visible'), "has no field 'visible'; its images and annotations have vis_ratio"),
    (dict(definition='visible_box'), 'have no visible and full extent; expected vbox and fbox; or vis_bbox and bbox'),
    (dict(definition='field:vis_ratio', levels=('a', 'b')), "vis_ratio: got 1.0, expected one of a, b"),
])
def test_annotations_without_the_stated_occlusion(options, message):
    data, results = street(vis_ratio=[1., .7, .3, None])
    with pytest.raises(ValueError, match=message):
        evaluate(data, results, Evaluation(unit='instance', **options))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(levels=('a', 'b')), 'names need the definition of a field'),
    (dict(levels='abc'), 'levels: expected distinct names or values'),
    (dict(levels={'a': (1, 0)}), r'named ranges \(lower, upper\)'),
    (dict(min_height=50), "needs unit='instance'"),
    (dict(definition='coverd'), "unknown occlusion definition 'coverd'"),
])
def test_unusable_evaluations(options, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(**options)


def test_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'kitti'; use one of citypersons, crowdhuman, olac, ochuman"):
        preset('kitti')


def test_labels_of_no_image_are_refused():
    with pytest.raises(ValueError, match="no key is the id or the file name of an image of annotations; got keys such as '77'"):
        with_image_field(read_ground_truth(street()[0]), 'level', {'77': 'low'})


def test_a_field_of_unknown_direction_gets_no_verdict():
    """A plain visible share gets no verdict; 1 minus it, or levels, does for the same buckets."""
    data, _ = many(num_images=60, per_image=4)
    rng = np.random.default_rng(0)
    results = []
    for entry in data['annotations']:
        entry['vis_ratio'] = float(rng.uniform(.01, 1))
        if rng.random() < entry['vis_ratio'] ** 2:
            results.append(dict(image_id=entry['image_id'], category_id=entry['category_id'], bbox=entry['bbox'], score=.9))
    sentences = {}
    for evaluation in (Evaluation('field:vis_ratio', (0, .5, 1), 'instance'),
                       Evaluation('field:1-vis_ratio', (0, .5, 1), 'instance'),
                       Evaluation('field:vis_ratio', unit='instance', levels={'hidden': (0, .5), 'seen': (.5, 1)})):
        report = evaluate(data, results, evaluation, bootstrap=Bootstrap(2)).report
        sentences[evaluation.definition, bool(evaluation.levels)] = first_sentences(Run('x', report), 'bbox')
    plain, hidden, levels = sentences.values()
    assert 'instances with vis_ratio in [0.5,1]' in plain and 'It is not known whether vis_ratio grows with occlusion' in plain
    assert 'field:1-vis_ratio' in plain and 'are found' not in plain
    assert 'instances with 1-vis_ratio in [0.5,1]' in hidden and 'occluded instances are found worse' in hidden
    assert 'level seen' in levels and 'are found better' in levels


@pytest.mark.parametrize('levels', [('0', '1', '2'), (0, 1, 2)])  # from the command line, and as in the field
def test_an_image_with_several_levels_is_in_no_bucket(levels):
    data, results = street(occluded=[0, 2, 1, 1])
    report = evaluate(data, results, Evaluation('field:occluded', levels=levels)).report
    assert [row['images'] for row in report['bbox']['buckets']] == [0, 1, 0]
    assert report['notes'] == ['1 of 2 images with a value are in no bucket: their annotations have several levels; '
                               'use --unit instance']
    of_instances = Evaluation('field:occluded', levels=levels, unit='instance')
    assert [row['instances'] for row in evaluate(data, results, of_instances).report['bbox']['buckets']] == [1, 2, 1]


def test_values_outside_the_edges_are_counted():
    data, results = street(height=[60, 60, 100, .5])
    report = evaluate(data, results, Evaluation('field:height', unit='instance')).report
    assert report['notes'] == ['3 of 4 annotations with a value are in no bucket: their height ranges from 60 to 100']
