"""Ratios in annotations against pixel counts, and bucket ids against hotcoco's slices."""

import copy
import json

import hotcoco
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmtied.evaluation import Evaluation, annotate, evaluate
from tests.helpers.layouts import write_voc
from tests.helpers.simulated import many
from tests.helpers.tools import run_in_process

SIDE = 24


@pytest.fixture
def data():
    """Integer boxes, some reaching beyond their images, a crowd, an image without instances, and unrelated keys."""
    rng = np.random.default_rng(0)
    images = [dict(id=number, height=SIDE, width=SIDE, file_name=f'{number}.jpg', license=3) for number in (9, 2, 5, 4)]
    entries = [dict(id=number, image_id=int(rng.choice([9, 2, 5])), category_id=1, area=9, iscrowd=int(number == 3), score=.5,
                    bbox=[*rng.integers(-2, 14, 2).tolist(), *rng.integers(3, 12, 2).tolist()]) for number in range(1, 15)]
    return dict(info=dict(year=2017), licenses=[], images=images, annotations=entries, categories=[dict(id=1, name='a')])


def pixels(entry):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    x, y, w, h = entry['bbox']
    mask[max(0, y):max(0, y + h), max(0, x):max(0, x + w)] = True
    return mask


def test_ratios_match_pixel_counts(data):
    before = copy.deepcopy(data)
    found = annotate(data, Evaluation(edges=(0, .25, .5, 1)))
    assert data == before
    names = {'r=0': lambda r: r == 0, '(0,0.25)': lambda r: 0 < r < .25, '[0.25,0.5)': lambda r: .25 <= r < .5,
             '[0.5,1]': lambda r: r >= .5}
    assert list(found.buckets) == list(names)
    for image in found.annotations['images']:
        entries = [entry for entry in found.annotations['annotations'] if entry['image_id'] == image['id']]
        masks = {entry['id']: pixels(entry) for entry in entries if not entry['iscrowd']}
        covered = {number: (mask & np.any([other for key, other in masks.items() if key != number], axis=0)).sum()
                   if len(masks) > 1 else 0 for number, mask in masks.items()}
        for entry in entries:
            expected = None if entry['iscrowd'] else pytest.approx(covered[entry['id']] / masks[entry['id']].sum(), abs=1e-12)
            assert entry['occlusion_ratio'] == expected
        area = sum(mask.sum() for mask in masks.values())
        assert image['occlusion_ratio'] == (pytest.approx(sum(covered.values()) / area, abs=1e-12) if area else None)
        listed = [name for name, ids in found.buckets.items() if image['id'] in ids]
        assert listed == [name for name, holds in names.items() if area and holds(image['occlusion_ratio'])]
        assert image['occlusion_bucket'] == (listed[0] if listed else None)
    assert {bool(image['occlusion_bucket']) for image in found.annotations['images']} == {True, False}


def test_other_keys_are_unchanged(data):
    found = annotate(data).annotations
    assert found['info'] == dict(year=2017, occlusion=dict(definition='covered', same_category=False, cumulative=False,
                                                           edges=list(Evaluation().edges)))
    for key in ('images', 'annotations'):
        for entry in found[key]:
            del entry['occlusion_ratio'], entry['occlusion_bucket']
    assert {**found, 'info': data['info']} == data


def test_annotations_without_ids_and_ignore_regions(data):
    plain = annotate(data).annotations['annotations']
    data['categories'] = [dict(id=number, name=name) for number, name in enumerate('abc', 1)]
    for entry in data['annotations']:
        del entry['id']
    data['annotations'].insert(5, dict(image_id=9, category_id=3, bbox=[0, 0, SIDE, SIDE], area=9))
    found = annotate(data, Evaluation(unit='instance'), ignore_categories=['c'])
    ratios = [entry['occlusion_ratio'] for entry in found.annotations['annotations']]
    assert sorted(number for ids in found.buckets.values() for number in ids) == [
        number for number, ratio in enumerate(ratios, 1) if ratio is not None]
    assert ratios.pop(5) is None
    assert ratios == [entry['occlusion_ratio'] for entry in plain]


