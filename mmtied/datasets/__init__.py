"""Synthetic data sets; needs neither torch nor mmdet."""

from mmtied.compat import require

require('cv2', 'Drawing shapes')

from .occluded_shapes import RATIO_EDGES, make_occluded_shapes  # noqa: E402
from .shapes import CATEGORIES  # noqa: E402

__all__ = ['CATEGORIES', 'RATIO_EDGES', 'make_occluded_shapes']
