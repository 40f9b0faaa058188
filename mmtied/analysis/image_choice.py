"""Choose images of a data set by how occluded they are, and an occluded instance in each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..evaluation.buckets import Bucket
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.inputs.images import check_folder, check_names, image_file, is_file
from ..evaluation.occlusion import image_ratios, instance_ratios

#: Smallest side of an instance that is shown, in pixels, where the image has one: smaller ones show little.
_SMALLEST_SIDE = 32


def choose_images(ground_truth: GroundTruth, images: Path, bucket: Bucket, count: int, definition: str = 'covered',
                  same_category: bool = False, seed: int = 0, skip_missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Choose images of a bucket at random.

    Args:
        ground_truth: The annotations, with file names.
        images: Folder of the image files.
        bucket: The bucket.
        count: Maximum number of images.
        definition: One of `occlusion.OCCLUSION_RATIOS`.
        same_category: Count only instances of the same category as occluders.
        seed: The same seed chooses the same images.
        skip_missing: Choose among the images whose files exist, instead of raising.

    Returns:
        Indices of the images by increasing r, and r of each.

    Raises:
        ValueError: No image is in the bucket, image files are missing, or the annotations name none.
    """
    if count < 1:
        raise ValueError(f'count: at least 1 image is needed, got {count}')
    ratios = image_ratios(ground_truth, definition, same_category)
    held = np.flatnonzero(bucket.holds(ratios))
    if not len(held):
        known = ratios[~np.isnan(ratios)]
        there = f'ratios go from {known.min():.3g} to {known.max():.3g}' if len(known) else 'no image has an instance'
        raise ValueError(f'{ground_truth.source}: no image in the bucket {bucket.name} ({definition}); {there}')
    chosen = _with_files(ground_truth, images, held, count, seed, skip_missing)
    chosen = chosen[np.argsort(ratios[chosen], kind='stable')]
    return chosen, ratios[chosen]


def most_occluded(ground_truth: GroundTruth, images: Sequence[int], definition: str = 'covered',
                  same_category: bool = False) -> list[int]:
    """Return the index of the most occluded annotation of each image, small ones only where there is no other.

    Args:
        ground_truth: The annotations.
        images: Indices of images that have an instance with a ratio.
        definition: One of `occlusion.OCCLUSION_RATIOS`.
        same_category: Count only instances of the same category as occluders.
    """
    ratios, chosen = instance_ratios(ground_truth, definition, same_category), []
    for image in images:
        here = np.flatnonzero((ground_truth.image == image) & ~np.isnan(ratios))
        large = here[(ground_truth.boxes_xywh[here, 2:] >= _SMALLEST_SIDE).all(axis=1)]
        here = large if len(large) else here
        chosen.append(int(here[np.argmax(ratios[here])]))
    return chosen


def check_seed(seed: int) -> None:
    """Raise a ValueError for a seed that NumPy does not take."""
    if seed < 0:
        raise ValueError(f'--seed {seed}: 0 or more is needed')


def _with_files(ground_truth: GroundTruth, images: Path, held: np.ndarray, count: int, seed: int,
                skip_missing: bool) -> np.ndarray:
    """Return the indices of the images to draw."""
    check_seed(seed)
    check_folder(images)
    check_names(ground_truth, held)
    order = np.random.default_rng(seed).permutation(held)
    there = np.array([is_file(image_file(images, ground_truth.file_names[image])) for image in order.tolist()])
    if skip_missing:
        order, there = order[there], there[there]
        if not len(order):
            raise ValueError(f'{images} has none of the {len(held)} images of the bucket')
    if not there[:count].all():
        missing = [ground_truth.file_names[image] for image in order[:count][~there[:count]].tolist()]
        shown = ', '.join(missing[:5]) + (' ...' if len(missing) > 5 else '')
        raise ValueError(f'{images} lacks {len(missing)} of the {len(there[:count])} chosen images: {shown}; '
                         '--skip-missing draws others in their place')
    return order[:count]
