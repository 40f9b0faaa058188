"""The occlusion ratio of every image, or of every instance, of a data set."""

from collections.abc import Iterator

import numpy as np
from pycocotools import mask as mask_api

from .inputs.ground_truth import GroundTruth
from .occlusion import check_definition, instance_ratios_of, needs_masks, occlusion_ratio


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

    Raises:
        ValueError: The definition needs masks, and an annotation has none or a broken one.
    """
    ratios = np.full(len(ground_truth.image_ids), np.nan)
    for image, _, instances in _images(ground_truth, definition, same_category):
        ratios[image] = occlusion_ratio(**instances)
    return ratios


def instance_ratios(ground_truth: GroundTruth, definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """The ratio of each annotation, see `occlusion.instance_ratios_of`; arguments as for `image_ratios`.

    Returns:
        Shape (N,) float64 in the order of the annotations; NaN for crowds and annotations without area in the image.

    Raises:
        ValueError: As `image_ratios`.
    """
    ratios = np.full(len(ground_truth.image), np.nan)
    for _, members, instances in _images(ground_truth, definition, same_category):
        ratios[members] = instance_ratios_of(**instances)
    return ratios


def _images(ground_truth: GroundTruth, definition: str, same_category: bool) -> Iterator[tuple[int, np.ndarray, dict]]:
    """Position of each image with an instance, positions of its instances, and the arguments of the maths."""
    with_masks = needs_masks(definition)
    single = np.flatnonzero(~ground_truth.crowd)
    single = single[np.argsort(ground_truth.image[single], kind='stable')]
    if with_masks:
        ground_truth.check_masks(single)  # decode trusts the codes
    images, starts = np.unique(ground_truth.image[single], return_index=True)
    for image, members in zip(images.tolist(), np.split(single, starts)[1:], strict=True):
        masks = None
        if with_masks:
            masks = mask_api.decode([ground_truth.rle(member) for member in members.tolist()]).transpose(2, 0, 1)
        yield image, members, dict(boxes_xywh=ground_truth.boxes_xywh[members],
                                   image_size=tuple(ground_truth.image_sizes[image].tolist()),
                                   definition=definition,
                                   categories=ground_truth.category[members] if same_category else None,
                                   masks=masks)
