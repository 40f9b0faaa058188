"""What COCO's annotation files say about the images: masks, boxes and areas of what can be seen."""

from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from .occlusion_layout import Layout
from .shapes import CATEGORIES

#: COCO's own names, so that a config for COCO needs another data_root and other class names, nothing else.
SPLITS = ('train2017', 'val2017')


def annotation_path(folder: Path, split: str) -> Path:
    """Where COCO keeps the annotations of a split."""
    return folder / 'annotations' / f'instances_{split}.json'


def annotate(layout: Layout) -> list[dict]:
    """COCO annotations of the visible parts, the hindmost shape first, without ids.

    Boxes are xywh in whole pixels and tight; areas are pixel counts; segmentations are compressed run lengths, so that a
    reader gets exactly these masks. `visible` is the share of the whole shape that shows.
    """
    annotations = []
    for index, (shape, box, visible) in enumerate(zip(layout.shapes, layout.boxes_xywh, layout.visible, strict=True)):
        mask = layout.labels == index
        run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append({
            'category_id': CATEGORIES.index(shape.category) + 1,
            'bbox': [float(value) for value in box],
            'area': float(np.count_nonzero(mask)),
            'iscrowd': 0,
            'segmentation': {'size': list(run_lengths['size']), 'counts': run_lengths['counts'].decode()},
            'visible': round(float(visible), 4),
        })
    return annotations


def annotation_file(images: list[dict], annotations: list[list[dict]], info: dict) -> dict:
    """The contents of a COCO annotation file.

    Args:
        images: Entry of each image, with its id.
        annotations: The annotations of each image, as `annotate` returns them.
        info: What the file says about itself.

    Returns:
        A dict for json, in which annotations have ids from 1 on: COCOeval takes the id 0 for "no match".
    """
    with_image = [{'image_id': image['id'], **annotation} for image, of_image in zip(images, annotations, strict=True)
                  for annotation in of_image]
    return {
        'info': info,
        'licenses': [{'id': 1, 'name': 'CC0 1.0', 'url': 'https://creativecommons.org/publicdomain/zero/1.0/'}],
        'categories': [{'id': number, 'name': name, 'supercategory': 'shape'} for number, name in enumerate(CATEGORIES, 1)],
        'images': images,
        'annotations': [{'id': number, **annotation} for number, annotation in enumerate(with_image, 1)],
    }
