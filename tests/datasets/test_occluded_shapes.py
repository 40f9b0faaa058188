import hashlib
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmtied.datasets import CATEGORIES, make_occluded_shapes
from mmtied.datasets.occluded_shapes import SPLITS, RatioTargets, spread_position

NUM_IMAGES, NUM_VAL_IMAGES = 60, 20


@pytest.fixture(scope='module')
def data_set(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'shapes'
    make_occluded_shapes(out, num_images=NUM_IMAGES, num_val_images=NUM_VAL_IMAGES, seed=3, workers=2)
    return out


@pytest.fixture(scope='module')
def coco(data_set):
    return COCO(data_set / 'annotations/instances_train2017.json')


def masks_of(coco, image):
    return np.stack([coco_mask.decode(annotation['segmentation']) for annotation in coco.imgToAnns[image['id']]])


def bytes_of(folder):
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def covered_by_counting_pixels(boxes_xywh, height, width):
    inside = np.zeros((len(boxes_xywh), height, width), dtype=int)
    for box, plane in zip(boxes_xywh, inside, strict=True):
        for y in range(int(box[1]), int(box[1] + box[3])):
            for x in range(int(box[0]), int(box[0] + box[2])):
                plane[y, x] = 1
    depth = inside.sum(axis=0)
    return (inside * (depth >= 2)).sum() / inside.sum()


def test_files_have_coco_layout(data_set, coco):
    assert {path.name for path in data_set.iterdir()} == {*SPLITS, 'annotations'}
    for split, num in zip(SPLITS, (NUM_IMAGES, NUM_VAL_IMAGES), strict=True):
        contents = json.loads((data_set / f'annotations/instances_{split}.json').read_text())
        assert set(contents) == {'info', 'licenses', 'categories', 'images', 'annotations'}
        assert {path.name for path in (data_set / split).iterdir()} == {image['file_name'] for image in contents['images']}
        assert len(contents['images']) == num
        for image in contents['images']:
            assert cv2.imread(str(data_set / split / image['file_name'])).shape == (image['height'], image['width'], 3)
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CATEGORIES)
    assert min(coco.anns) == 1, 'COCOeval takes a ground truth with the id 0 for none'
    assert len(coco.anns) == len(coco.dataset['annotations'])
    assert {annotation['category_id'] for annotation in coco.anns.values()} == set(coco.getCatIds())


def test_masks_are_disjoint_and_match_boxes_and_areas(coco):
    for image in coco.dataset['images']:
        annotations = coco.imgToAnns[image['id']]
        masks = masks_of(coco, image)
        assert 3 <= len(masks) <= 8
        assert masks.shape[1:] == (image['height'], image['width'])
        assert masks.sum(axis=0).max() == 1
        for annotation, mask in zip(annotations, masks, strict=True):
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == mask.sum() == coco_mask.area(annotation['segmentation'])
            assert annotation['area'] >= 30
            assert annotation['visible'] >= 0.25
            ys, xs = np.nonzero(mask)
            tight = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert annotation['bbox'] == tight == coco_mask.toBbox(annotation['segmentation']).tolist()


def test_stored_ratio_matches_pixel_count(coco):
    for image in coco.dataset['images']:
        boxes = [annotation['bbox'] for annotation in coco.imgToAnns[image['id']]]
        expected = covered_by_counting_pixels(boxes, image['height'], image['width'])
        assert image['occlusion_ratio'] == pytest.approx(expected, abs=1e-12)


def test_default_ratios_are_uniform(coco):
    ratios = np.array([image['occlusion_ratio'] for image in coco.dataset['images']])
    assert (ratios == 0).sum() == NUM_IMAGES / 10
    counts, _ = np.histogram(ratios[ratios > 0], bins=np.arange(10) / 10)
    assert counts.tolist() == [NUM_IMAGES / 10] * 9


