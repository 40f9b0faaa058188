"""The different problems that matching has to solve in each cell, found once for all detections.

What is ignored depends on the column (area range, or bucket and area range), but most columns ask the same of a cell: with
one ground truth there are two questions only, is it ignored or not. So matching runs once for each distinct pattern of
ignored ground truths in a cell, not for each column.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class IgnorePatterns(NamedTuple):
    """Distinct patterns by cell; G ground truths, C cells that have any, A columns, V copies of ground truths in all.

    Each ground truth has one copy for every pattern of its cell, in the patterns' order.

    Args:
        cell: Place of each ground truth's cell among the C, shape (G,) int64.
        counts: Patterns of each cell, shape (C,) int64.
        of_column: Which of its cell's patterns a column has, shape (C, A) int64.
        first_copy: Place of the first copy of each ground truth, shape (G,) int64.
        ignored: Whether a copy is ignored, shape (V,) bool.
        crowd: Whether a copy is a crowd, shape (V,) bool.
    """

    cell: Tensor
    counts: Tensor
    of_column: Tensor
    first_copy: Tensor
    ignored: Tensor
    crowd: Tensor

    def to(self, device: torch.device | str) -> 'IgnorePatterns':
        """The same on another device."""
        return IgnorePatterns(*(column.to(device) for column in self))


def find_patterns(cells: Tensor, ignored: Tensor, crowd: Tensor) -> IgnorePatterns:
    """The distinct patterns of every cell.

    Args:
        cells: Cell of each ground truth, sorted, shape (G,) int64.
        ignored: Shape (G, A) bool.
        crowd: Shape (G,) bool.

    Example:
        >>> ignored = torch.tensor([[False, True, False], [False, True, True]])
        >>> find_patterns(torch.tensor([3, 3]), ignored, torch.zeros(2).bool()).of_column
        tensor([[0, 1, 2]])
    """
    device, num_columns = cells.device, ignored.shape[1]
    unique_cells, cell = torch.unique_consecutive(cells, return_inverse=True)
    like = torch.zeros(len(unique_cells), num_columns, dtype=torch.int64, device=device)  # the first column with the same
    for column in reversed(range(num_columns)):
        differences = torch.zeros(like.shape, dtype=torch.int32, device=device)
        differences.index_add_(0, cell, (ignored != ignored[:, column:column + 1]).int())
        like.masked_fill_(differences == 0, column)
    is_first = like == torch.arange(num_columns, device=device)
    counts = is_first.sum(1)
    of_column = (is_first.cumsum(1) - 1).gather(1, like)

    copies = counts[cell]
    first_copy = copies.cumsum(0) - copies
    source = torch.repeat_interleave(torch.arange(len(cells), device=device), copies)
    pattern = torch.arange(len(source), device=device) - first_copy[source]
    column_of_pattern = is_first.nonzero()[:, 1]
    first_pattern = counts.cumsum(0) - counts
    column = column_of_pattern[first_pattern[cell[source]] + pattern]
    return IgnorePatterns(cell, counts, of_column, first_copy, ignored[source, column], crowd[source])
