"""Masks of the ground truth for dense comparison, decoded once and kept as packed bits."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_api

from .inputs.ground_truth import GroundTruth

#: Bytes of packed masks that are kept; val2017's 36 781 annotations need about 100 MB.
MAX_BYTES = 256 << 20


class Crop(NamedTuple):
    """A mask cut to the box around it.

    Args:
        mask: Shape (height, width) bool.
        top: Row of the crop's first row in the image.
        left: Column of the crop's first column in the image.
        pixels: How many are set.
    """

    mask: np.ndarray
    top: int
    left: int
    pixels: int


class TargetMasks:
    """The cropped masks of a data set's annotations.

    What is decoded first is kept until `max_bytes` are full, and the rest is decoded anew each time. Every epoch asks for all
    masks in turn, so that letting the oldest go would let each go just before it is asked for.

    Args:
        ground_truth: The annotations.
        max_bytes: Memory for kept masks.
    """

    def __init__(self, ground_truth: GroundTruth, max_bytes: int = MAX_BYTES) -> None:
        self.ground_truth = ground_truth
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._packed: dict[int, tuple] = {}

    def crop(self, annotation: int) -> Crop:
        """The mask of the annotation at a position; a ValueError when it has no usable segmentation."""
        if annotation in self._packed:
            bits, shape, *rest = self._packed[annotation]
            return Crop(np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape), *rest)
        self.ground_truth.check_masks(np.array([annotation]))
        crop = crop_mask(self.ground_truth.rle(annotation))
        bits = np.packbits(crop.mask)
        if self.num_bytes + bits.nbytes <= self.max_bytes:
            self.num_bytes += bits.nbytes
            self._packed[annotation] = bits, crop.mask.shape, *crop[1:]
        return crop


def crop_mask(rle: dict) -> Crop:
    """A run-length code's pixels, cropped to the box around them."""
    left, top, width, height = (int(side) for side in mask_api.toBbox(rle))
    mask = np.ascontiguousarray(mask_api.decode(rle)[top:top + height, left:left + width]).view(bool)
    return Crop(mask, top, left, int(np.count_nonzero(mask)))
