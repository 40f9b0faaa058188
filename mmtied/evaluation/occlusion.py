"""How much the instances of an image occlude each other: the ratio r of tied block convolution's Figure 7.

Equation 5 of Wang & Yu, "Tied Block Convolution" (AAAI 2021) says only "total overlap area / total instance area"; the
definitions here are ours. The default, `covered`, is the share of the instances' box area that other boxes cover.

Boxes are exact real rectangles, so areas are summed over the cells of the grid that all box edges span, not over pixels.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools import mask as mask_api

from .inputs.ground_truth import GroundTruth

#: Every ratio definition; see `occlusion_ratio`.
DEFINITIONS = ('covered', 'union', 'pairwise', 'instance_mean', 'box_mask', 'mask')
_NEEDS_MASKS = ('box_mask', 'mask')


def check_definition(definition: str) -> str:
    """Return the name when it is one of `DEFINITIONS`, else raise a ValueError that lists them."""
    if definition not in DEFINITIONS:
        raise ValueError(f'unknown occlusion definition {definition!r}; known: {", ".join(DEFINITIONS)}')
    return definition


def largest_ratio(definition: str) -> float:
    """The highest value that the ratio can take: 1, or infinite for `pairwise`."""
    return math.inf if check_definition(definition) == 'pairwise' else 1.


def needs_masks(definition: str) -> bool:
    """Whether the definition is computed from masks (`box_mask`, `mask`) and not from boxes alone."""
    return check_definition(definition) in _NEEDS_MASKS


def occlusion_ratio(boxes_xywh: np.ndarray,
                    image_size: tuple[int, int],
                    definition: str = 'covered',
                    categories: np.ndarray | None = None,
                    masks: Sequence[np.ndarray] | None = None) -> float:
    """The occlusion ratio of one image.

    With B_i the boxes clipped to the image and M_i the masks:

    - `covered`: sum_i area(B_i inter union_{j != i} B_j) / sum_i area(B_i), in [0, 1]
    - `union`: area covered by two boxes or more / area covered by one or more, in [0, 1]
    - `pairwise`: sum_{i<j} area(B_i inter B_j) / sum_i area(B_i), at least 0 and unbounded
    - `instance_mean`: mean over i of area(B_i inter union_{j != i} B_j) / area(B_i), in [0, 1]
    - `box_mask`: as `covered`, with the other instances' masks in place of their boxes, in [0, 1]
    - `mask`: as `covered`, masks throughout. COCO's masks hardly overlap, so r collapses to 0 there.

    Args:
        boxes_xywh: Boxes of the non-crowd instances, shape (N, 4), in pixels.
        image_size: Height and width of the image in pixels.
        definition: One of `DEFINITIONS`.
        categories: Category of each instance, shape (N,). When given, only instances of one category occlude each other.
        masks: Boolean masks, each (height, width); needed by `box_mask` and `mask` only.

    Returns:
        The ratio as a float; NaN where no instance has any area inside the image.

    Raises:
        ValueError: Unknown definition, wrong shapes, or masks missing where the definition needs them.

    Example:
        >>> boxes = np.array([[0., 0., 10., 10.], [5., 0., 10., 10.]])
        >>> occlusion_ratio(boxes, (20, 20))
        0.5
    """
    boxes, groups, masks = _checked(boxes_xywh, image_size, definition, categories, masks)
    parts = []
    for members in groups:
        if definition == 'box_mask':
            parts.append(_covered_by_masks(boxes[members], masks[members]))
        elif definition == 'mask':
            parts.append(_masks_covered(masks[members]))
        else:
            parts.append(_overlap_areas(boxes[members], definition))
    overlap, total = np.sum(parts, axis=0) if parts else (0., 0.)
    return float(overlap / total) if total > 0 else float('nan')


def instance_ratios_of(boxes_xywh: np.ndarray,
                       image_size: tuple[int, int],
                       definition: str = 'covered',
                       categories: np.ndarray | None = None,
                       masks: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """The occlusion ratio of each instance of one image: the definition of the image's, restricted to the instance.

    - `covered`, `instance_mean`, `union`: area(B_i inter union_{j != i} B_j) / area(B_i). (The area of B_i under two boxes or
      more is what others cover of it, so `union` restricted to B_i is the same.)
    - `pairwise`: sum_{j != i} area(B_i inter B_j) / area(B_i), unbounded
    - `box_mask`: area(B_i inter union_{j != i} M_j) / area(B_i)
    - `mask`: area(M_i inter union_{j != i} M_j) / area(M_i)

    Args:
        boxes_xywh: As for `occlusion_ratio`, and so are the others.
        image_size: Height and width of the image in pixels.
        definition: One of `DEFINITIONS`.
        categories: Category of each instance, shape (N,), or None to let all occlude each other.
        masks: Boolean masks, for `box_mask` and `mask` only.

    Returns:
        Shape (N,) float64; NaN for an instance without area in the image.

    Raises:
        ValueError: As `occlusion_ratio`.

    Example:
        >>> instance_ratios_of(np.array([[0., 0., 10., 10.], [5., 0., 20., 10.]]), (30, 30)).tolist()
        [0.5, 0.25]
    """
    boxes, groups, masks = _checked(boxes_xywh, image_size, definition, categories, masks)
    overlap, area = np.zeros(len(boxes)), np.zeros(len(boxes))
    for members in groups:
        if definition == 'box_mask':
            parts = _box_parts_under_masks(boxes[members], masks[members]), _box_areas(boxes[members])
        elif definition == 'mask':
            shared = _depth(masks[members]) >= 2
            parts = [(mask & shared).sum() for mask in masks[members]], masks[members].sum(axis=(1, 2))
        elif definition == 'pairwise':
            shared = _pairwise_areas(boxes[members])
            parts = shared.sum(axis=1) - shared.diagonal(), shared.diagonal()
        else:
            parts = _covered_areas(boxes[members])
        overlap[members], area[members] = parts
    return np.divide(overlap, area, out=np.full(len(boxes), np.nan), where=area > 0)


def instance_cover(boxes_xywh: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The share of each box that other boxes cover, shape (N,), in [0, 1]; NaN for a box without area in the image."""
    return instance_ratios_of(boxes_xywh, image_size)


