"""What COCO's rules allow in a detector's results, though hardly anyone means it: each found and said in one line.

Neither changes a number, so that the numbers stay those of pycocotools.
"""

from collections.abc import Sequence

import numpy as np

from .results import Detections


def describe_unusual(detections: Detections, image_ids: np.ndarray) -> list[str]:
    """A line for each kind of unusual detection among those of one IoU type.

    Args:
        detections: The detections.
        image_ids: The ids that their images' positions point into, shape (I,).
    """
    lines = []
    repeated = repeated_detections(detections)
    if len(repeated):
        lines.append(f'{len(repeated)} of {len(detections.score)} detections repeat another one (same image, category, score and '
                     f'shape), such as in image id {image_ids[detections.image[repeated[0]]]}; each counts, so if the results '
                     'were joined twice, AP is too low')
    if detections.boxes_xywh is not None:
        inverted = (detections.boxes_xywh[:, 2:] < 0).any(axis=1)
        if inverted.any():
            lines.append(describe_inverted(image_ids[np.unique(detections.image[inverted])].tolist()))
    return lines


def describe_inverted(image_ids: Sequence[int]) -> str:
    """A line about the images, at least one, where a predicted box has x2 < x1 or y2 < y1."""
    images = f'image id {image_ids[0]}' if len(image_ids) == 1 else f'{len(image_ids)} images, such as image id {image_ids[0]},'
    return (f'predicted boxes of {images} have x2 < x1 or y2 < y1; as in pycocotools they match nothing, and count as false '
            'only where both sides are negative')


def repeated_detections(detections: Detections) -> np.ndarray:
    """Positions of the detections that equal an earlier one, sorted, int64.

    Example:
        >>> once = dict(image=[0, 0], category=[1, 1], score=[.5, .5], area=[4., 9.], boxes_xywh=[[0, 0, 2, 2], [0, 0, 3, 3]])
        >>> repeated_detections(Detections(**{name: np.array(values * 2) for name, values in once.items()})).tolist()
        [2, 3]
    """
    # Nearly all scores differ within a category of an image, so that few shapes have to be compared.
    columns = (detections.image, detections.category, detections.score)
    order = np.lexsort(columns[::-1])
    same = np.all([column[order][1:] == column[order][:-1] for column in columns], axis=0)
    near = np.zeros(len(order), dtype=bool)
    near[1:] |= same
    near[:-1] |= same
    seen, repeated = set(), []
    for number in np.sort(order[near]).tolist():
        shape = (detections.rles[number]['counts'] if detections.boxes_xywh is None else detections.boxes_xywh[number].tobytes())
        key = *(column[number] for column in columns), shape
        if key in seen:
            repeated.append(number)
        seen.add(key)
    return np.array(repeated, dtype=np.int64)
