"""Warn about likely mistakes in annotations and results, with the option that fixes each; scores are not changed."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..protocol import BOX_FORMATS
from .arrays import GroundTruth
from .coco_json import to_xywh
from .faults import shown
from .results import Detections

#: Names of categories that mark regions rather than objects.
_REGIONS = re.compile(r"ignored?([ _-]?regions?)?|don'?t[ _-]?care", re.IGNORECASE)
#: Minimum number of boxes at which a small fraction outside the image is suspicious.
_ENOUGH = 20
#: Boxes beyond this multiple of the image's sides suggest a resized image; unclipped boxes of a model stay within it.
_FAR = 1.1
#: Fraction of results that must fit another format; unclipped boxes of a model may leave their image in any format.
_MOST = .8


def describe_annotations(boxes_xywh: np.ndarray, image_sizes: np.ndarray, all_sizes: np.ndarray) -> list[str]:
    """Describe likely mistakes in the boxes of annotations.

    Args:
        boxes_xywh: Boxes, shape (N, 4).
        image_sizes: Height and width of each box's image, shape (N, 2).
        all_sizes: Height and width of all images, shape (I, 2).
    """
    other = find_format(boxes_xywh, image_sizes, .99)
    if other:
        return [f'boxes of annotations look like {_format_name(other)}, but are read as x, y, width, height: '
                f'{_misfit(boxes_xywh, image_sizes, other)}; if that is their format, use --annotation-format {other} '
                f"(box_format='{other}')"]
    out, swapped = (leaves(boxes_xywh, sizes).sum() for sizes in (image_sizes, image_sizes[:, ::-1]))
    if out * 20 <= len(boxes_xywh):
        return []
    complaint = f'{out} of {len(boxes_xywh)} boxes leave their image'
    if swapped * 100 < len(boxes_xywh) and (all_sizes[:, 0] != all_sizes[:, 1]).any():
        return [f'width and height of the images look swapped: {complaint}, and {swapped} would with the sides swapped; '
                '--swap-sizes (swap_sizes=True) swaps them']
    return [f'{complaint}; r is computed from the parts inside']


def describe_regions(names: Iterable[str], category: np.ndarray) -> list[str]:
    """Describe annotations whose category name, such as VisDrone's 'ignored regions', suggests that they are not objects.

    `category` has the index of each annotation's category in `names`, shape (N,).

    Example:
        >>> describe_regions(['ignored regions', 'car'], np.array([1, 0]))
        ["1 of 2 annotations are of category 'ignored regions', but count as objects and occlude; --ignore-categories \
'ignored regions' makes them regions in which detections are ignored"]
    """
    counts = {str(name): int((category == number).sum()) for number, name in enumerate(names) if _REGIONS.fullmatch(str(name))}
    return [f'{count} of {len(category)} annotations are of category {shown(name)}, but count as objects and occlude; '
            f'--ignore-categories {shown(name)} makes them regions in which detections are ignored'
            for name, count in counts.items() if count]


def describe_results(boxes_xywh: np.ndarray, image_sizes: np.ndarray) -> str | None:
    """Describe boxes of results that look as if they were read in the wrong format, or return None.

    Example:
        >>> describe_results(np.array([[50., 50., 90., 80.]]), np.array([[100, 100]]))
        "1 of 1 boxes leave their image as x, y, width, height, and 1 fit as x1, y1, x2, y2; if that is their format, use \
box_format='xyxy' (--box-format xyxy)"
    """
    other = find_format(boxes_xywh, image_sizes, _MOST)
    if other:
        return (f'{_misfit(boxes_xywh, image_sizes, other)} as x, y, width, height, and '
                f'{_fits(boxes_xywh, image_sizes, other).sum()} fit as {_format_name(other)}; if that is their format, use '
                f'box_format={other!r} (--box-format {other})')
    inverted = (boxes_xywh[:, 2:] < 0).any(axis=1)
    size = image_sizes[:, ::-1] + 1
    start, sides = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    fits = ((start + (start + sides) <= size) & (start + sides > 0)).all(axis=1)
    if inverted.sum() * 2 > len(inverted) and fits.sum() > _MOST * len(fits):
        return (f'{inverted.sum()} of {len(inverted)} boxes have x2 < x1 or y2 < y1 as x1, y1, x2, y2, and {fits.sum()} fit as '
                "x, y, width, height; if that is their format, use box_format='xywh' (--box-format xywh)")
    far = leaves(boxes_xywh, image_sizes * _FAR)
    if len(far) >= _ENOUGH and far.sum() * 20 > len(far):
        return (f'{far.sum()} of {len(far)} boxes reach beyond their image by more than a tenth of its side; coordinates in the '
                'original images are expected, not in resized or padded ones')
    return None


def describe_unusual(detections: Detections, ground_truth: GroundTruth, limit: int = 100) -> list[str]:
    """Describe suspicious but legal results, one line per kind.

    They are only reported: scores stay identical to pycocotools'. `limit` is the number of detections that count per image and
    category.
    """
    image_ids, lines = ground_truth.image_ids, []
    repeated = repeated_detections(detections)
    if len(repeated):
        lines.append(f'{len(repeated)} of {len(detections.score)} detections repeat another one (same image, category, score and '
                     f'shape), for example in image id {image_ids[detections.image[repeated[0]]]}; each counts, so AP is '
                     'too low if a file was included twice')
    cells, counts = np.unique(detections.image * len(ground_truth.category_ids) + detections.category, return_counts=True)
    if (counts > limit).any() and not ground_truth.federated:
        images = np.unique(cells[counts > limit] // len(ground_truth.category_ids))
        lines.append(f'{len(images)} images, such as image id {image_ids[images[0]]}, have more than {limit} detections of a '
                     'category, and those with the lowest scores do not count, as in COCOeval; '
                     f'--proposal-nums 1 10 {counts.max()} counts all')
    if detections.boxes_xywh is not None:
        inverted = (detections.boxes_xywh[:, 2:] < 0).any(axis=1)
        other_format = describe_results(detections.boxes_xywh, ground_truth.image_sizes[detections.image])
        if other_format:
            lines.append(other_format)
        elif inverted.any():
            lines.append(describe_inverted(image_ids[np.unique(detections.image[inverted])].tolist()))
    return lines


def describe_inverted(image_ids: Sequence[int]) -> str:
    """Describe predicted boxes with x2 < x1 or y2 < y1 in one or more images."""
    images = f'image id {image_ids[0]}' if len(image_ids) == 1 else f'{len(image_ids)} images, such as image id {image_ids[0]},'
    return (f'predicted boxes of {images} have x2 < x1 or y2 < y1; as in pycocotools they match nothing, and are false positives '
            'only if both sides are negative')


def repeated_detections(detections: Detections) -> np.ndarray:
    """Return the sorted indices of detections that equal an earlier one, int64.

    Example:
        >>> once = dict(image=[0, 0], category=[1, 1], score=[.5, .5], area=[4., 9.], boxes_xywh=[[0, 0, 2, 2], [0, 0, 3, 3]])
        >>> repeated_detections(Detections(**{name: np.array(values * 2) for name, values in once.items()})).tolist()
        [2, 3]
    """
    shapes = detections.boxes_xywh
    if shapes is None:
        shapes = np.array([hash(rle['counts']) for rle in detections.rles], dtype=np.float64)
    return repeated_rows(np.column_stack([detections.image, detections.category, detections.score, shapes]))


def find_format(boxes_xywh: np.ndarray, image_sizes: np.ndarray, share: float, scaled: bool = False) -> str | None:
    """Return another format that boxes fit better than x, y, width, height, or None.

    `share` is the fraction of boxes that must fit the other format; `scaled` boxes were relative and have been scaled to pixels.
    """
    num = len(boxes_xywh)
    if not num:
        return None
    if not scaled and np.abs(boxes_xywh).max() <= 1.5 and image_sizes.min() > 8 and (boxes_xywh[:, 2:] > 0).any():
        pixels = boxes_xywh * np.tile(image_sizes[:, ::-1], 2)
        return (find_format(pixels, image_sizes, share, scaled=True) or 'xywh') + 'n'
    num_out = leaves(boxes_xywh, image_sizes).sum()
    for other in ('xyxy', 'cxcywh'):
        often = num_out * 2 > num if other == 'xyxy' and share < .99 else num_out * 20 > num
        if (often and (num >= _ENOUGH or num_out * 2 > num)) and _fits(boxes_xywh, image_sizes, other).sum() >= share * num:
            return other
    return None


def leaves(boxes_xywh: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """Return which boxes extend more than a pixel beyond the right or lower border of their image, shape (N,) bool."""
    right, bottom = boxes_xywh[:, 0] + boxes_xywh[:, 2], boxes_xywh[:, 1] + boxes_xywh[:, 3]
    return (right > image_sizes[:, 1] + 1) | (bottom > image_sizes[:, 0] + 1)


def repeated_rows(rows: np.ndarray) -> np.ndarray:
    """Return the sorted indices of rows that equal an earlier one, from an array (N, C)."""
    sums = sum(column * np.sqrt(number) for number, column in enumerate(rows.T, 2))  # sorting these beats sorting all columns
    in_order = np.sort(sums)
    candidates = np.flatnonzero(np.isin(sums, in_order[1:][in_order[1:] == in_order[:-1]]))
    if not len(candidates):
        return candidates
    order = candidates[np.lexsort(rows[candidates].T[::-1])]
    same = (rows[order][1:] == rows[order][:-1]).all(axis=1)
    return np.sort(order[1:][same])


def _fits(boxes: np.ndarray, image_sizes: np.ndarray, box_format: str) -> np.ndarray:
    """Return which boxes, read in another format, lie inside their image and have no negative sides."""
    boxes = to_xywh(boxes.copy(), box_format, image_sizes)
    inside = (boxes[:, :2] >= -1).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
    return inside & ~leaves(boxes, image_sizes)


def _misfit(boxes: np.ndarray, image_sizes: np.ndarray, other: str) -> str:
    """Describe the misfit of boxes that look like another format."""
    if other.endswith('n'):
        return f'all {len(boxes)} boxes lie in the first pixels of their image'
    return f'{leaves(boxes, image_sizes).sum()} of {len(boxes)} boxes leave their image'


def _format_name(box_format: str) -> str:
    return BOX_FORMATS[box_format] + (' relative to the image size' if box_format.endswith('n') else '')
