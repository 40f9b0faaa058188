"""Ground truth as tensors, sorted by image and category, ready to be matched on any device.

Which ground truths are ignored depends on the column (area range, or bucket and area range), but most columns share the same
ignore mask in a *cell* (an image and a category); with one ground truth there are only two masks. So matching runs once per
distinct ignore pattern of a cell, not once per column.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .accumulate import Positives
from .inputs.ground_truth import GroundTruth
from .protocol import AREA_RANGES


class IgnorePatterns(NamedTuple):
    """Distinct ignore patterns of the C cells with G ground truths and A columns.

    Each ground truth has one copy for each pattern of its cell, in the order of the patterns; V copies in total.
    """

    cell: Tensor  # index of the cell of each ground truth, (G,) int64
    counts: Tensor  # number of patterns in each cell, (C,) int64
    of_column: Tensor  # the pattern of each cell in each column, (C, A) int64
    first_copy: Tensor  # position of the first copy of each ground truth, (G,) int64
    ignored: Tensor  # is the copy ignored, (V,) bool
    crowd: Tensor  # is the copy a crowd, (V,) bool

    def to(self, device: torch.device | str) -> 'IgnorePatterns':
        """Copy to a device."""
        return IgnorePatterns(*(column.to(device) for column in self))


@dataclass(frozen=True)
class Targets:
    """The G annotations of the K evaluated categories, with A columns.

    The columns are the four area ranges, then the area ranges of each instance bucket.
    """

    num_categories: int  # K
    annotation: np.ndarray  # position of each target in the `GroundTruth`, (G,) int64, on the CPU
    starts: list[int]  # offsets of the targets of each image, I + 1 numbers
    cells: Tensor  # ``image * K + category``, sorted, (G,) int64; targets of a cell keep the file's order
    boxes_xywh: Tensor  # (G, 4) float64
    crowd: Tensor  # (G,) bool
    ignored: Tensor  # crowd, or area outside the range, or outside the instance bucket, (G, A) bool
    patterns: IgnorePatterns  # the distinct rows of `ignored` in each cell

    def to(self, device: torch.device | str) -> 'Targets':
        """Copy to a device."""
        return Targets(self.num_categories, self.annotation, self.starts, self.cells.to(device), self.boxes_xywh.to(device),
                       self.crowd.to(device), self.ignored.to(device), self.patterns.to(device))

    def positives(self) -> Positives:
        """Return the targets that count in each column."""
        image = torch.div(self.cells, self.num_categories, rounding_mode='floor')
        return Positives(image, self.cells % self.num_categories, ~self.ignored)


def make_targets(ground_truth: GroundTruth, categories: np.ndarray, outside: np.ndarray | None = None) -> Targets:
    """Build the targets of the evaluated categories, on the CPU.

    Args:
        ground_truth: The annotations.
        categories: Sorted positions in `ground_truth.category_ids`, shape (K,); see `GroundTruth.select_categories`.
        outside: Annotations outside each of C instance buckets, shape (N, C) bool.
    """
    category = category_lookup(ground_truth, categories)[ground_truth.category]
    cells = ground_truth.image * len(categories) + category
    annotation = np.flatnonzero(category >= 0)
    annotation = annotation[np.argsort(cells[annotation], kind='stable')]
    cells = torch.from_numpy(cells[annotation])
    crowd = torch.from_numpy(ground_truth.crowd[annotation])
    starts = np.searchsorted(ground_truth.image[annotation], np.arange(len(ground_truth.image_ids) + 1))
    ignored = crowd[:, None] | ~in_area_ranges(torch.from_numpy(ground_truth.area[annotation]))
    if outside is not None:
        of_bucket = ignored[:, None, :] | torch.from_numpy(outside[annotation])[:, :, None]
        ignored = torch.cat([ignored, of_bucket.flatten(1)], dim=1)
    boxes = torch.from_numpy(ground_truth.boxes_xywh[annotation])
    patterns = find_patterns(cells, ignored, crowd)
    return Targets(len(categories), annotation, starts.tolist(), cells, boxes, crowd, ignored, patterns)


def category_lookup(ground_truth: GroundTruth, categories: np.ndarray) -> np.ndarray:
    """Return the position of each of the file's categories in `categories`, -1 if it is not evaluated."""
    lookup = np.full(len(ground_truth.category_ids), -1, dtype=np.int64)
    lookup[categories] = np.arange(len(categories))
    return lookup


def in_area_ranges(area: Tensor) -> Tensor:
    """Return which of `AREA_RANGES` contain each area in pixels (N,), shape (N, 4) bool."""
    bounds = torch.tensor(list(AREA_RANGES.values()), dtype=torch.float64, device=area.device)
    area = area.double()[:, None]
    return (area >= bounds[:, 0]) & (area <= bounds[:, 1])


def find_patterns(cells: Tensor, ignored: Tensor, crowd: Tensor) -> IgnorePatterns:
    """Find the distinct ignore patterns of every cell from the targets' `cells`, `ignored` and `crowd`.

    Example:
        >>> ignored = torch.tensor([[False, True, False], [False, True, True]])
        >>> find_patterns(torch.tensor([3, 3]), ignored, torch.zeros(2).bool()).of_column
        tensor([[0, 1, 2]])
    """
    device, num_columns = cells.device, ignored.shape[1]
    unique_cells, cell = torch.unique_consecutive(cells, return_inverse=True)
    like = torch.zeros(len(unique_cells), num_columns, dtype=torch.int64, device=device)  # the first column with the same pattern
    for column in reversed(range(num_columns)):
        differences = torch.zeros(like.shape, dtype=torch.int32, device=device)
        differences.index_add_(0, cell, (ignored != ignored[:, column:column + 1]).int())
        like.masked_fill_(differences == 0, column)
    is_first = like == torch.arange(num_columns, device=device)
    counts = is_first.sum(1)
    of_column = (is_first.cumsum(1) - 1).gather(1, like)

    copies = counts[cell]
    source, column = is_first[cell].nonzero(as_tuple=True)  # each ground truth once per pattern of its cell
    return IgnorePatterns(cell, counts, of_column, copies.cumsum(0) - copies, ignored[source, column], crowd[source])
