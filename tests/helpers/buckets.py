"""Buckets of ratios and ratios of one image's instances, in the forms that tests compare with."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api

from mmtied.evaluation.buckets import Bucket, bucket_members
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.occlusion import instance_ratios


def assign_buckets(ratios: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """Return the index of each ratio's bucket among disjoint ones, -1 for NaN and ratios outside all of them."""
    members = bucket_members(ratios, buckets)
    return np.where(members.any(axis=1), members.argmax(axis=1), -1)


def instance_ratios_of(boxes_xywh: np.ndarray, image_size: tuple[int, int], definition: str = 'covered',
                       categories: np.ndarray | None = None, masks: np.ndarray | None = None) -> np.ndarray:
    """Return the ratio of each instance of one image, shape (N,), from a data set that holds only it."""
    annotations = []
    for number, box in enumerate(np.asarray(boxes_xywh, dtype=float).reshape(-1, 4).tolist()):
        entry = dict(id=number + 1, image_id=1, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
        if categories is not None:
            entry['category_id'] = 1 + int(categories[number])
        if masks is not None:
            entry['segmentation'] = mask_api.encode(np.asfortranarray(masks[number], dtype=np.uint8))
        annotations.append(entry)
    data = dict(images=[dict(id=1, height=image_size[0], width=image_size[1])], annotations=annotations,
                categories=[dict(id=number, name=str(number)) for number in range(1, 11)])
    return instance_ratios(read_ground_truth(data), definition, same_category=categories is not None)
