"""Choose images of a data set by how occluded they are, and an occluded instance in each."""

import os
from typing import NamedTuple

import numpy as np

from ..evaluation.buckets import Bucket
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.inputs.images import check_folder, check_names, image_file, is_file
from ..evaluation.occlusion import image_ratios

#: Smallest side of an instance that is shown, in pixels, where the image has one: smaller ones show little.
_SMALLEST_SIDE = 32


class Choice(NamedTuple):
    """A random choice of images from a bucket.

    Attributes:
        bucket: The bucket.
        count: Maximum number of images.
        definition: One of `occlusion.OCCLUSION_RATIOS`.
        same_category: Count only instances of the same category as occluders.
        seed: The same seed chooses the same images.
        skip_missing: Choose among the images whose files exist, instead of raising.
    """

    bucket: Bucket
    count: int = 12
    definition: str = 'covered'
    same_category: bool = False
    seed: int = 0
    skip_missing: bool = False


def choose_images(ground_truth: GroundTruth, images: str | os.PathLike, choice: Choice) -> list[tuple[int, float]]:
    """Return the indices of images whose files are in a folder, with the ratio r of each, by increasing r."""
    if choice.count < 1 or choice.seed < 0:
        raise ValueError(f'choice of images: count={choice.count}, seed={choice.seed}; expected a count of at least 1 and a seed '
                         'of at least 0')
    check_folder(images)
    ratios = image_ratios(ground_truth, choice.definition, choice.same_category)
    held = np.flatnonzero(choice.bucket.holds(ratios))
    if not len(held):
        known = ratios[~np.isnan(ratios)]
        there = f'ratios go from {known.min():.3g} to {known.max():.3g}' if len(known) else 'no image has an instance'
        raise ValueError(f'{ground_truth.source}: no image in the bucket {choice.bucket.name} ({choice.definition}); {there}')
    chosen = _with_files(ground_truth, images, held, choice)
    chosen = chosen[np.argsort(ratios[chosen], kind='stable')]
    return list(zip(chosen.tolist(), ratios[chosen].tolist(), strict=True))


def most_occluded(ground_truth: GroundTruth, image: int, ratios: np.ndarray) -> int:
    """Return the index of an image's annotation with the largest ratio, a small one only where there is no other."""
    here = np.flatnonzero((ground_truth.image == image) & ~np.isnan(ratios))
    large = here[(ground_truth.boxes_xywh[here, 2:] >= _SMALLEST_SIDE).all(axis=1)]
    here = large if len(large) else here
    return int(here[np.argmax(ratios[here])])


def _with_files(ground_truth: GroundTruth, images: str | os.PathLike, held: np.ndarray, choice: Choice) -> np.ndarray:
    """Draw some of the images that a bucket holds."""
    check_names(ground_truth, held)
    order, count = np.random.default_rng(choice.seed).permutation(held), choice.count
    there = np.array([is_file(image_file(images, ground_truth.file_names[image])) for image in order.tolist()])
    if choice.skip_missing:
        order, there = order[there], there[there]
        if not len(order):
            raise ValueError(f'{images} has none of the {len(held)} images of the bucket')
    if not there[:count].all():
        missing = [ground_truth.file_names[image] for image in order[:count][~there[:count]].tolist()]
        shown = ', '.join(missing[:5]) + (' ...' if len(missing) > 5 else '')
        raise ValueError(f'{images} lacks {len(missing)} of the {len(there[:count])} chosen images: {shown}; '
                         '--skip-missing draws others in their place')
    return order[:count]