def test_skipped_annotations_have_no_ratio(data):
    data['annotations'].append(dict(data['annotations'][0], id=99))
    data['annotations'].append(dict(data['annotations'][0], id=100, bbox=[0, 0, -1, 2]))
    with pytest.warns(UserWarning, match='left out'):
        found = annotate(data, drop_duplicates=True, skip_invalid=True).annotations['annotations']
    ratios = {entry['id']: entry['occlusion_ratio'] for entry in found}
    assert ratios[1] is not None and ratios[99] is None and ratios[100] is None


def test_instance_and_cumulative_buckets(data):
    found = annotate(data, Evaluation(edges=(0, .5, 1), unit='instance', cumulative=True))
    ratios = {entry['id']: entry['occlusion_ratio'] for entry in found.annotations['annotations']}
    assert found.buckets == {'r>=0': [number for number, ratio in ratios.items() if ratio is not None],
                             'r>=0.5': [number for number, ratio in ratios.items() if ratio is not None and ratio >= .5]}
    assert not any('occlusion_bucket' in entry for entry in found.annotations['annotations'])


def test_slices_of_hotcoco_have_the_same_ap():
    data, results = many(num_images=16, per_image=10)
    evaluation = Evaluation(edges=(0, .3, .6, 1))
    buckets = {name: ids for name, ids in annotate(data, evaluation).buckets.items() if ids}
    truth = hotcoco.COCO(copy.deepcopy(data))
    sliced = hotcoco.COCOeval(truth, truth.load_res(copy.deepcopy(results)), 'bbox')
    sliced.evaluate()
    theirs = {name: values['AP'] for name, values in sliced.slice_by(buckets).items() if name != '_overall'}
    ours = {row['name']: row['AP'] for row in evaluate(data, results, evaluation).report['bbox']['buckets'] if row['images']}
    assert theirs == pytest.approx(ours, abs=1e-12)


def test_tool_writes_a_file_that_pycocotools_reads(data, tmp_path, monkeypatch, capfd):
    source = tmp_path / 'instances.json'
    source.write_text(json.dumps(data))
    code, out, err = run_in_process('annotate_occlusion.py', (source, '--out', tmp_path / 'out'), monkeypatch, capfd)
    assert (code, err, out.count('wrote')) == (0, '', 2)
    found = annotate(data)
    assert COCO(tmp_path / 'out/instances.json').dataset == found.annotations
    assert json.loads((tmp_path / 'out/buckets.json').read_text()) == found.buckets
    for out, message in ((tmp_path, 'contains the annotations'), (source, 'is not a folder')):
        code, _, err = run_in_process('annotate_occlusion.py', (source, '--out', out), monkeypatch, capfd)
        assert (code, err.count('\n'), message in err) == (2, 1, True)
    assert json.loads(source.read_text()) == data


def test_tool_reads_folders_and_skips_invalid_entries(tmp_path, monkeypatch, capfd):
    folder = tmp_path / 'VOC2007'
    folder.mkdir()
    write_voc(folder)
    (folder / 'Annotations/img_c.xml').write_text('<annotation>')
    args = ('annotate_occlusion.py', (folder, '--out', tmp_path / 'out', '--skip-invalid'), monkeypatch, capfd)
    code, _, err = run_in_process(*args)
    assert (code, err.count('\n'), '1 record of' in err) == (0, 1, True)
    assert len(COCO(tmp_path / 'out/VOC2007.json').dataset['images']) == 2


def test_files_are_written_atomically(data, tmp_path):
    found = annotate(data)
    found.save(tmp_path)
    with pytest.raises(ValueError, match='JSON'):
        found._replace(buckets={'r=0': [float('nan')]}).save(tmp_path)
    with pytest.raises(ValueError, match="'buckets.json', which holds the ids"):
        found.save(tmp_path, 'buckets.json')
    assert json.loads((tmp_path / 'annotations.json').read_text()) == found.annotations
    assert sorted(path.name for path in tmp_path.iterdir()) == ['annotations.json', 'buckets.json']
