"""Occlusion ratios: the r in Figure 7 of the tied block convolution paper, and variants.

Equation 5 of Wang & Yu, "Tied Block Convolution" (AAAI 2021) only says "total overlap area / total instance area"; the
definitions here are ours. The default, `covered`, is the share of the instances' box area that other boxes cover. Ratios are
rounded to `DECIMALS`, so that summation order cannot move them across a bucket edge.

`OCCLUSION_RATIOS` lists every definition; `register_occlusion_ratio` adds one to `evaluate`, the metric and the hook.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from .boxes import area_under_two, areas_under_others, clip_boxes, shared_areas
from .stated import field_of, stated_ratios

if TYPE_CHECKING:
    from .inputs.ground_truth import GroundTruth

#: Decimals of a ratio.
DECIMALS = 12
_CHUNK = 2**18  # pairs of boxes per chunk

#: Maps boxes (N, 4), xyxy clipped to the image, and masks (N, height, width) bool or None to overlap and area.
Measure = Callable[[np.ndarray, np.ndarray | None], tuple]


@dataclass(frozen=True)
class OcclusionRatio:
    """A definition of the occlusion ratio; see `register_occlusion_ratio`."""

    name: str
    instance: Measure | None  # None if annotations state it, see `stated`
    image: Measure | None
    phrase: str
    own_phrase: str
    largest: float
    needs_masks: bool
    takes_codes: bool = False  # masks as run-length codes


#: Computed definitions by name.
OCCLUSION_RATIOS: dict[str, OcclusionRatio] = {}
#: Definitions from the visible extent that annotations state, by name.
STATED_RATIOS = {name: OcclusionRatio(
    name, None, None, f'the hidden share of its instances’ full {shapes}, by the visible {shapes} that the annotations state',
    f'the hidden share of its full {shape}, by the visible {shape} that the annotation states', 1., needs_masks=False)
    for name, shape, shapes in (('visible_box', 'box', 'boxes'), ('visible_mask', 'mask', 'masks'))}


def register_occlusion_ratio(name: str, phrase: str,
                             own_phrase: str = 'the share of its box that boxes of other instances cover',
                             image: Measure | None = None, largest: float = 1., needs_masks: bool = False,
                             takes_codes: bool = False) -> Callable[[Measure], Measure]:
    """Register the decorated function as an occlusion ratio.

    The function takes the boxes of instances that may occlude each other, shape (N, 4), xyxy in pixels and clipped to the
    image, and their masks, shape (N, height, width) bool, or None without `needs_masks`. It returns the overlap and the area of
    each instance, both of shape (N,). The ratio of an instance is overlap / area.

    Args:
        name: The value of ``definition=`` that selects it.
        phrase: The ratio of an image in words, to follow "The occlusion ratio r of an image is".
        own_phrase: The ratio of an instance in words.
        image: Function of the same arguments that returns the numerator and the denominator of the image's ratio. Defaults to
            the sums of overlaps and areas.
        largest: The highest possible value of the ratio.
        needs_masks: Pass masks to the function.
        takes_codes: Pass masks as an array of N pycocotools run-length codes, which saves memory on large images.

    Raises:
        ValueError: Another function has this name. Registering a function again, as in a rerun notebook cell, replaces it.

    Example:
        >>> @register_occlusion_ratio('touched', 'the share of its instances that another box touches')
        ... def touched(boxes, masks):
        ...     overlap, area = OCCLUSION_RATIOS['covered'].instance(boxes, masks)
        ...     return (overlap > 0) & (area > 0), area > 0
        >>> occlusion_ratio(np.array([[0, 0, 4, 4], [3, 3, 4, 4], [8, 8, 1, 1]]), (20, 20), 'touched')  # doctest: +ELLIPSIS
        0.666...
        >>> del OCCLUSION_RATIOS['touched']
    """
    def register(instance: Measure) -> Measure:
        known = OCCLUSION_RATIOS.get(name)
        if known and _origin(known.instance) != _origin(instance):
            raise ValueError(f'occlusion ratio {name!r} is already registered; use another name')
        OCCLUSION_RATIOS[name] = OcclusionRatio(name, instance, image, phrase, own_phrase, largest, needs_masks, takes_codes)
        return instance

    return register


def get_occlusion_ratio(definition: str) -> OcclusionRatio:
    """Return the definition with a name; raise a ValueError that lists all names if it is unknown."""
    if definition in STATED_RATIOS:
        return STATED_RATIOS[definition]
    field = field_of(definition) if isinstance(definition, str) else None
    if field:
        text = f'the field {definition.partition(":")[2]} of the annotations'
        return OcclusionRatio(definition, None, None, text, text, math.inf, needs_masks=False)
    if definition not in OCCLUSION_RATIOS:
        raise ValueError(f'unknown occlusion definition {definition!r}; known: '
                         f'{", ".join((*OCCLUSION_RATIOS, *STATED_RATIOS))}, and field:NAME for a number in the annotations')
    return OCCLUSION_RATIOS[definition]


def occlusion_ratio(boxes_xywh: np.ndarray, image_size: tuple[int, int], definition: str = 'covered',
                    categories: np.ndarray | None = None, masks: Sequence[np.ndarray] | None = None) -> float:
    """Compute the occlusion ratio of one image.

    With B_i the boxes clipped to the image and M_i the masks:

    - `covered`: sum_i area(B_i inter union_{j != i} B_j) / sum_i area(B_i), in [0, 1]
    - `union`: area covered by two or more boxes / area covered by one or more, in [0, 1]
    - `pairwise`: sum_{i<j} area(B_i inter B_j) / sum_i area(B_i), nonnegative and unbounded
    - `instance_mean`: mean over i of area(B_i inter union_{j != i} B_j) / area(B_i), in [0, 1]
    - `box_mask`: like `covered`, with the other instances' masks instead of their boxes, in [0, 1]
    - `mask`: like `covered`, with masks throughout. COCO's masks hardly overlap, so r is close to 0 there.
    - `max_iou`: the largest IoU of two boxes, in [0, 1]

    Args:
        boxes_xywh: Boxes of the non-crowd instances, shape (N, 4), in pixels.
        image_size: Height and width of the image in pixels.
        definition: A key of `OCCLUSION_RATIOS`.
        categories: Category of each instance, shape (N,). If given, only instances of one category occlude each other.
        masks: Boolean masks, each (height, width), for definitions that need them.

    Returns:
        The ratio; NaN if no instance has any area inside the image.

    Raises:
        ValueError: Unknown definition, wrong shapes, boxes that are not finite, or missing masks.

    Example:
        >>> boxes = np.array([[0., 0., 10., 10.], [5., 0., 10., 10.]])
        >>> occlusion_ratio(boxes, (20, 20))
        0.5
    """
    ratio = get_occlusion_ratio(definition)
    if ratio.instance is None:
        raise ValueError(f'occlusion_ratio: {definition!r} is read from annotations; use one of {", ".join(OCCLUSION_RATIOS)}')
    boxes_xywh = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    broken = boxes_xywh[~np.isfinite(boxes_xywh).all(axis=1)]
    if len(broken):
        raise ValueError(f'occlusion_ratio: expected finite boxes, got {broken[0].tolist()}')
    if not ratio.needs_masks:
        masks = None
    elif masks is None or len(masks) != len(boxes_xywh):
        raise ValueError(f'definition {definition!r} needs one mask for each of the {len(boxes_xywh)} boxes, '
                         f'got {"none" if masks is None else len(masks)}')
    else:
        masks = np.asarray(masks, dtype=bool).reshape(len(boxes_xywh), *image_size)
        masks = _mask_module().encoded(masks) if ratio.takes_codes else masks
    return _image_ratio(ratio, clip_boxes(boxes_xywh, image_size), categories, masks)


def image_ratios(ground_truth: 'GroundTruth', definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """Compute the ratio of each image from its non-crowd annotations of all categories.

    Args:
        ground_truth: The annotations, including categories that are not evaluated, which occlude too.
        definition: A key of `OCCLUSION_RATIOS`.
        same_category: Count only instances of the same category as occluders.

    Returns:
        Shape (I,) float64 in the order of `ground_truth.image_ids`; NaN for images without an instance.

    Raises:
        ValueError: The definition needs masks, and an annotation has no valid one.
    """
    if get_occlusion_ratio(definition).instance is None:
        return stated_ratios(ground_truth, definition, 'image')
    ratios = np.full(len(ground_truth.image_ids), np.nan)
    if definition == 'covered' and not same_category:
        _, boxes, images, starts, counts = _instances(ground_truth)
        for num in np.unique(counts).tolist():  # batches images with equal counts, ten times as fast as one by one
            alike = np.flatnonzero(counts == num)
            for part in np.array_split(alike, min(len(alike), math.ceil(len(alike) * num**2 / _CHUNK))):
                covered, areas = (values.sum(axis=1) for values in areas_under_others(boxes[starts[part, None] + np.arange(num)]))
                ratios[images[part]] = np.divide(covered, areas, out=np.full(len(part), np.nan), where=areas > 0)
        return np.round(ratios, DECIMALS)
    for image, _, instances in _images(ground_truth, definition, same_category):
        ratios[image] = _image_ratio(*instances)
    return ratios


def instance_ratios(ground_truth: 'GroundTruth', definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """Compute the ratio of each annotation; arguments and errors as for `image_ratios`.

    - `covered`, `instance_mean`, `union`: area(B_i inter union_{j != i} B_j) / area(B_i)
    - `pairwise`: sum_{j != i} area(B_i inter B_j) / area(B_i), unbounded
    - `box_mask`: area(B_i inter union_{j != i} M_j) / area(B_i)
    - `mask`: area(M_i inter union_{j != i} M_j) / area(M_i)

    Returns:
        (N,) float64 in the order of the annotations; NaN for crowds and annotations without area inside the image.
    """
    if get_occlusion_ratio(definition).instance is None:
        return stated_ratios(ground_truth, definition, 'instance')
    ratios = np.full(len(ground_truth.image), np.nan)
    for _, members, (ratio, boxes, categories, masks) in _images(ground_truth, definition, same_category):
        for group in _groups(categories, len(boxes)):
            overlap, area = _measure(ratio, boxes[group], None if masks is None else masks[group])
            ratios[members[group]] = np.divide(overlap, area, out=np.full(len(group), np.nan), where=area > 0)
    return np.round(ratios, DECIMALS)


@register_occlusion_ratio('covered', 'the share of the area of its instances’ boxes that boxes of other instances cover')
def _covered(boxes: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    return areas_under_others(boxes)


register_occlusion_ratio('union', 'the area under two or more boxes over the area under one or more',
                         image=lambda boxes, masks: area_under_two(boxes))(_covered)


def _each_pair_once(boxes: np.ndarray, masks: np.ndarray | None) -> tuple[float, float]:
    shared = shared_areas(boxes)
    return np.triu(shared, k=1).sum(), np.trace(shared)


@register_occlusion_ratio('pairwise', 'the summed overlap areas of all pairs of boxes over the summed areas of the boxes '
                          '(it may exceed 1)', image=_each_pair_once, largest=math.inf)
def _pairwise(boxes: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    shared = shared_areas(boxes)
    return shared.sum(axis=1) - shared.diagonal(), shared.diagonal()


def _sum_of_shares(boxes: np.ndarray, masks: np.ndarray | None) -> tuple[float, int]:
    covered, areas = _covered(boxes)
    real = areas > 0
    return (covered[real] / areas[real]).sum(), real.sum()


register_occlusion_ratio('instance_mean', 'the mean, over its instances, of the share of each box that other boxes cover',
                         image=_sum_of_shares)(_covered)


def _most_overlap(boxes: np.ndarray, masks: np.ndarray | None) -> tuple[float, float]:
    overlap, area = _max_iou(boxes, masks)
    return overlap.max(initial=0), area.max(initial=0)


@register_occlusion_ratio('max_iou', 'the largest IoU of two of its boxes',
                          'the largest IoU of its box with another instance’s (as OCHuman measures it)', image=_most_overlap)
def _max_iou(boxes: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    shared = shared_areas(boxes)
    areas = shared.diagonal().copy()
    union = areas[:, None] + areas - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    np.fill_diagonal(iou, 0)
    return iou.max(axis=1, initial=0), (areas > 0).astype(float)


@register_occlusion_ratio('box_mask', 'the share of the area of its instances’ boxes that the masks of other instances cover',
                          'the share of its box that the masks of other instances cover', needs_masks=True, takes_codes=True)
def _boxes_under_masks(boxes: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _mask_module().boxes_under_masks(boxes, codes)


@register_occlusion_ratio('mask', 'the share of the area of its instances’ masks that the masks of other instances cover',
                          'the share of its mask that the masks of other instances cover', needs_masks=True, takes_codes=True)
def _masks_under_masks(boxes: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _mask_module().masks_under_masks(boxes, codes)


def _mask_module() -> ModuleType:
    """Import `masks` lazily: it needs PyTorch, which listing the definitions does not."""
    from . import masks

    return masks


def _origin(function: Measure) -> tuple:
    return getattr(function, '__module__', None), getattr(function, '__qualname__', function)


def _groups(categories: np.ndarray | None, num: int) -> list[np.ndarray]:
    """Group the positions of one image's instances that may occlude each other: all, or by category."""
    if categories is None:
        return [np.arange(num)]
    if len(categories) != num:
        raise ValueError(f'categories: expected one for each of {num} boxes, got {len(categories)}')
    return [np.flatnonzero(np.asarray(categories) == category) for category in np.unique(categories)]


