"""Pictures of images of each bucket: what a run found, missed, found twice and invented."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from ..accumulate import Positives, Records
from ..inputs.ground_truth import GroundTruth
from ..inputs.images import read_image
from ..inputs.results import Detections
from ..stream import MOST_SHOWN, SCORE_THRESHOLD
from .failures import CHOICES, LOOKS, Look, Outcomes, choose_by_errors, image_outcomes
from .tables import bucket_phrase

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from ..result import EvaluationResult

#: Longest side of a drawn image in pixels.
LONGEST_SIDE = 480
_LABEL_LENGTH = 22
_IOU_50 = 1


class Shapes(NamedTuple):
    """Shapes that are drawn on an image in one color.

    Attributes:
        boxes_xywh: In pixels of the annotated image, shape (N, 4).
        labels: A short text for each.
        rles: Run-length codes of the masks, where there are any.
    """

    boxes_xywh: np.ndarray
    labels: Sequence[str]
    rles: Sequence[dict] | None = None


class ImageErrors(NamedTuple):
    """Detections and ground truths of each image at IoU 0.5, each shape (I,) int64.

    Attributes:
        found: Ground truths with a detection.
        missed: Ground truths without one.
        false: Detections that match nothing.
    """

    found: Tensor
    missed: Tensor
    false: Tensor

    @property
    def f1(self) -> Tensor:
        """``2 found / (2 found + missed + false)``, shape (I,) float64; NaN where there is nothing to find and nothing false."""
        return 2 * self.found / (2 * self.found + self.missed + self.false).double()


class WorstImages(NamedTuple):
    """The section of the page with pictures: for each bucket its ``name`` and ``images``, and how they were chosen."""

    buckets: list[dict]
    explanation: str
    choice: str = 'worst'
    looks: dict[str, Look] = LOOKS


def draw_worst(result: 'EvaluationResult', paths: Sequence[str | os.PathLike | None], count: int = 3, choice: str = 'worst',
               seed: int = 0) -> WorstImages:
    """Draw some images of each bucket of a run's main evaluation, by default the worst; with masks where the run has them.

    Args:
        result: The evaluated run, with its detections.
        paths: The file of each image.
        count: Maximum number of images of each bucket.
        choice: Which images, see `failures.choose_by_errors`.
        seed: Of a random choice.
    """
    main, grouping, ratios = result.plan.evaluations[0], result.plan.groupings[0], result.picture_ratios
    iou_type = 'segm' if 'segm' in result.records else 'bbox'
    detections = result.detections.get(iou_type, result.detections.get('bbox')).arrays()
    records, positives, ground_truth = result.records[iou_type], result.targets.positives(), result.ground_truth
    names = [str(ground_truth.category_names[category_id]) for category_id in ground_truth.category_ids.tolist()]
    buckets = []
    for bucket, members, column in zip(main.buckets, grouping.members.T, grouping.columns.tolist(), strict=True):
        errors, images = count_errors(records, positives, len(ratios), column=column), []
        if main.unit == 'instance':
            members = (errors.found + errors.missed > 0).to(members.device)
        for image in choose_by_errors(errors, members, count, choice, seed):
            path, predictions = paths[image], shown_of(detections, image)
            outcomes = image_outcomes(result, iou_type, image, predictions.category, column)
            layers = outcome_layers(ground_truth, names, predictions, outcomes, iou_type == 'segm')
            picture = draw_example(read_image(path), tuple(ground_truth.image_sizes[image].tolist()), layers)
            counts = {key: int(numbers[image]) for key, numbers in errors._asdict().items()}
            images.append(dict(counts, name=Path(path).name, uri=jpeg_uri(picture), width=picture.width, height=picture.height,
                               ratio=float(ratios[image]), f1=float(errors.f1[image]), twice=outcomes.twice,
                               invented=counts['false'] - outcomes.twice, instances=counts['found'] + counts['missed']))
        buckets.append({'name': bucket_phrase(bucket.name), 'images': images})
    return WorstImages(buckets, (
        f'{CHOICES[choice].format(seed=seed)}. F1 is 2 found / (2 found + missed + false), counted by {iou_type} at IoU 0.5 '
        f'among detections with a score of {SCORE_THRESHOLD} or more; false ones found an object again or found none. At most '
        f'{MOST_SHOWN} predictions are drawn, none below that score; crowd regions are not drawn.'), choice)


def outcome_layers(ground_truth: GroundTruth, names: Sequence[str], predictions: Detections, outcomes: Outcomes,
                   with_masks: bool) -> list[tuple[Shapes, Look]]:
    """Return what to draw of an image: missed objects, then detections by outcome, found ones last so that they stay readable."""
    missed = outcomes.missed[np.argsort(-ground_truth.area[outcomes.missed], kind='stable')]
    look = LOOKS['missed']
    layers = [(Shapes(ground_truth.boxes_xywh[missed],
                      [look.sign + names[number] for number in ground_truth.category[missed].tolist()],
                      [ground_truth.rle(number) for number in missed.tolist()] if with_masks else None), look)]
    for name in ('invented', 'found twice', 'found'):
        here, look = [number for number, outcome in enumerate(outcomes.detections) if outcome == name], LOOKS[name]
        labels = [f'{look.sign}{names[predictions.category[number]]} {predictions.score[number]:.2f}' for number in here]
        rles = None if predictions.rles is None else [predictions.rles[number] for number in here]
        layers.append((Shapes(predictions.boxes_xywh[here], labels, rles), look))
    return layers


def count_errors(records: Records, positives: Positives, num_images: int, column: int = 0) -> ImageErrors:
    """Count the found, missed and false objects of each image at IoU 0.5, in a column of the match bits (0 for all areas).

    Matching is in score order, so leaving out low scores afterwards gives the same as matching without them.

    Example:
        >>> one = torch.tensor([0])
        >>> bits = torch.tensor([[1]], dtype=torch.int16)
        >>> records = Records(one, one, one, torch.tensor([0.9]), bits, 0 * bits, one, one + 1.)
        >>> positives = Positives(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool))
        >>> [counts.tolist() for counts in count_errors(records, positives, 2)]
        [[1, 0], [1, 0], [0, 0]]
    """
    shown = records.score >= SCORE_THRESHOLD
    matched = (records.matched[:, column] & _IOU_50) != 0
    ignored = (records.ignored[:, column] & _IOU_50) != 0
    found = torch.bincount(records.image[shown & matched & ~ignored], minlength=num_images)
    false = torch.bincount(records.image[shown & ~matched & ~ignored], minlength=num_images)
    instances = torch.bincount(positives.image[positives.counted[:, column]], minlength=num_images)
    return ImageErrors(found, instances - found, false)


def shown_of(detections: Detections, image: int) -> Detections:
    """Return the detections of one image to draw, the most certain first, with boxes also where they have masks."""
    here = np.flatnonzero((detections.image == image) & (detections.score >= SCORE_THRESHOLD))
    found = detections.select(here[np.argsort(-detections.score[here], kind='stable')][:MOST_SHOWN])
    if found.rles is None:
        return found
    return replace(found, boxes_xywh=np.array([mask_api.toBbox(rle) for rle in found.rles]).reshape(-1, 4))


def draw_example(image: 'Image.Image', size: tuple[int, int], layers: Sequence[tuple[Shapes, Look]]) -> 'Image.Image':
    """Draw shapes on a small copy of an image, each layer in its look.

    Labels stand at the upper left of their boxes, those of dashed boxes at the lower left; one that would cover another is left
    out.

    Args:
        image: RGB.
        size: Height and width that the shapes refer to.
        layers: Shapes and their look, those on top last.
    """
    from PIL import Image, ImageDraw

    from ...plotting import picture_font

    scale = LONGEST_SIDE / max(size)
    width, height = (max(1, round(side * scale)) for side in (size[1], size[0]))
    small = image.convert('RGB').resize((width, height), Image.Resampling.LANCZOS)
    for shapes, look in layers:
        for rle in shapes.rles or ():
            mask = Image.fromarray(90 * mask_api.decode(rle).astype(np.uint8)).resize(small.size, Image.Resampling.BILINEAR)
            small = Image.composite(Image.new('RGB', small.size, look.color), small, mask)
    draw, font = ImageDraw.Draw(small), picture_font(13, (label for shapes, _ in layers for label in shapes.labels))
    for shapes, look in layers:
        corners = box_corners(shapes.boxes_xywh, scale, small.size)
        if look.dash:
            _draw_dashed(draw, corners, look)
        else:
            draw_boxes(draw, corners, [look.color] * len(corners))
    taken = []
    for shapes, look in reversed(layers):
        for box, label in zip(box_corners(shapes.boxes_xywh, scale, small.size), shapes.labels, strict=True):
            _draw_label(draw, font, box, label, look, taken, (width, height))
    return small


def box_corners(boxes_xywh: np.ndarray, scale: float, size: tuple[int, int]) -> list[list[int]]:
    """Return boxes xyxy in whole pixels of a picture, inside it and at least 3 pixels wide and high.

    Args:
        boxes_xywh: In pixels of the annotated image, shape (N, 4).
        scale: Pixels of the picture for each of the annotated image.
        size: Width and height of the picture.
    """
    boxes = np.asarray(boxes_xywh, dtype=float).reshape(-1, 4) * scale
    low = np.clip(boxes[:, :2], 0, [max(side - 4, 0) for side in size])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], low + 3, [max(side - 1, 3) for side in size])
    return np.concatenate([low, high], axis=1).round().astype(int).tolist()


def draw_boxes(draw: 'ImageDraw.ImageDraw', corners: Sequence[Sequence[int]], colors: Sequence, width: int = 2) -> None:
    """Outline boxes xyxy in their colors, each inside a thin dark line that sets it off from the photograph."""
    for box, color in zip(corners, colors, strict=True):
        draw.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline='#101010', width=1)
        draw.rectangle(box, outline=color, width=width)


def jpeg_uri(picture: 'Image.Image') -> str:
    """Return a picture as a data URI of a JPEG."""
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=80, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _draw_dashed(draw: 'ImageDraw.ImageDraw', corners: Sequence[Sequence[int]], look: Look) -> None:
    """Outline boxes xyxy in dashes on a dark line."""
    for left, top, right, bottom in corners:
        draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline='#101010', width=4)
        for start in range(0, right - left, 2 * look.dash):
            end = min(left + start + look.dash, right)
            for y in (top, bottom - 1):
                draw.rectangle([left + start, y, end, y + 1], fill=look.color)
        for start in range(0, bottom - top, 2 * look.dash):
            end = min(top + start + look.dash, bottom)
            for x in (left, right - 1):
                draw.rectangle([x, top + start, x + 1, end], fill=look.color)


def _draw_label(draw: 'ImageDraw.ImageDraw', font: 'ImageFont.FreeTypeFont', box: list[int], label: str, look: Look,
                taken: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    """Write a label in a corner of a box unless another label is there, and note its place."""
    text = ' '.join(label.split())
    text = text if len(text) <= _LABEL_LENGTH else f'{text[:_LABEL_LENGTH - 1]}…'
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = int(right - left) + 4, int(bottom - top) + 4
    x = max(0, min(box[0], size[0] - wide))
    y = box[3] - high + 1 if look.dash else box[1]
    y = max(0, min(y, size[1] - high))
    place = (x, y, x + wide, y + high)
    if any(place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3] for other in taken):
        return
    taken.append(place)
    draw.rectangle(place, fill=look.color)
    draw.text((x + 2 - left, y + 2 - top), text, fill=look.ink, font=font)
