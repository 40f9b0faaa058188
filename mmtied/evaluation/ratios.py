"""The occlusion ratio of every image of a data set."""

import numpy as np
from pycocotools import mask as mask_api

from .ground_truth import GroundTruth
from .occlusion import check_definition, needs_masks, occlusion_ratio


def describe_definition(definition: str, same_category: bool) -> str:
    """How reports name the definition: as it is, or with the restriction to the same category.

    Example:
        >>> describe_definition('covered', same_category=True)
        'covered, same category'
    """
    return check_definition(definition) + (', same category' if same_category else '')


def image_ratios(ground_truth: GroundTruth, definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """The ratio of each image from its annotations of all categories, crowds left out.

    Args:
        ground_truth: The annotations; categories that are not evaluated occlude all the same.
        definition: One of `occlusion.DEFINITIONS`.
        same_category: Count only instances of the same category as occluders.

    Returns:
        Shape (I,) float64 in the order of `ground_truth.image_ids`; NaN for images without an instance.
    """
    with_masks = needs_masks(definition)
    ratios = np.full(len(ground_truth.image_ids), np.nan)
    single = np.flatnonzero(~ground_truth.crowd)
    single = single[np.argsort(ground_truth.image[single], kind='stable')]
    images, starts = np.unique(ground_truth.image[single], return_index=True)
    for image, members in zip(images.tolist(), np.split(single, starts)[1:], strict=True):
        masks = categories = None
        if with_masks:
            masks = mask_api.decode([ground_truth.rle(member) for member in members.tolist()]).transpose(2, 0, 1)
        if same_category:
            categories = ground_truth.category[members]
        size = tuple(ground_truth.image_sizes[image].tolist())
        ratios[image] = occlusion_ratio(ground_truth.boxes_xywh[members], size, definition, categories, masks)
    return ratios
