"""Simulate a detector's results on real annotations from a seed, with masks and realistic numbers per image.

Most detections are jittered copies of an instance, several per instance, with higher scores for better copies; the rest are boxes
at random places with low scores.
"""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_api

from mmtied.atomic import atomic_path
from mmtied.evaluation.inputs.ground_truth import GroundTruth
from mmtied.evaluation.inputs.results import Detections

#: Share of detections that copy an instance, in images with instances.
_COPIES = .7


@dataclass(frozen=True)
class SimulatedDetections:
    """Detections as arrays, grouped by image.

    Attributes:
        image_id: Shape (D,) int64.
        category_id: Shape (D,) int64.
        score: Shape (D,) float64, rounded to float32.
        boxes_xywh: Shape (D, 4) float64, in pixels, rounded to float32.
        counts: Concatenated compressed run-length codes of the masks, shape (C,) uint8.
        ends: End of each code in `counts`, shape (D,) int64.
        sizes: Height and width of each mask, shape (D, 2) int64.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    score: np.ndarray
    boxes_xywh: np.ndarray
    counts: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray

    def rles(self) -> list[dict]:
        """Return the masks as pycocotools' run-length codes."""
        counts, ends = self.counts.tobytes(), self.ends.tolist()
        return [{'size': size, 'counts': counts[start:end]}
                for size, start, end in zip(self.sizes.tolist(), [0, *ends], ends, strict=False)]

    def rows(self) -> np.ndarray:
        """Return pycocotools' ``(N, 7)`` array: image id, x, y, w, h, score, category id."""
        return np.column_stack([self.image_id, self.boxes_xywh, self.score, self.category_id]).astype(np.float64)

    def entries(self, iou_type: str) -> list[dict]:
        """Return COCO's results format, with boxes or segmentations."""
        common = zip(self.image_id.tolist(), self.category_id.tolist(), self.score.tolist(), strict=True)
        key, values = ('bbox', self.boxes_xywh.tolist()) if iou_type == 'bbox' else ('segmentation', self.rles())
        return [{'image_id': image_id, 'category_id': category_id, 'score': score, key: value}
                for (image_id, category_id, score), value in zip(common, values, strict=True)]

    def save(self, path: Path) -> None:
        """Write the arrays to an ``.npz`` file."""
        with atomic_path(path) as partial, partial.open('wb') as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> 'SimulatedDetections':
        """Read a file written by `save`."""
        with np.load(path) as arrays:
            return cls(**arrays)


def make_annotations(num_images: int, seed: int = 0, num_categories: int = 20) -> dict:
    """Generate COCO annotations of overlapping ellipses of all sizes from a seed, with COCO's 7.3 instances per image."""
    rng = np.random.default_rng(seed)
    height, width, entries = 480, 640, []
    for image in range(num_images):
        for _ in range(1 + rng.poisson(6.3)):
            size = np.exp(rng.uniform(np.log(8), np.log(300), 2))
            corner = rng.uniform(0, 1, 2) * np.maximum([width, height] - size, 0)
            polygon = (_ellipse() * np.minimum(size, [width, height]) + corner).ravel().tolist()
            code = mask_api.merge(mask_api.frPyObjects([polygon], height, width))
            entries.append(dict(id=len(entries) + 1, image_id=image, category_id=int(rng.integers(num_categories)), iscrowd=0,
                                segmentation=[polygon], bbox=mask_api.toBbox(code).tolist(), area=float(mask_api.area(code))))
    images = [dict(id=image, file_name=f'{image}.jpg', height=height, width=width) for image in range(num_images)]
    return dict(images=images, annotations=entries, categories=[dict(id=c, name=f'c{c}') for c in range(num_categories)])


def simulate(annotations: dict, num_detections: int, seed: int = 0, with_masks: bool = True) -> SimulatedDetections:
    """Simulate detections, spread evenly over all images.

    Args:
        annotations: Content of a COCO instances file with masks.
        num_detections: D.
        seed: The same seed gives the same detections.
        with_masks: Simulate masks too; otherwise the codes are empty.
    """
    rng = np.random.default_rng(seed)
    images, category_ids = annotations['images'], [entry['id'] for entry in annotations['categories']]
    of_image = {image['id']: [] for image in images}
    for entry in annotations['annotations']:
        of_image[entry['image_id']].append(entry)
    shares = np.diff(np.linspace(0, num_detections, len(images) + 1).astype(int))
    columns = [_image_detections(image, of_image[image['id']], category_ids, share, rng, with_masks)
               for image, share in zip(images, shares.tolist(), strict=True)]
    joined = [list(chain.from_iterable(column)) for column in zip(*columns, strict=True)]
    image_id, category_id, score, boxes, codes, sizes = joined
    return SimulatedDetections(np.array(image_id), np.array(category_id),
                               np.array(score, dtype=np.float32).astype(np.float64),
                               np.array(boxes, dtype=np.float32).astype(np.float64).reshape(-1, 4),
                               np.frombuffer(b''.join(codes), dtype=np.uint8), np.cumsum([len(code) for code in codes]),
                               np.array(sizes).reshape(-1, 2))


