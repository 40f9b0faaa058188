"""A small data set, and predictions for it in the form that mmdet passes to a metric."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from tests.helpers.coco_oracle import shape

HEIGHT, WIDTH = 120, 150
CLASSES = ('dog', 'cat', 'person')


def make_data(rng, num_images=12):
    """Make annotations with unsorted categories, gaps in ids, crowds and an image without instances."""
    images = [dict(id=int(number) * 3 + 2, height=HEIGHT, width=WIDTH) for number in range(num_images)]
    categories = [dict(id=7, name='cat'), dict(id=2, name='dog'), dict(id=9, name='bird'), dict(id=4, name='person')]
    annotations = []
    for image in images[1:]:
        for _ in range(rng.integers(1, 8)):
            bbox = [*rng.uniform(0, 60, 2).tolist(), *(rng.choice([20, 40, 60, 90], 2) * rng.uniform(.7, 1)).tolist()]
            annotations.append(dict(id=len(annotations) + 1, image_id=image['id'], bbox=bbox, area=bbox[2] * bbox[3] * .9,
                                    category_id=int(rng.choice([7, 2, 9, 4])), iscrowd=int(rng.random() < .1),
                                    segmentation=shape(bbox, HEIGHT, WIDTH, rng, polygon=rng.random() < .5)))
    return dict(images=images, annotations=annotations, categories=categories)


def make_samples(data, rng, with_masks=True):
    """Make predictions near the annotations as mmdet's data samples: float32 boxes and scores, boolean masks."""
    labels_of = {7: 0, 2: 1, 4: 2}  # mmdet's labels follow the file's order of the dataset's classes
    samples = []
    for image in data['images']:
        boxes, labels = [], []
        for entry in data['annotations']:
            if entry['image_id'] == image['id']:
                for _ in range(rng.integers(0, 6)):
                    x, y, w, h = entry['bbox']
                    noise = rng.normal(size=4) * rng.choice([0, 1, 5])
                    boxes.append([x + noise[0], y + noise[1], x + w + noise[2], y + h + noise[3]])
                    labels.append(labels_of.get(entry['category_id'], 0))
        count = len(boxes)
        instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                                 scores=torch.from_numpy(rng.integers(1, 20, count) / 20).float(),
                                 labels=torch.tensor(labels, dtype=torch.int64))
        if with_masks:
            masks = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
            for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
                mask[max(0, int(top)):max(0, int(bottom)), max(0, int(left)):max(0, int(right))] = True
            instances.masks = torch.from_numpy(masks)
            instances.mask_scores = torch.from_numpy(rng.integers(1, 20, count) / 20).float()
        sample = BaseDataElement(pred_instances=instances)
        sample.set_metainfo(dict(img_id=image['id'], ori_shape=(HEIGHT, WIDTH)))
        samples.append(sample.to_dict())
    return samples