def test_requested_ratios_are_reached(tmp_path):
    paths = make_occluded_shapes(tmp_path / 'shapes', num_images=60, num_val_images=1, seed=1, zero_share=0.25,
                                 ratio_edges=(0.2, 0.5, 0.6, 0.7), ratio_weights=(2, 0, 1), objects=(2, 4))
    ratios = np.array([image['occlusion_ratio'] for image in json.loads(paths['train2017'].read_text())['images']])
    counts = [(ratios == 0).sum(), *np.histogram(ratios[ratios > 0], bins=(0, 0.2, 0.5, 0.6, 0.7, 1))[0]]
    np.testing.assert_allclose(counts, [15, 0, 30, 0, 15, 0], atol=2)
    assert counts[1] == counts[3] == counts[5] == 0


def test_pixels_match_masks(data_set, coco):
    """The dark rim of each shape lies inside its mask, along the border."""
    darker = []
    for image in coco.dataset['images'][:20]:
        gray = cv2.imread(str(data_set / 'train2017' / image['file_name'])).mean(axis=2)
        for mask in masks_of(coco, image):
            core = cv2.erode(mask, np.ones((5, 5)))
            rim = mask - cv2.erode(mask, np.ones((3, 3)))
            if core.any():
                darker.append(gray[rim > 0].mean() < gray[core > 0].mean())
    assert np.mean(darker) > 0.95


def test_same_seed_same_bytes_for_any_workers(data_set, tmp_path):
    make_occluded_shapes(tmp_path / 'again', num_images=NUM_IMAGES, num_val_images=NUM_VAL_IMAGES, seed=3, workers=1)
    assert bytes_of(tmp_path / 'again') == bytes_of(data_set)


def test_larger_set_extends_smaller_one(data_set, tmp_path):
    first, _ = make_occluded_shapes(tmp_path / 'first', num_images=7, num_val_images=2, seed=3).values()
    make_occluded_shapes(tmp_path / 'other', num_images=7, num_val_images=2, seed=4)
    few, many = json.loads(first.read_text()), json.loads((data_set / 'annotations/instances_train2017.json').read_text())
    assert few['images'] == many['images'][:7]
    assert few['annotations'] == many['annotations'][:len(few['annotations'])]
    all_bytes, few_bytes, other_bytes = (bytes_of(folder) for folder in (data_set, tmp_path / 'first', tmp_path / 'other'))
    images = [path for path in few_bytes if path.suffix == '.jpg']
    assert all(few_bytes[path] == all_bytes[path] for path in images)
    assert all(few_bytes[path] != other_bytes[path] for path in images)
    assert len(set(few_bytes.values())) == len(few_bytes), 'train and val images differ'


def test_mmdet_reads_it(data_set, coco):
    pytest.importorskip('mmdet')
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations
    from mmengine.dataset import Compose

    dataset = CocoDataset(ann_file='annotations/instances_train2017.json', data_root=str(data_set),
                          data_prefix=dict(img='train2017/'), metainfo=dict(classes=CATEGORIES),
                          filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=[])
    load = Compose([LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True)])
    assert len(dataset) == NUM_IMAGES
    for index, image in enumerate(coco.dataset['images']):
        results = load(dataset[index])
        annotations = coco.imgToAnns[image['id']]
        assert results['gt_masks'].masks.tolist() == masks_of(coco, image).tolist()
        xywh = np.array([annotation['bbox'] for annotation in annotations])
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        np.testing.assert_array_equal(results['gt_bboxes'].tensor.numpy(), xyxy)
        assert results['gt_bboxes_labels'].tolist() == [annotation['category_id'] - 1 for annotation in annotations]