def _measure(ratio: OcclusionRatio, boxes: np.ndarray, masks: np.ndarray | None, of_image: bool = False) -> tuple:
    """Return the overlaps and areas of instances, or of an image with `of_image`; check those of user functions."""
    function = (ratio.image if of_image else None) or ratio.instance
    try:
        returned = function(boxes, masks)
    except (AttributeError, TypeError) as error:
        if masks is not None:
            raise
        raise ValueError(f'occlusion ratio {ratio.name!r}: its function failed without masks ({error}); if it reads them, '
                         'register it with needs_masks=True') from error
    if getattr(function, '__module__', None) == __name__:
        return returned
    shape = (len(boxes), ) if function is ratio.instance else ()
    try:
        overlap, area = (np.asarray(value, dtype=np.float64) for value in returned)
    except (TypeError, ValueError):
        got = f'{type(returned).__name__} {returned!r}'[:80]
    else:
        most = np.where(area > 0, area, math.inf) * ratio.largest * (1 + 1e-9)  # tolerates rounding
        if overlap.shape != shape or area.shape != shape:
            got = f'shapes {overlap.shape} and {area.shape}'
        elif ((overlap >= 0) & (overlap < math.inf) & (area >= 0) & (area < math.inf) & (overlap <= most)).all():
            return overlap, area
        else:
            got = f'overlap {overlap.tolist()} and area {area.tolist()}'[:120]
    raise ValueError(f'occlusion ratio {ratio.name!r}: its function returned {got} for {len(boxes)} instances; expected two '
                     f'{f"arrays of shape {shape}" if shape else "numbers"}, overlap and area, finite and with '
                     f'0 <= overlap / area <= {ratio.largest:g}')


