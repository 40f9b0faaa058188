"""Occlusion ratios against pixel counts, and ratios of real data sets."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation.buckets import make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.occlusion import (
    OCCLUSION_RATIOS,
    image_ratios,
    instance_ratios,
    occlusion_ratio,
    register_occlusion_ratio,
)
from tests.helpers.buckets import assign_buckets, instance_ratios_of
from tests.helpers.data import VAL2017, data_path

HEIGHT, WIDTH = 12, 15
whole_boxes = st.lists(st.tuples(st.integers(-3, 14), st.integers(-3, 11), st.integers(0, 9), st.integers(0, 9)), max_size=6)


def drawn(boxes):
    """Return each box's pixels inside the image, (N, HEIGHT, WIDTH) bool."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), dtype=bool)
    for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
        mask[max(0, y):max(0, y + h), max(0, x):max(0, x + w)] = True
    return masks


def pixel_iou(first, second):
    return (first & second).sum() / max((first | second).sum(), 1)


def counted(definition, masks, occluders):
    """Compute the definition by counting pixels; `masks` are the instances' boxes or masks, `occluders` cover them."""
    areas = [mask.sum() for mask in masks]
    if sum(areas) == 0:
        return np.nan
    covers = [(mask & np.delete(occluders, i, axis=0).any(axis=0)).sum() for i, mask in enumerate(masks)]
    if definition in ('covered', 'box_mask', 'mask'):
        return sum(covers) / sum(areas)
    if definition == 'instance_mean':
        return np.mean([cover / area for cover, area in zip(covers, areas, strict=True) if area])
    if definition == 'max_iou':
        return max([pixel_iou(masks[i], masks[j]) for j in range(len(masks)) for i in range(j)], default=0)
    if definition == 'pairwise':
        return sum((masks[i] & masks[j]).sum() for j in range(len(masks)) for i in range(j)) / sum(areas)
    return (sum(masks.astype(int)) >= 2).sum() / (sum(masks.astype(int)) >= 1).sum()


@settings(max_examples=150, deadline=None)
@given(whole_boxes, st.sampled_from(list(OCCLUSION_RATIOS)), st.integers(0, 2**16))
def test_ratio_matches_pixel_counts(boxes, definition, seed):
    pixels = drawn(boxes)
    masks = pixels & (np.random.default_rng(seed).random(pixels.shape) < .6)
    instances, occluders = {'box_mask': (pixels, masks), 'mask': (masks, masks)}.get(definition, (pixels, pixels))
    expected = counted(definition, instances, occluders)
    ratio = occlusion_ratio(np.array(boxes, dtype=float).reshape(-1, 4), (HEIGHT, WIDTH), definition, masks=masks)
    np.testing.assert_allclose(ratio, expected, atol=1e-12)


