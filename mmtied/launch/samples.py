"""Detections of several models on the same images, one row per model (Wang & Yu, Figure A.2)."""

import os
import warnings
from collections.abc import Callable

import numpy as np
import torch
from pycocotools import mask as mask_api

from mmtied.analysis.example_images import Choice, category_colors, choose_images
from mmtied.evaluation.inputs import GroundTruth, load_detections
from mmtied.evaluation.inputs.images import image_file, read_image
from mmtied.evaluation.reporting.pictures import Look, Shapes, draw_example
from mmtied.plotting import Panel

from .networks import Network, detect, prepare

#: Returns the shapes that a row shows on the image at an index, the most confident first.
Source = Callable[[int], Shapes]


def sample_rows(ground_truth: GroundTruth, images: str | os.PathLike, sources: dict[str, Source],
                choice: Choice) -> dict[str, list[Panel]]:
    """Draw images chosen by `choose_images`, one row per source, each instance in a different color."""
    rows: dict[str, list[Panel]] = {name: [] for name in sources}
    for image, ratio in choose_images(ground_truth, images, choice):
        picture = read_image(image_file(images, ground_truth.file_names[image]))
        for place, (name, source) in enumerate(sources.items()):
            shapes = source(image)
            text = f'{"" if place else f"r = {ratio:.2f}, "}{len(shapes.labels)} instances'
            rows[name].append(Panel(_draw(picture, tuple(ground_truth.image_sizes[image].tolist()), shapes), text))
    return rows


def annotated(ground_truth: GroundTruth, masks: bool) -> Source:
    """Return a source of the annotations, without crowds."""
    def shapes(image: int) -> Shapes:
        here = np.flatnonzero((ground_truth.image == image) & ~ground_truth.crowd)
        labels = ground_truth.names_of(ground_truth.category[here])
        rles = [ground_truth.rle(number) for number in here.tolist()] if masks else None
        return Shapes(ground_truth.boxes_xywh[here], labels, rles)

    return shapes


def from_results(ground_truth: GroundTruth, results: str | os.PathLike, score_threshold: float) -> tuple[Source, bool]:
    """Return a source of the detections in a results file, and True if they have masks; raises as `load_detections`."""
    found = load_detections(results, ground_truth)
    detections = found.get('segm') or found['bbox']
    if len(detections.score) and not (detections.score >= score_threshold).any():
        warnings.warn(f'{results}: nothing to draw: no score reaches {score_threshold:g}; the highest is '
                      f'{detections.score.max():.2f}', stacklevel=2)

    def shapes(image: int) -> Shapes:
        here = np.flatnonzero((detections.image == image) & (detections.score >= score_threshold))
        here = here[np.argsort(-detections.score[here], kind='stable')]
        rles = None if detections.rles is None else [detections.rles[number] for number in here.tolist()]
        boxes = detections.boxes_xywh[here] if rles is None else np.array([mask_api.toBbox(rle) for rle in rles]).reshape(-1, 4)
        names = ground_truth.names_of(detections.category[here])
        labels = [f'{name} {score:.2f}' for name, score in zip(names, detections.score[here].tolist(), strict=True)]
        return Shapes(boxes, labels, rles)

    return shapes, detections.rles is not None


def from_network(ground_truth: GroundTruth, images: str | os.PathLike, network: Network, score_threshold: float) -> Source:
    """Return a source of a network's detections."""
    if not network.is_detector:
        raise ValueError(f'{network.name} classifies images; expected a detector')

    def shapes(image: int) -> Shapes:
        with torch.no_grad():
            found = detect(network, prepare(network, image_file(images, ground_truth.file_names[image]))).cpu()
        found = found[found.scores >= score_threshold]
        found = found[found.scores.argsort(descending=True, stable=True)]
        boxes = found.bboxes.double().numpy()
        labels = [f'{network.class_name(label)} {score:.2f}'
                  for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)]
        rles = [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in found.masks.numpy()] if 'masks' in found else None
        return Shapes(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), labels, rles)

    return shapes


def _draw(picture: object, size: tuple[int, int], shapes: Shapes) -> np.ndarray:
    """Draw each instance in a different color, the most confident on top."""
    colors = category_colors(max(24, min(len(shapes.labels), 300)))
    layers = []
    for number in reversed(range(len(shapes.labels))):
        red, green, blue = colors[number % len(colors)]
        ink = 'black' if .299 * red + .587 * green + .114 * blue > 120 else 'white'
        look = Look(f'#{red:02x}{green:02x}{blue:02x}', ink, 0, '')
        rles = None if shapes.rles is None else [shapes.rles[number]]
        layers.append((Shapes(shapes.boxes_xywh[number:number + 1], [shapes.labels[number]], rles), look))
    return np.asarray(draw_example(picture, size, layers))
