"""Hashes that tell whether two runs were evaluated on the same annotations."""

import hashlib

import numpy as np

from .inputs.ground_truth import GroundTruth


def fingerprint(ground_truth: GroundTruth) -> str:
    """A hash of the images' ids and sizes and the annotations' ids, boxes, areas and crowd flags: one for each data set."""
    digest = hashlib.sha256()
    columns = ('image_ids', 'image_sizes', 'category_ids', 'annotation_ids', 'image', 'category', 'boxes_xywh', 'area', 'crowd')
    for name in columns:
        digest.update(np.ascontiguousarray(getattr(ground_truth, name)).tobytes())
    return digest.hexdigest()


def mask_fingerprint(ground_truth: GroundTruth) -> str:
    """A hash of all run-length codes, made from polygons where the file has those; an unusable mask counts as none."""
    digest = hashlib.sha256()
    for annotation in range(len(ground_truth.annotation_ids)):
        try:
            counts = ground_truth.rle(annotation)['counts']
            digest.update(counts.encode() if isinstance(counts, str) else counts)
        except ValueError:  # no mask that was evaluated: those are checked
            pass
        digest.update(b' ')  # which no code has
    return digest.hexdigest()