def _image_ratio(ratio: OcclusionRatio, boxes: np.ndarray, categories: np.ndarray | None, masks: np.ndarray | None) -> float:
    overlap = total = 0.
    for group in _groups(categories, len(boxes)):
        part, area = _measure(ratio, boxes[group], None if masks is None else masks[group], of_image=True)
        overlap, total = overlap + part.sum(), total + area.sum()
    return round(float(overlap / total), DECIMALS) if total > 0 else float('nan')


def _instances(ground_truth: 'GroundTruth') -> tuple[np.ndarray, ...]:
    """Return positions and clipped xyxy boxes of instances sorted by image, and each image's position, start and count."""
    single = np.flatnonzero(~ground_truth.crowd)
    single = single[np.argsort(ground_truth.image[single], kind='stable')]
    boxes = clip_boxes(ground_truth.boxes_xywh[single], ground_truth.image_sizes[ground_truth.image[single]])
    return single, boxes, *np.unique(ground_truth.image[single], return_index=True, return_counts=True)


def _images(ground_truth: 'GroundTruth', definition: str, same_category: bool) -> Iterator[tuple[int, np.ndarray, tuple]]:
    """Yield the position of each image with instances, the instances' positions, and the arguments of `_image_ratio`."""
    ratio = get_occlusion_ratio(definition)
    single, boxes, *of_images = _instances(ground_truth)
    if ratio.needs_masks:
        ground_truth.check_masks(single)  # decoding trusts the codes
    for image, start, count in np.transpose(of_images).tolist():
        here, masks = slice(start, start + count), None
        members = single[here]
        if ratio.needs_masks:
            codes = [ground_truth.rle(member) for member in members.tolist()]
            masks = _mask_module().array_of(codes) if ratio.takes_codes else _mask_module().decoded(codes, (
                f'{ground_truth.source}: image id {ground_truth.image_ids[image]}: definition {definition!r}'))
        yield image, members, (ratio, boxes[here], ground_truth.category[members] if same_category else None, masks)
