"""Masks that the ratios of a whole data set decode."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.occlusion import OCCLUSION_RATIOS, image_ratios, instance_ratios

MASKED = [name for name, ratio in OCCLUSION_RATIOS.items() if ratio.needs_masks]


def truth(counts, **changes):
    """One image with a whole mask and a mask of the given code, in a file's annotations 4 and 6."""
    whole = mask_api.encode(np.asfortranarray(np.ones((20, 30), dtype=np.uint8)))['counts']
    annotation = dict(image_id=9, category_id=8, bbox=[0, 0, 5, 7], area=35, iscrowd=0)
    return read_ground_truth(dict(
        images=[dict(id=9, height=20, width=30)], categories=[dict(id=8, name='b')],
        annotations=[annotation | dict(id=4, segmentation=dict(size=[20, 30], counts=whole)),
                     annotation | dict(id=6, segmentation=dict(size=[20, 30], counts=counts), **changes)]))


@pytest.mark.parametrize('ratios', [image_ratios, instance_ratios])
@pytest.mark.parametrize('definition', MASKED)
@pytest.mark.parametrize('counts', [b'5', b'', b'07d?', b'07ab'], ids=['short', 'empty', 'other lengths', 'cut off'])
def test_a_broken_mask_is_named_before_it_is_decoded(ratios, definition, counts):
    with pytest.raises(ValueError, match='^annotations: annotation 6: its run-length code is broken or cut off'):
        ratios(truth(counts), definition)


@pytest.mark.parametrize('definition', MASKED)
def test_a_crowds_mask_is_not_needed(definition):
    ratios = instance_ratios(truth(b'5', iscrowd=1), definition)
    assert np.isfinite(ratios[0]) and np.isnan(ratios[1])
