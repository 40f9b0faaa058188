"""Images, boxes and masks for a detector, in mmdet's structures: seeded, in the numbers and sizes that COCO has."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

#: Mean number of instances of an image with instances, as in COCO's val2017 (36335 in 4952 images).
_MEAN_INSTANCES = 7.3
_CLASSES = 80


def make_batch(images: int, size: tuple[int, int], seed: int = 0) -> dict:
    """What mmdet's pipelines hand to a detector.

    Each instance is an ellipse in a colour of its own on a noisy ground; its box is the mask's.

    Args:
        images: N.
        size: Height and width.
        seed: The same seed gives the same batch.

    Returns:
        `inputs`, N images of (3, H, W) in uint8, and `data_samples` with boxes (xyxy), labels and bitmap masks.
    """
    rng = np.random.default_rng(seed)
    samples = [_make_image(rng, *size) for _ in range(images)]
    return dict(inputs=[image for image, _ in samples], data_samples=[sample for _, sample in samples])


def _make_image(rng: np.random.Generator, height: int, width: int) -> tuple[torch.Tensor, DetDataSample]:
    image = rng.integers(90, 150, (3, height, width), dtype=np.uint8)
    y, x = np.ogrid[:height, :width]
    masks, boxes = [], []
    for _ in range(1 + rng.poisson(_MEAN_INSTANCES - 1)):
        radii = np.exp(rng.uniform(np.log(4), np.log(min(height, width) / 3), 2))
        centre = rng.uniform(0, 1, 2) * (height, width)
        mask = ((y - centre[0]) / radii[0])**2 + ((x - centre[1]) / radii[1])**2 <= 1
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if not len(rows):
            continue
        image[:, mask] = rng.integers(0, 256, (3, 1), dtype=np.uint8)
        masks.append(mask.astype(np.uint8))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                             labels=torch.from_numpy(rng.integers(0, _CLASSES, len(boxes))),
                             masks=BitmapMasks(masks, height, width))
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width),
                                         batch_input_shape=(height, width), scale_factor=(1., 1.), img_id=0))
    sample.gt_instances = instances
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long),
                                            masks=BitmapMasks([], height, width))
    return torch.from_numpy(image), sample
