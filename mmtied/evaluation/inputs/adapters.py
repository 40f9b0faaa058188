"""Outputs of other libraries as the dicts that `evaluate` and `OcclusionMeanAveragePrecision` take."""

from typing import Any

import numpy as np


def from_supervision(detections: Any, image_id: int | str | None = None, is_truth: bool = False) -> dict[str, Any]:
    """Return a ``supervision.Detections`` as a dict of one image; any object with its attributes will do.

    Args:
        detections: Has ``xyxy`` (n, 4), ``class_id`` (n,), ``confidence`` (n,) and perhaps ``mask`` (n, height, width).
        image_id: The image's id or file name, which `evaluate` needs.
        is_truth: They are annotations, which need no ``confidence``.

    Raises:
        ValueError: There is no class or no confidence.

    Example:
        >>> from types import SimpleNamespace
        >>> found = SimpleNamespace(xyxy=[[0., 0., 8., 8.]], class_id=[1], confidence=[.9], mask=None)
        >>> from_supervision(found, image_id=7)
        {'image_id': 7, 'boxes': [[0.0, 0.0, 8.0, 8.0]], 'labels': [1], 'scores': [0.9]}
    """
    wanted = {'labels': 'class_id'} | ({} if is_truth else {'scores': 'confidence'})
    result = ({} if image_id is None else {'image_id': image_id}) | {'boxes': detections.xyxy}
    for key, name in wanted.items():
        value = getattr(detections, name, None)
        if value is None and len(detections.xyxy):
            raise ValueError(f'supervision.Detections: {name} is None for {len(detections.xyxy)} boxes; '
                             'one for each is needed')
        result[key] = [] if value is None else value
    if getattr(detections, 'mask', None) is not None:
        result['masks'] = np.asarray(detections.mask)  # a CompactMask becomes an array
    return result
