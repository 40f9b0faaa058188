import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.masks import TargetMasks


def make_masks(seed, count, height=13, width=17):
    """Rectangles with holes, and their annotations."""
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
def test_crops_are_the_masks_whether_kept_or_not(seed, max_bytes):
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
