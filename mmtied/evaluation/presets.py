"""Evaluations as data sets about occlusion define them."""

from .buckets import Bucket, Evaluation


def _level(name: str, lower: float, upper: float, holds_lower: bool = False) -> Bucket:
    """Return the level lower < r <= upper, or with its lower end."""
    return Bucket(name, lower, upper, holds_lower, holds_upper=True, is_level=True)


#: Evaluations by name.
PRESETS = {
    # Zhang et al. 2017, with the subsets of Wang et al. 2018: pedestrians of at least 50 pixels, by the hidden share of the box.
    'citypersons': Evaluation('visible_box', unit='instance', min_height=50, levels=(
        _level('Reasonable', 0, .35, True), _level('Bare', 0, .1, True), _level('Partial', .1, .35),
        _level('Heavy', .35, .8, True))),
    # Shao et al. 2018 gives visible boxes; the limits 0.3 and 0.7 of the hidden share are ours.
    'crowdhuman': Evaluation('visible_box', unit='instance', levels={'bare': (0, .3), 'partial': (.3, .7), 'heavy': (.7, 1)}),
    # COCO-OLAC: an image's level by human annotators, in the images' field occlusion_level.
    'olac': Evaluation('field:occlusion_level', levels=('low', 'mid', 'high')),
    # Zhang et al. 2019: the largest IoU with another person; moderate and hard as there.
    'ochuman': Evaluation('max_iou', unit='instance', levels={'apart': (0, .5), 'moderate': (.5, .75), 'hard': (.75, 1)}),
}
#: Statistics that get intervals, and lead the page, where a data set's benchmark ranks by other ones than AP.
STATISTICS_OF_PRESETS = {'citypersons': ('MR-2', )}


def preset(name: str) -> Evaluation:
    """Return the evaluation of a data set.

    Args:
        name: One of `PRESETS`: citypersons, crowdhuman, olac, ochuman.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> [bucket.name for bucket in preset('olac').buckets]
        ['low', 'mid', 'high']
    """
    if name not in PRESETS:
        raise ValueError(f'unknown preset {name!r}; use one of {", ".join(PRESETS)}')
    return PRESETS[name]
