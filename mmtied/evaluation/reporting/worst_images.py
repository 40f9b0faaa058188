"""The images where a detector did worst, from the match records."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..accumulate import Positives, Records

#: Detections below this score count neither as found nor as false.
SCORE_THRESHOLD = .3
_IOU_50 = 1


class ImageErrors(NamedTuple):
    """Detections and ground truths of each image at IoU 0.5, each shape (I,) int64.

    Args:
        found: Ground truths with a detection.
        missed: Ground truths without one.
        false: Detections that match nothing.
    """

    found: Tensor
    missed: Tensor
    false: Tensor

    @property
    def f1(self) -> Tensor:
        """``2 found / (2 found + missed + false)``, shape (I,) float64; NaN where there is nothing to find and nothing false."""
        return 2 * self.found / (2 * self.found + self.missed + self.false).double()


def count_errors(records: Records, positives: Positives, num_images: int, score_threshold: float = SCORE_THRESHOLD,
                 column: int = 0) -> ImageErrors:
    """Count what was found, missed and wrongly detected in each image, at IoU 0.5.

    Matching goes by descending score, so leaving out low scores afterwards gives the same as matching without them.

    Args:
        records: The detections' match records.
        positives: The ground truths that count.
        num_images: I.
        score_threshold: Detections below it are left out.
        column: Area range, or column of a bucket of instances; 0 is all areas.

    Example:
        >>> one = torch.tensor([0])
        >>> bits = torch.tensor([[1]], dtype=torch.int16)
        >>> records = Records(one, one, one, torch.tensor([0.9]), bits, 0 * bits)
        >>> positives = Positives(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool))
        >>> [counts.tolist() for counts in count_errors(records, positives, 2)]
        [[1, 0], [1, 0], [0, 0]]
    """
    shown = records.score >= score_threshold
    matched = (records.matched[:, column] & _IOU_50) != 0
    ignored = (records.ignored[:, column] & _IOU_50) != 0
    found = torch.bincount(records.image[shown & matched & ~ignored], minlength=num_images)
    false = torch.bincount(records.image[shown & ~matched & ~ignored], minlength=num_images)
    instances = torch.bincount(positives.image[positives.counted[:, column]], minlength=num_images)
    return ImageErrors(found, instances - found, false)


def worst_images(errors: ImageErrors, members: Tensor, count: int = 3) -> list[int]:
    """The images with the lowest F1, those with the most instances first among equals, then in the order of the file.

    Args:
        errors: Of all images.
        members: Which images to choose from, shape (I,) bool.
        count: At most so many are chosen.

    Returns:
        Positions of images that have an error, the worst first.

    Example:
        >>> errors = ImageErrors(*torch.tensor([[3, 0, 0, 5], [0, 1, 4, 0], [1, 0, 0, 0]]))
        >>> worst_images(errors, torch.tensor([True, True, True, True]))
        [2, 1, 0]
    """
    f1 = errors.f1
    candidates = (members.to(f1.device) & (f1 < 1)).nonzero()[:, 0]
    instances = (errors.found + errors.missed)[candidates]
    order = torch.argsort(instances, stable=True, descending=True)
    order = order[torch.argsort(f1[candidates][order], stable=True)]
    return candidates[order[:count]].tolist()