def simulate_boxes(ground_truth: GroundTruth, difficulty: np.ndarray | float = 1., copies: int = 3, clutter: int = 8,
                   seed: int = 0) -> Detections:
    """Simulate boxes as `simulate` does, for all instances at once, each with its own difficulty.

    Args:
        ground_truth: The annotations; crowds are not found.
        difficulty: Multiplies the jitter of each instance's detections, shape (N,) or a number; the score falls with it.
        copies: Detections of each instance.
        clutter: Boxes at random places in each image.
        seed: The same seed gives the same detections.
    """
    rng = np.random.default_rng(seed)
    instance = np.repeat(np.flatnonzero(~ground_truth.crowd), copies)
    num, num_categories = len(instance), len(ground_truth.category_ids)
    spread = rng.choice([.03, .1, .3], (num, 1)) * np.broadcast_to(difficulty, ground_truth.crowd.shape)[instance, None]
    shift = rng.normal(size=(num, 4)) * spread
    boxes = ground_truth.boxes_xywh[instance]
    boxes = np.concatenate([boxes[:, :2] + shift[:, :2] * boxes[:, 2:], boxes[:, 2:] * np.exp(shift[:, 2:])], axis=1)
    category = np.where(rng.random(num) < .85, ground_truth.category[instance], rng.integers(num_categories, size=num))
    score = 1 / (1 + np.exp(4 * np.abs(shift).sum(1) - 1 + rng.normal(size=num)))

    image = np.repeat(np.arange(len(ground_truth.image_ids)), clutter)
    sizes = ground_truth.image_sizes[image, ::-1].astype(float)
    sides = np.exp(rng.uniform(np.log(8), np.log(.8 * sizes.min(1)), (2, len(image)))).T
    places = rng.random((len(image), 2)) * sizes - sides / 2
    other = ground_truth.category[rng.integers(len(ground_truth.category), size=len(image))]
    image, category = np.concatenate([ground_truth.image[instance], image]), np.concatenate([category, other])
    score = np.concatenate([score, rng.random(len(places))**3])
    boxes = np.concatenate([boxes, np.concatenate([places, sides], axis=1)])
    order = np.argsort(image, kind='stable')
    boxes = boxes[order]
    return Detections(image[order], category[order], score[order], boxes[:, 2] * boxes[:, 3], boxes_xywh=boxes)


def write_results(entries: list[dict], path: Path) -> None:
    """Write a COCO results file."""
    def text(value: bytes) -> str:
        return value.decode()

    with atomic_path(path) as partial, partial.open('w', encoding='utf-8') as file:
        json.dump(entries, file, default=text)


def _image_detections(image: dict, instances: list[dict], category_ids: list[int], num: int, rng: np.random.Generator,
                      with_masks: bool) -> tuple[list, ...]:
    """Return the columns of one image's detections."""
    height, width = image['height'], image['width']
    outlines = [outline(entry['segmentation'], height, width) for entry in instances] if with_masks else []
    columns = [[image['id']] * num, [], [], [], [], [[height, width]] * num]
    for number in range(num):
        spread = rng.choice([.03, .1, .3])
        polygons = [_ellipse()]
        if instances and rng.random() < _COPIES:
            choice = number % len(instances)
            x, y, w, h = instances[choice]['bbox']
            shift = rng.normal(0, spread, 4)
            box = [x + shift[0] * w, y + shift[1] * h, w * np.exp(shift[2]), h * np.exp(shift[3])]
            polygons = outlines[choice] if with_masks else polygons
            category_id = instances[choice]['category_id'] if rng.random() < .85 else rng.choice(category_ids)
            score = 1 / (1 + np.exp(4 * np.abs(shift).sum() - 1 + rng.normal()))
        else:
            side = np.exp(rng.uniform(np.log(8), np.log(.8 * min(height, width)), 2))
            box = [*(rng.random(2) * [width, height] - side / 2), *side]
            category_id = instances[rng.integers(len(instances))]['category_id'] if instances else rng.choice(category_ids)
            category_id = category_id if rng.random() < .5 else rng.choice(category_ids)
            score = rng.random()**3
        left, top = max(box[0], 0), max(box[1], 0)
        clipped = [left, top, max(min(box[0] + box[2], width) - left, 1), max(min(box[1] + box[3], height) - top, 1)]
        columns[1].append(int(category_id))
        columns[2].append(score)
        columns[3].append(clipped)
        columns[4].append(_code(polygons, box, height, width) if with_masks else b'')
    return tuple(columns)


def outline(segmentation: dict | list, height: int, width: int) -> list[np.ndarray]:
    """Return a mask's outlines as smooth polygons in units of its box, each (n, 2)."""
    if isinstance(segmentation, list):
        segmentation = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        segmentation = mask_api.frPyObjects(segmentation, height, width)
    x, y, w, h = mask_api.toBbox(segmentation).astype(int)
    mask = mask_api.decode(segmentation)[y:y + h, x:x + w]
    found, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    smooth = [cv2.approxPolyDP(points, epsilon=1, closed=True) for points in found]
    return [points[:, 0] / [w, h] for points in smooth if len(points) >= 3] or [_ellipse()]


def _ellipse() -> np.ndarray:
    """Return the outline of an ellipse that fills the unit box, shape (16, 2)."""
    angle = np.arange(16) * np.pi / 8
    return np.column_stack([np.cos(angle), np.sin(angle)]) / 2 + .5


def _code(polygons: list[np.ndarray], box: list[float], height: int, width: int) -> bytes:
    """Return the run-length code of polygons scaled to a box."""
    placed = [(polygon * box[2:] + box[:2]).ravel().tolist() for polygon in polygons]
    return mask_api.merge(mask_api.frPyObjects(placed, height, width))['counts']
