"""IoU of boolean masks against pycocotools and pixel counts, and the cache of decoded masks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.masks import Crop, TargetMasks, count_all, dense_mask_iou


def blobs(rng, count, height=20, width=24):
    masks = np.zeros((count, height, width), dtype=np.uint8)
    for mask in masks:
        top, left = rng.integers(0, 8, 2)
        mask[top:top + rng.integers(0, 14), left:left + rng.integers(0, 14)] = 1
    return masks * (rng.random(masks.shape) < rng.choice([.5, 1]))


def encode(masks):
    return [mask_api.encode(np.asfortranarray(mask)) for mask in masks]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10000), st.integers(0, 8), st.integers(0, 5))
def test_dense_area_and_iou_match_pycocotools(seed, num_masks, num_targets):
    rng = np.random.default_rng(seed)
    masks, targets = blobs(rng, num_masks), blobs(rng, num_targets)
    labels, target_labels = rng.integers(0, 2, num_masks), rng.integers(0, 2, num_targets)
    crowd = rng.random(num_targets) < .4
    crops, tensor = [Crop.of(rle) for rle in encode(targets)], torch.from_numpy(masks).bool()
    area, iou = dense_mask_iou(tensor, torch.from_numpy(labels), crops, target_labels.tolist(), crowd.tolist())
    assert area.tolist() == masks.sum((1, 2)).tolist()
    assert iou.shape == (num_masks, num_targets)
    if num_masks and num_targets:
        expected = mask_api.iou(encode(masks), encode(targets), crowd.astype(int).tolist())
        same = (labels[:, None] == target_labels) & (expected >= .5)
        np.testing.assert_array_equal(iou.numpy()[same], expected[same])
        assert (iou.numpy()[~same] <= expected[~same]).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10000), st.integers(0, 8), st.integers(0, 5))
def test_count_all_matches_pixel_counts(seed, num_masks, num_targets):
    rng = np.random.default_rng(seed)
    masks, targets = blobs(rng, num_masks), blobs(rng, num_targets)
    area, shared = count_all(torch.from_numpy(masks).bool(), [Crop.of(rle) for rle in encode(targets)])
    assert area.tolist() == masks.sum((1, 2)).tolist()
    np.testing.assert_array_equal(shared, np.einsum('nhw,ghw->ng', masks.astype(int), targets.astype(int)))


def make_masks(seed, count, height=13, width=17):
    """Return rectangles with holes, and their annotations."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros((height, width), dtype=np.uint8)
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top:top + rng.integers(0, 9), left:left + rng.integers(0, 9)] = 1
        masks.append(mask * (rng.random(mask.shape) < .8))
    rles = [mask_api.encode(np.asfortranarray(mask)) for mask in masks]
    annotations = [dict(id=number, image_id=1, category_id=1, bbox=[0, 0, 1, 1], area=1,
                        segmentation=dict(size=rle['size'], counts=rle['counts'].decode()))
                   for number, rle in enumerate(rles)]
    return masks, read_ground_truth(dict(images=[dict(id=1, height=height, width=width)],
                                         categories=[dict(id=1, name='a')], annotations=annotations))


@given(st.integers(0, 1000), st.integers(0, 60))
def test_target_mask_crops(seed, max_bytes):
    masks, ground_truth = make_masks(seed, 6)
    cache = TargetMasks(ground_truth, max_bytes)
    for _ in range(2):
        for number, mask in enumerate(masks):
            crop = cache.crop(number)
            whole = np.zeros_like(mask, dtype=bool)
            whole[crop.top:crop.top + crop.mask.shape[0], crop.left:crop.left + crop.mask.shape[1]] = crop.mask
            np.testing.assert_array_equal(whole, mask.astype(bool))
            assert crop.pixels == mask.sum()
    assert cache.num_bytes <= max_bytes