@pytest.mark.parametrize('options, message', [
    (dict(num_images=0), 'num_images=0, expected an integer of at least 1'),
    (dict(num_images=2.5), 'num_images=2.5, expected an integer'),
    (dict(num_val_images=0), 'num_val_images=0, expected'),
    (dict(seed=-1), 'seed=-1, expected'),
    (dict(size=10), 'size=10, expected an integer of at least 64'),
    (dict(objects=(5, 3)), r'objects=\[5, 3\], expected'),
    (dict(objects=(1, 3)), 'objects=.*, expected'),
    (dict(objects=(3, 101)), 'objects=.*, expected'),
    (dict(min_visible=1), 'min_visible=1, expected'),
    (dict(workers=0), 'workers=0, expected'),
    (dict(ratio_edges=(0.5, 0.2)), 'ratio_edges=.* increasing'),
    (dict(objects=(2, 2), ratio_edges=(0.99, 1), zero_share=0, min_visible=0.9), 'found no layout of 2 shapes'),
])
def test_bad_options_leave_no_files(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_occluded_shapes(tmp_path / 'shapes', **{'num_images': 4, 'workers': 2, **options})
    assert list(tmp_path.iterdir()) == []


def test_overwrites_only_its_own_data_sets(tmp_path):
    out = tmp_path / 'shapes'
    out.mkdir()
    make_occluded_shapes(out, num_images=2, num_val_images=1, seed=0)
    before = bytes_of(out)
    with pytest.raises(FileExistsError, match='is not empty; .* --overwrite'):
        make_occluded_shapes(out, num_images=2, num_val_images=1, seed=1)
    with pytest.raises(ValueError, match='found no layout'):
        make_occluded_shapes(out, num_images=2, num_val_images=1, seed=1, overwrite=True, objects=(2, 2),
                             ratio_edges=(0.99, 1), zero_share=0, min_visible=0.9)
    assert bytes_of(out) == before
    make_occluded_shapes(out, num_images=2, num_val_images=1, seed=1, overwrite=True)
    assert bytes_of(out) != before

    (out / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='will not be replaced'):
        make_occluded_shapes(out, num_images=2, num_val_images=1, overwrite=True)
    assert (out / 'notes.txt').read_text() == 'mine'
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


@given(offset=st.floats(0, 1, exclude_max=True), start=st.integers(0, 50), power=st.integers(1, 3))
def test_positions_are_evenly_spread(offset, start, power):
    num = 10**power
    positions = np.array([spread_position(index, offset) for index in range(start * num, (start + 1) * num)])
    assert ((positions >= 0) & (positions < 1)).all()
    gaps = np.diff(np.sort(positions), append=positions.min() + 1)
    np.testing.assert_allclose(gaps, 1 / num, rtol=1e-6)


@settings(max_examples=40)
@given(data=st.data(), zero_share=st.floats(0, 0.9))
def test_accepted_ranges_follow_shares(data, zero_share):
    edges = sorted(data.draw(st.lists(st.integers(0, 100), min_size=2, max_size=6, unique=True)))
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(edges) - 1, max_size=len(edges) - 1))
    edges = [edge / 100 for edge in edges]
    targets = RatioTargets(edges, weights, zero_share)
    ranges = np.array([targets.accept(position) for position in np.linspace(0, 1, 2000, endpoint=False)])
    low, high = ranges.T
    zero = high == 0
    assert (low <= high).all()
    assert (high - low <= 2 * targets.tolerance + 1e-12).all()
    assert zero.mean() == pytest.approx(zero_share, abs=2e-3)
    for lower, upper, weight in zip(edges, edges[1:], weights, strict=False):
        inside = ~zero & (low >= lower) & (high < upper)
        assert inside.mean() == pytest.approx((1 - zero_share) * weight / sum(weights), abs=2e-3)


def test_default_weights_are_uniform():
    targets = RatioTargets(edges=(0, 0.1, 0.5), zero_share=0.5)
    np.testing.assert_allclose(targets.shares, [0.5, 0.1, 0.4])


@pytest.mark.parametrize('options, message', [
    (dict(edges=(0.5, )), 'ratio_edges=.* expected two or more'),
    (dict(edges=(0, 0.5, 0.5)), 'increasing'),
    (dict(edges=(0, 1.2)), 'from 0 to 1'),
    (dict(edges=(0, float('nan'))), 'ratio_edges'),
    (dict(edges=(0, 0.5), weights=(1, 2)), '2 given, but 2 edges make 1 buckets'),
    (dict(edges=(0, 0.5), weights=(-1, )), 'ratio_weights=.* expected numbers of at least 0'),
    (dict(edges=(0, 0.5), weights=(0, )), 'not all 0'),
    (dict(edges=(0, 0.5), zero_share=1.5), r'zero_share=1\.5, expected a number from 0 to 1'),
    (dict(edges=(0, 0.5), tolerance=0), 'tolerance=0, expected a number above 0'),
])
def test_invalid_ratio_targets(options, message):
    with pytest.raises(ValueError, match=message):
        RatioTargets(**options)
