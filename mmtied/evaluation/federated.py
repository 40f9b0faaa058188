"""LVIS's protocol: a detection counts only where annotators looked for its category, as the file states for each image."""

import numpy as np
import torch
from torch import Tensor

from .inputs.arrays import GroundTruth
from .matching import rank_detections
from .targets import category_lookup

#: Detections of an image that count, of all categories together.
MAX_DETECTIONS = 300


class FederatedRules:
    """Which detections count, by the categories that LVIS lists for each image.

    Args:
        ground_truth: The annotations, with `GroundTruth.federated`.
        categories: The K evaluated ones, as for `targets.make_targets`.
    """

    def __init__(self, ground_truth: GroundTruth, categories: np.ndarray) -> None:
        place = torch.from_numpy(category_lookup(ground_truth, categories))
        width, self.num_categories = len(ground_truth.category_ids), len(categories)

        def cells(all_cells: Tensor) -> Tensor:
            here = place[all_cells % width]
            image = torch.div(all_cells, width, rounding_mode='floor')
            return torch.unique((image * self.num_categories + here)[here >= 0])

        self.judged, self.not_exhaustive = (cells(torch.from_numpy(part)) for part in ground_truth.federated)

    def select(self, cells: Tensor, image: Tensor, scores: Tensor) -> Tensor:
        """Return the sorted positions of detections that count.

        Args:
            cells: ``image * K + category`` of each, shape (D,) int64.
            image: Shape (D,) int64.
            scores: Shape (D,).
        """
        kept = rank_detections(image, scores, MAX_DETECTIONS)[0].sort().values
        return kept[torch.isin(cells[kept], self.judged.to(cells.device))]

    def ignores(self, cells: Tensor) -> Tensor:
        """Return which detections, without a match, are ignored, shape (D,) bool."""
        return torch.isin(cells, self.not_exhaustive.to(cells.device))
