"""Counts of pixels against pycocotools, by the way of the CPU and that of other devices."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation.masks import Crop, count_all, dense_mask_iou


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
def test_areas_and_iou_are_those_of_pycocotools(seed, num_masks, num_targets):
    rng = np.random.default_rng(seed)
    masks, targets = blobs(rng, num_masks), blobs(rng, num_targets)
    labels, target_labels = rng.integers(0, 2, num_masks), rng.integers(0, 2, num_targets)
    crowd = rng.random(num_targets) < .4
    crops, tensor = [Crop.of(rle) for rle in encode(targets)], torch.from_numpy(masks).bool()
    area, iou = dense_mask_iou(tensor, torch.from_numpy(labels), crops, target_labels.tolist(), crowd.tolist(), .5)
    assert area.tolist() == masks.sum((1, 2)).tolist()
    assert iou.shape == (num_masks, num_targets)
    if num_masks and num_targets:
        expected = mask_api.iou(encode(masks), encode(targets), crowd.astype(int).tolist())
        same = (labels[:, None] == target_labels) & (expected >= .5)
        np.testing.assert_array_equal(iou.numpy()[same], expected[same])
        assert (iou.numpy()[~same] <= expected[~same]).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10000), st.integers(0, 8), st.integers(0, 5))
def test_counts_of_all_pairs_are_those_of_the_pixels(seed, num_masks, num_targets):
    rng = np.random.default_rng(seed)
    masks, targets = blobs(rng, num_masks), blobs(rng, num_targets)
    area, shared = count_all(torch.from_numpy(masks).bool(), [Crop.of(rle) for rle in encode(targets)])
    assert area.tolist() == masks.sum((1, 2)).tolist()
    np.testing.assert_array_equal(shared, np.einsum('nhw,ghw->ng', masks.astype(int), targets.astype(int)))