def clip_boxes(boxes_xywh: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Clip (N, 4) xywh boxes to an image of (height, width) and return them as xyxy."""
    height, width = image_size
    left_top = boxes_xywh[:, :2]
    xyxy = np.concatenate([left_top, left_top + boxes_xywh[:, 2:]], axis=1)
    return np.clip(xyxy, 0, np.array([width, height, width, height], dtype=np.float64))


def _checked(boxes_xywh: np.ndarray, image_size: tuple[int, int], definition: str, categories: np.ndarray | None,
             masks: Sequence[np.ndarray] | None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """Clipped boxes (xyxy), the groups of instances that may occlude each other, and the masks."""
    check_definition(definition)
    boxes_xywh = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    num = len(boxes_xywh)
    if categories is not None and len(categories) != num:
        raise ValueError(f'categories: {len(categories)} given for {num} boxes; one for each box is needed')
    if needs_masks(definition):
        if masks is None or len(masks) != num:
            raise ValueError(f'definition {definition!r} needs one mask for each of the {num} boxes, '
                             f'got {"none" if masks is None else len(masks)}')
        masks = np.asarray(masks, dtype=bool).reshape(num, *image_size)
    groups = [np.arange(num)] if categories is None else [
        np.flatnonzero(np.asarray(categories) == category) for category in np.unique(categories)
    ]
    return clip_boxes(boxes_xywh, image_size), groups, masks


def _edge_cells(lows: np.ndarray, highs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells between all edges of one axis: which boxes span each cell, (N, cells) as 0/1, and the cells' lengths."""
    edges = np.unique(np.concatenate([lows, highs]))
    spans = (lows[:, None] <= edges[:-1]) & (edges[1:] <= highs[:, None])
    return spans.astype(np.float64), np.diff(edges)


def _covered_areas(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each xyxy box the area that other boxes cover, and its area."""
    in_x, widths = _edge_cells(boxes[:, 0], boxes[:, 2])
    in_y, heights = _edge_cells(boxes[:, 1], boxes[:, 3])
    shared = (in_y.T @ in_x) >= 2  # cells under two boxes or more: those of a box that another covers
    covered = np.einsum('nw,nw->n', (in_y * heights) @ shared, in_x * widths)
    areas = _box_areas(boxes)
    return np.minimum(covered, areas), areas  # a sum of cells may round past the area, and r past the last bucket


def _overlap_areas(boxes: np.ndarray, definition: str) -> tuple[float, float]:
    """Numerator and denominator of a definition that needs boxes only."""
    if definition == 'covered':
        covered, areas = _covered_areas(boxes)
        return covered.sum(), areas.sum()
    if definition == 'instance_mean':
        covered, areas = _covered_areas(boxes)
        real = areas > 0
        return (covered[real] / areas[real]).sum(), real.sum()
    if definition == 'pairwise':
        areas = _pairwise_areas(boxes)
        return np.triu(areas, k=1).sum(), np.trace(areas)
    in_x, widths = _edge_cells(boxes[:, 0], boxes[:, 2])
    in_y, heights = _edge_cells(boxes[:, 1], boxes[:, 3])
    depth = in_y.T @ in_x
    cells = np.outer(heights, widths)
    return cells[depth >= 2].sum(), cells[depth >= 1].sum()


def _pairwise_areas(boxes: np.ndarray) -> np.ndarray:
    """Area that each two of N xyxy boxes share, shape (N, N); their own areas on the diagonal."""
    left_top = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    return np.clip(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - left_top, 0, None).prod(axis=2)


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of (N, 4) xyxy boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _depth(masks: np.ndarray) -> np.ndarray:
    """How many of (N, H, W) masks hold each pixel."""
    return masks.sum(axis=0, dtype=np.int32)


def _masks_covered(masks: np.ndarray) -> tuple[float, float]:
    """Pixels of each mask that another holds too, summed, and the masks' pixels, summed."""
    depth = _depth(masks)
    return float(depth[depth >= 2].sum()), float(depth.sum())


def _covered_by_masks(boxes: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Area of the boxes under the other masks, summed, and the boxes' areas, summed."""
    return float(sum(_box_parts_under_masks(boxes, masks))), float(_box_areas(boxes).sum())


def _box_parts_under_masks(boxes: np.ndarray, masks: np.ndarray) -> list[float]:
    """Area of each box under the other masks: pixels at a box's border count by the share that lies inside."""
    depth, covered = _depth(masks), []
    for (left, top, right, bottom), mask in zip(boxes, masks, strict=True):
        xs, ys = np.arange(int(left), math.ceil(right)), np.arange(int(top), math.ceil(bottom))
        inside = np.s_[int(top):math.ceil(bottom), int(left):math.ceil(right)]
        share_x = np.minimum(right, xs + 1) - np.maximum(left, xs)
        share_y = np.minimum(bottom, ys + 1) - np.maximum(top, ys)
        covered.append(min(share_y @ (depth[inside] > mask[inside]) @ share_x, (right - left) * (bottom - top)))
    return covered


def describe_definition(definition: str, same_category: bool) -> str:
    """How reports name the definition: as it is, or with the restriction to the same category.

    Example:
        >>> describe_definition('covered', same_category=True)
        'covered, same category'
    """
    return check_definition(definition) + (', same category' if same_category else '')


def image_ratios(ground_truth: GroundTruth, definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """The ratio of each image from its annotations of all categories, crowds left out.

    Args:
        ground_truth: The annotations; categories that are not evaluated occlude all the same.
        definition: One of `occlusion.DEFINITIONS`.
        same_category: Count only instances of the same category as occluders.

    Returns:
        Shape (I,) float64 in the order of `ground_truth.image_ids`; NaN for images without an instance.

    Raises:
        ValueError: The definition needs masks, and an annotation has none or a broken one.
    """
    ratios = np.full(len(ground_truth.image_ids), np.nan)
    for image, _, instances in _images(ground_truth, definition, same_category):
        ratios[image] = occlusion_ratio(**instances)
    return ratios


def instance_ratios(ground_truth: GroundTruth, definition: str = 'covered', same_category: bool = False) -> np.ndarray:
    """The ratio of each annotation, see `occlusion.instance_ratios_of`; arguments as for `image_ratios`.

    Returns:
        Shape (N,) float64 in the order of the annotations; NaN for crowds and annotations without area in the image.

    Raises:
        ValueError: As `image_ratios`.
    """
    ratios = np.full(len(ground_truth.image), np.nan)
    for _, members, instances in _images(ground_truth, definition, same_category):
        ratios[members] = instance_ratios_of(**instances)
    return ratios


def _images(ground_truth: GroundTruth, definition: str, same_category: bool) -> Iterator[tuple[int, np.ndarray, dict]]:
    """Position of each image with an instance, positions of its instances, and the arguments of the maths."""
    with_masks = needs_masks(definition)
    single = np.flatnonzero(~ground_truth.crowd)
    single = single[np.argsort(ground_truth.image[single], kind='stable')]
    if with_masks:
        ground_truth.check_masks(single)  # decode trusts the codes
    images, starts = np.unique(ground_truth.image[single], return_index=True)
    for image, members in zip(images.tolist(), np.split(single, starts)[1:], strict=True):
        masks = None
        if with_masks:
            masks = mask_api.decode([ground_truth.rle(member) for member in members.tolist()]).transpose(2, 0, 1)
        yield image, members, dict(boxes_xywh=ground_truth.boxes_xywh[members],
                                   image_size=tuple(ground_truth.image_sizes[image].tolist()),
                                   definition=definition,
                                   categories=ground_truth.category[members] if same_category else None,
                                   masks=masks)
