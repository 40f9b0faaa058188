"""One image of occluded shapes, from a recipe, the split and the image's index."""

from dataclasses import dataclass

import numpy as np

from .coco_files import SPLITS, annotate
from .occlusion_layout import MAX_SHAPES, find_layout
from .painting import paint
from .ratio_targets import RatioTargets, spread_position


@dataclass(frozen=True)
class Recipe:
    """What the images of a data set have in common; see `mmtied.datasets.make_occluded_shapes` for the fields.

    Raises:
        ValueError: A field is out of its range.
    """

    seed: int
    size: int
    objects: tuple[int, int]
    min_visible: float
    ratios: RatioTargets

    def __post_init__(self):
        check_integer('seed', self.seed, least=0)
        check_integer('size', self.size, least=64)
        if len(self.objects) != 2 or not 2 <= self.objects[0] <= self.objects[1] <= MAX_SHAPES:
            raise ValueError('objects must be the fewest and the most in an image, both from 2 to '
                             f'{MAX_SHAPES}, got {list(self.objects)}')
        if not 0 <= self.min_visible < 1:
            raise ValueError(f'min_visible must be at least 0 and less than 1, got {self.min_visible}')

    def make_image(self, split: str, index: int) -> tuple[np.ndarray, float, list[dict]]:
        """Make one image; it depends on nothing but this recipe, the split and the index.

        Returns:
            The RGB image, uint8, shape (size, size, 3); its occlusion ratio; its COCO annotations, without ids.

        Raises:
            ValueError: No layout with the ratio asked for was found.
        """
        split_key = SPLITS.index(split)
        offset = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, ))).uniform()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, index)))
        num_shapes = int(rng.integers(self.objects[0], self.objects[1], endpoint=True))
        accept = self.ratios.accept(spread_position(index, offset))
        layout = find_layout(rng, self.size, num_shapes, accept, self.min_visible)
        return paint(rng, layout), layout.ratio, annotate(layout)


def check_integer(name: str, value: int, least: int) -> int:
    """Return the value, or raise a ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f'{name} must be an integer of at least {least}, got {value!r}')
    return int(value)
