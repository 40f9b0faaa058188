"""Data sets made by code. Nothing here needs torch or mmdet."""

from .occluded_shapes import RATIO_EDGES, make_occluded_shapes
from .shapes import CATEGORIES

__all__ = ['CATEGORIES', 'RATIO_EDGES', 'make_occluded_shapes']