@pytest.mark.parametrize('chunk', [1, 100])
@settings(max_examples=60, deadline=None)
@given(images=st.lists(whole_boxes, min_size=1, max_size=6))
def test_ratios_of_many_images_match_pixel_counts(chunk, images):
    annotations = [dict(image_id=number, category_id=1, bbox=box, area=1, iscrowd=0)
                   for number, boxes in enumerate(images) for box in boxes]
    truth = read_ground_truth(dict(
        images=[dict(id=number, height=HEIGHT, width=WIDTH) for number in range(len(images))],
        annotations=[dict(id=number, **annotation) for number, annotation in enumerate(annotations)],
        categories=[dict(id=1, name='box')]))
    expected = [counted('covered', pixels, pixels) for pixels in map(drawn, images)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmtied.evaluation.occlusion._CHUNK', chunk)
        np.testing.assert_allclose(image_ratios(truth), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(whole_boxes, st.integers(0, 2**16))
def test_same_category_sums_over_categories(boxes, seed):
    categories = np.random.default_rng(seed).integers(0, 2, len(boxes))
    pixels = drawn(boxes)
    covered = sum((pixels[i] & np.any([pixels[j] for j in range(len(boxes)) if j != i and categories[i] == categories[j]] or
                                      [np.zeros_like(pixels[i])], axis=0)).sum() for i in range(len(boxes)))
    expected = covered / pixels.sum() if pixels.sum() else np.nan
    ratio = occlusion_ratio(np.array(boxes, dtype=float).reshape(-1, 4), (HEIGHT, WIDTH), categories=categories)
    np.testing.assert_allclose(ratio, expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(whole_boxes)
def test_instance_ratio_of_covered_is_covered_share(boxes):
    pixels = drawn(boxes)
    expected = [(mask & (np.delete(pixels, i, axis=0).any(0))).sum() / mask.sum() if mask.any() else np.nan
                for i, mask in enumerate(pixels)]
    np.testing.assert_allclose(instance_ratios_of(np.array(boxes, dtype=float).reshape(-1, 4), (HEIGHT, WIDTH)), expected)


@settings(max_examples=150, deadline=None)
@given(whole_boxes, st.sampled_from(list(OCCLUSION_RATIOS)), st.integers(0, 2**16), st.booleans())
def test_instance_ratio_matches_pixel_counts(boxes, definition, seed, same_category):
    rng = np.random.default_rng(seed)
    pixels = drawn(boxes)
    masks = pixels & (rng.random(pixels.shape) < .6)
    categories = rng.integers(0, 2, len(boxes)) if same_category else np.zeros(len(boxes))
    instances, occluders = {'box_mask': (pixels, masks), 'mask': (masks, masks)}.get(definition, (pixels, pixels))
    expected = []
    for i, mine in enumerate(instances):
        others = [occluders[j] for j in range(len(boxes)) if j != i and categories[j] == categories[i]]
        if definition == 'max_iou':
            expected.append(max([pixel_iou(mine, other) for other in others], default=0) if mine.any() else np.nan)
            continue
        others = np.array(others, dtype=int).reshape(-1, HEIGHT, WIDTH).sum(0)
        others = others if definition == 'pairwise' else others > 0
        expected.append((mine * others).sum() / mine.sum() if mine.any() else np.nan)
    ratios = instance_ratios_of(np.array(boxes, dtype=float).reshape(-1, 4), (HEIGHT, WIDTH), definition,
                                categories if same_category else None, masks)
    np.testing.assert_allclose(ratios, expected, atol=1e-12)


def test_invalid_arguments():
    boxes = np.zeros((2, 4))
    with pytest.raises(ValueError, match="unknown occlusion definition 'most'; known: covered"):
        occlusion_ratio(boxes, (5, 5), 'most')
    with pytest.raises(ValueError, match='needs one mask for each of the 2 boxes, got none'):
        occlusion_ratio(boxes, (5, 5), 'mask')
    with pytest.raises(ValueError, match='one for each of 2 boxes, got 1'):
        occlusion_ratio(boxes, (5, 5), categories=np.zeros(1))


@pytest.fixture(scope='module')
def val2017():
    return read_ground_truth(data_path(VAL2017))


def test_val2017_matches_published_counts(val2017):
    of_image = assign_buckets(image_ratios(val2017), make_buckets())
    assert np.bincount(of_image[of_image >= 0]).tolist() == [974, 876, 674, 561, 499, 377, 381, 264, 190, 109, 47]
    assert (of_image < 0).sum() == 48
    high = np.flatnonzero(of_image == 9)
    inside = np.isin(val2017.image, high)
    assert (inside.sum(), len(np.unique(val2017.category[inside]))) == (923, 62)


@pytest.mark.parametrize(('definition', 'images'), [('union', 31), ('pairwise', 8), ('instance_mean', 286)])
def test_val2017_images_with_r_8_to_9(val2017, definition, images):
    ratios = image_ratios(val2017, definition)
    assert ((ratios >= .8) & (ratios < .9)).sum() == images
    assert np.nanmin(ratios) >= 0
    assert np.nanmax(ratios) == pytest.approx(1.38, abs=.005) if definition == 'pairwise' else np.nanmax(ratios) <= 1


def test_val2017_box_mask_has_no_r_8_to_9(val2017):
    """Only images with real masks: the rebuilt file has boxes in place of 257 masks."""
    data = json.loads(data_path(VAL2017).read_text())
    stand_ins = {entry['image_id'] for entry in data['annotations'] if isinstance(entry['segmentation'], list)}
    high = val2017.image_ids[image_ratios(val2017) >= .75].tolist()  # box_mask is at most covered, but for rounding
    data['images'] = [image for image in data['images'] if image['id'] in high and image['id'] not in stand_ins]
    chosen = {image['id'] for image in data['images']}
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in chosen]
    ratios = image_ratios(read_ground_truth(data), 'box_mask')
    assert len(ratios) > 150
    assert .3 < ratios.max() < .8


@pytest.mark.parametrize('definition', ['covered', 'instance_mean', 'box_mask'])
def test_rounding_never_exceeds_1(definition):
    rng = np.random.default_rng(0)
    for _ in range(200):
        boxes = np.repeat(rng.uniform(0, 6, (1, 4)), 3, axis=0) + [[0, 0, 0, 0], [.1, .1, -.2, -.2], [0, 0, 0, 0]]
        masks = np.ones((3, HEIGHT, WIDTH), dtype=bool)
        boxes = boxes[boxes[:, 2:].min(axis=1) > 0]
        ratios = [*instance_ratios_of(boxes, (HEIGHT, WIDTH), definition, masks=masks[:len(boxes)]),
                  occlusion_ratio(boxes, (HEIGHT, WIDTH), definition, masks=masks[:len(boxes)])]
        assert max(ratios) <= 1
        assert min(ratios) >= 1 - 1e-12


MASKED = [name for name, ratio in OCCLUSION_RATIOS.items() if ratio.needs_masks]


def truth(counts, **changes):
    """Return an image with a valid mask and one with the given code, as annotations 4 and 6."""
    whole = mask_api.encode(np.asfortranarray(np.ones((20, 30), dtype=np.uint8)))['counts']
    annotation = dict(image_id=9, category_id=8, bbox=[0, 0, 5, 7], area=35, iscrowd=0)
    return read_ground_truth(dict(
        images=[dict(id=9, height=20, width=30)], categories=[dict(id=8, name='b')],
        annotations=[annotation | dict(id=4, segmentation=dict(size=[20, 30], counts=whole)),
                     annotation | dict(id=6, segmentation=dict(size=[20, 30], counts=counts), **changes)]))


@pytest.mark.parametrize('ratios', [image_ratios, instance_ratios])
@pytest.mark.parametrize('definition', MASKED)
@pytest.mark.parametrize('counts', [b'5', b'', b'07d?', b'07ab'], ids=['short', 'empty', 'other lengths', 'cut off'])
def test_broken_mask_is_rejected_before_decoding(ratios, definition, counts):
    with pytest.raises(ValueError, match='^annotations: annotation 6: its run-length code is broken or truncated'):
        ratios(truth(counts), definition)


@pytest.mark.parametrize('definition', MASKED)
def test_crowd_masks_are_not_read(definition):
    ratios = instance_ratios(truth(b'5', iscrowd=1), definition)
    assert np.isfinite(ratios[0]) and np.isnan(ratios[1])


@pytest.fixture
def registered():
    names = set(OCCLUSION_RATIOS)
    yield register_occlusion_ratio
    for name in set(OCCLUSION_RATIOS) - names:
        del OCCLUSION_RATIOS[name]


@pytest.mark.parametrize(('function', 'came'), [
    (lambda boxes, masks: 1., 'float 1.0'),
    (lambda boxes, masks: (np.ones(3), np.ones(3)), r'shapes \(3,\) and \(3,\)'),
    (lambda boxes, masks: (np.array([np.nan, 0]), np.ones(2)), r'overlap \[nan, 0.0\]'),
    (lambda boxes, masks: (np.array([2., 0]), np.ones(2)), r'overlap \[2.0, 0.0\] and area \[1.0, 1.0\]'),
    (lambda boxes, masks: (np.array([-1., 0]), np.ones(2)), r'overlap \[-1.0, 0.0\]'),
], ids=['number', 'shape', 'nan', 'above largest', 'negative'])
def test_registered_function_is_checked_when_called(registered, function, came):
    registered('odd', 'an odd share')(function)
    boxes = np.array([[0., 0., 4., 4.], [2., 0., 4., 4.]])
    expected = r'two arrays of shape \(2,\), overlap and area, finite and with 0 <= overlap / area <= 1'
    message = f"^occlusion ratio 'odd': its function returned {came}.* for 2 instances; expected {expected}$"
    for ratio in (occlusion_ratio, instance_ratios_of):
        with pytest.raises(ValueError, match=message):
            ratio(boxes, (20, 20), 'odd')


def test_function_that_reads_masks_needs_needs_masks(registered):
    registered('odd', 'an odd share')(lambda boxes, masks: (masks.sum(axis=(1, 2)), np.ones(len(boxes))))
    with pytest.raises(ValueError, match="'odd': its function failed without masks .* register it with needs_masks=True"):
        occlusion_ratio(np.array([[0., 0., 4., 4.]]), (20, 20), 'odd')


def test_registering_the_same_function_again_replaces_it(registered):
    def cell(value):
        @registered('half', 'a share')
        def half(boxes, masks):
            return np.full(len(boxes), value), np.ones(len(boxes))

    cell(.5)
    cell(.25)
    assert occlusion_ratio(np.array([[0., 0., 4., 4.]]), (20, 20), 'half') == .25
    with pytest.raises(ValueError, match="'half' is already registered"):
        registered('half', 'a share')(lambda boxes, masks: (np.zeros(len(boxes)), np.ones(len(boxes))))
