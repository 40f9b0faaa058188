"""Pictures of example images per bucket: choose them, sort detections into outcomes, and draw."""

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
from .tables import bucket_phrase

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from ..result import EvaluationResult

#: Longest side of a drawn image in pixels.
LONGEST_SIDE = 480
_LABEL_LENGTH = 22
_IOU_50 = 1

#: Choices of images, each with a sentence for the page.
CHOICES = {'worst': 'The images with the lowest F1 in each bucket; ties go to the image with more instances',
           'typical': 'The images whose F1 is closest to the median of their bucket',
           'random': 'Images drawn at random from each bucket (seed {seed})'}


class Look(NamedTuple):
    """Style of an outcome's boxes: a color-blind safe color (Okabe and Ito), with dashes and a sign that also work in gray."""

    color: str
    ink: str  # color of the label's text
    dash: int  # length of dashes in pixels, 0 for a solid line
    sign: str  # before the label


#: By outcome, in the order of the legend.
LOOKS = {
    'found': Look('#0072B2', 'white', 0, ''),
    'missed': Look('#D55E00', 'white', 9, 'missed: '),
    'duplicate': Look('#CC79A7', 'black', 4, '2x '),
    'unmatched': Look('#F0E442', 'black', 0, '? '),
}


class Outcomes(NamedTuple):
    """The detections and objects of one image by outcome, matched at IoU 0.5."""

    detections: list[str]  # outcome of each shown detection; empty if it counts neither way
    missed: np.ndarray  # indices of the missed annotations
    duplicates: int  # number of duplicates, including those not shown


class Shapes(NamedTuple):
    """Shapes to draw on an image in one color."""

    boxes_xywh: np.ndarray  # in pixels of the annotated image, (N, 4)
    labels: Sequence[str]  # a short text for each
    rles: Sequence[dict] | None = None  # run-length codes of the masks, if any


class ImageErrors(NamedTuple):
    """Detections and ground truths of each image at IoU 0.5, each (I,) int64."""

    found: Tensor  # ground truths with a detection
    missed: Tensor  # ground truths without one
    false: Tensor  # duplicates and unmatched detections

    @property
    def f1(self) -> Tensor:
        """``2 found / (2 found + missed + false)``, (I,) float64; NaN without ground truths and false detections."""
        return 2 * self.found / (2 * self.found + self.missed + self.false).double()


class WorstImages(NamedTuple):
    """The page's section of pictures: ``name`` and ``images`` of each bucket, and how they were chosen."""

    buckets: list[dict]
    explanation: str
    choice: str = 'worst'
    looks: dict[str, Look] = LOOKS


def draw_worst(result: 'EvaluationResult', paths: Sequence[str | os.PathLike | None], count: int = 3, choice: str = 'worst',
               seed: int = 0) -> WorstImages:
    """Draw up to `count` images of each bucket of a run's main evaluation, with masks if the run has them.

    `paths` are the files of all images; for `choice` see `choose_by_errors`.
    """
    main, grouping = result.plan.evaluations[0], result.plan.groupings[0]
    ratios = result.plan.ratios[0] if main.unit == 'image' else main.ratios(result.ground_truth, 'image')
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
            found, missed, false = (int(numbers[image]) for numbers in errors)
            images.append(dict(found=found, missed=missed, instances=found + missed, duplicates=outcomes.duplicates,
                               unmatched=false - outcomes.duplicates, name=Path(path).name, uri=jpeg_uri(picture),
                               width=picture.width, height=picture.height, ratio=float(ratios[image]),
                               f1=float(errors.f1[image])))
        buckets.append({'name': bucket_phrase(bucket.name), 'images': images})
    return WorstImages(buckets, (
        f'{CHOICES[choice].format(seed=seed)}. F1 is 2 found / (2 found + missed + false positives), by {iou_type} at IoU 0.5, '
        f'for detections with a score of {SCORE_THRESHOLD} or more. False positives are duplicates of an object already found '
        f'and unmatched detections. At most {MOST_SHOWN} detections are drawn per image; crowd regions are not drawn.'), choice)


def image_outcomes(result: 'EvaluationResult', iou_type: str, image: int, shown: np.ndarray, column: int) -> Outcomes:
    """Determine the outcome of an image's objects and detections.

    `shown` are the categories of the detections to show, by decreasing score. `column` selects the bucket's match bits, since
    objects outside an instance bucket count neither way. Scores below `SCORE_THRESHOLD` do not count.
    """
    records, positives = result.records[iou_type], result.targets.positives()
    here = records.select(((records.image == image) & (records.score >= SCORE_THRESHOLD)).nonzero()[:, 0])
    counted = positives.counted[:, column]
    known = here.target >= 0
    in_bucket = known & counted[here.target.clamp(min=0)]
    true, ignored = (here.matched[:, 0] & 1) != 0, (here.ignored[:, 0] & 1) != 0
    found, duplicate = true & ~ignored & in_bucket, ~true & in_bucket
    unmatched = ~true & ~ignored & ~known
    names = {}
    for name, rows in (('found', found), ('duplicate', duplicate), ('unmatched', unmatched)):
        for place in rows.nonzero()[:, 0].tolist():
            names[int(here.category[place]), int(here.rank[place])] = name
    missed = counted & (positives.image == image)
    missed[here.target[found]] = False
    place_of = {category: place for place, category in enumerate(result.categories.tolist())}
    outcomes, ranks = [], {}
    for category in shown.tolist():  # by decreasing score, as ranks are
        rank = ranks[category] = ranks.get(category, -1) + 1
        outcomes.append(names.get((place_of.get(category, -1), rank), ''))
    return Outcomes(outcomes, result.targets.annotation[missed.nonzero()[:, 0].cpu().numpy()], int(duplicate.sum()))


def choose_by_errors(errors: ImageErrors, members: Tensor, count: int = 3, choice: str = 'worst', seed: int = 0) -> list[int]:
    """Choose up to `count` images of a bucket; return their indices in order.

    `members` marks the images to choose from, (I,) bool. ``'worst'`` takes those with the lowest F1, without error-free images
    (ties go to the image with more instances, then to the first in the file), ``'typical'`` those whose F1 is closest to the
    median, and ``'random'`` any.
    """
    check_choice(choice)
    f1 = errors.f1
    candidates = (members.to(f1.device) & ((f1 < 1) if choice == 'worst' else ~f1.isnan())).nonzero()[:, 0]
    if choice == 'random':
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed)).to(f1.device)
        return candidates[order[:count]].tolist()
    far = f1[candidates]
    if choice == 'typical' and len(candidates):
        far = (far - far.quantile(.5)).abs()
    order = torch.argsort((errors.found + errors.missed)[candidates], stable=True, descending=True)
    order = order[torch.argsort(far[order], stable=True)]
    return candidates[order[:count]].tolist()


def check_choice(choice: str) -> str:
    """Return the choice; raise a ValueError if it is unknown."""
    if choice not in CHOICES:
        raise ValueError(f'images: choice={choice!r}; use one of {", ".join(CHOICES)}')
    return choice


def outcome_layers(ground_truth: GroundTruth, names: Sequence[str], predictions: Detections, outcomes: Outcomes,
                   with_masks: bool) -> list[tuple[Shapes, Look]]:
    """Return the layers to draw: missed objects, then detections by outcome, with the found ones on top."""
    missed = outcomes.missed[np.argsort(-ground_truth.area[outcomes.missed], kind='stable')]
    look = LOOKS['missed']
    layers = [(Shapes(ground_truth.boxes_xywh[missed],
                      [look.sign + names[number] for number in ground_truth.category[missed].tolist()],
                      [ground_truth.rle(number) for number in missed.tolist()] if with_masks else None), look)]
    for name in ('unmatched', 'duplicate', 'found'):
        here, look = [number for number, outcome in enumerate(outcomes.detections) if outcome == name], LOOKS[name]
        labels = [f'{look.sign}{names[predictions.category[number]]} {predictions.score[number]:.2f}' for number in here]
        rles = None if predictions.rles is None else [predictions.rles[number] for number in here]
        layers.append((Shapes(predictions.boxes_xywh[here], labels, rles), look))
    return layers


def count_errors(records: Records, positives: Positives, num_images: int, column: int = 0) -> ImageErrors:
    """Count found, missed and false objects of each image at IoU 0.5, in a column of the match bits (0 for all areas).

    Matching goes by score, so dropping low scores afterwards equals matching without them.

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
    """Return the detections of one image to draw, by decreasing score, with boxes even if they have masks."""
    here = np.flatnonzero((detections.image == image) & (detections.score >= SCORE_THRESHOLD))
    found = detections.select(here[np.argsort(-detections.score[here], kind='stable')][:MOST_SHOWN])
    if found.rles is None:
        return found
    return replace(found, boxes_xywh=np.array([mask_api.toBbox(rle) for rle in found.rles]).reshape(-1, 4))


def draw_example(image: 'Image.Image', size: tuple[int, int], layers: Sequence[tuple[Shapes, Look]]) -> 'Image.Image':
    """Draw layers of shapes, the last on top, on a small copy of an image; coordinates refer to its `size` (height, width).

    Labels are at the upper left of their boxes, for dashed boxes at the lower left. A label that would cover another is left out.
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
        draw_boxes(draw, corners, [look.color] * len(corners), dash=look.dash)
    taken = []
    for shapes, look in reversed(layers):
        for box, label in zip(box_corners(shapes.boxes_xywh, scale, small.size), shapes.labels, strict=True):
            _draw_label(draw, font, box, label, look, taken, (width, height))
    return small


def box_corners(boxes_xywh: np.ndarray, scale: float, size: tuple[int, int]) -> list[list[int]]:
    """Scale (N, 4) boxes to xyxy in whole pixels, clipped to a picture (width, height), and at least 3 x 3."""
    boxes = np.asarray(boxes_xywh, dtype=float).reshape(-1, 4) * scale
    low = np.clip(boxes[:, :2], 0, [max(side - 4, 0) for side in size])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], low + 3, [max(side - 1, 3) for side in size])
    return np.concatenate([low, high], axis=1).round().astype(int).tolist()


def draw_boxes(draw: 'ImageDraw.ImageDraw', corners: Sequence[Sequence[int]], colors: Sequence, width: int = 2,
               dash: int = 0) -> None:
    """Outline xyxy boxes in their colors, solid or dashed, on a dark line that sets them off from the photograph."""
    for (left, top, right, bottom), color in zip(corners, colors, strict=True):
        draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline='#101010', width=4 if dash else 1)
        if not dash:
            draw.rectangle([left, top, right, bottom], outline=color, width=width)
            continue
        for start in range(left, right, 2 * dash):
            for y in (top, bottom - 1):
                draw.rectangle([start, y, min(start + dash, right), y + 1], fill=color)
        for start in range(top, bottom, 2 * dash):
            for x in (left, right - 1):
                draw.rectangle([x, start, x + 1, min(start + dash, bottom)], fill=color)


def jpeg_uri(picture: 'Image.Image') -> str:
    """Return a picture as a data URI of a JPEG."""
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=80, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _draw_label(draw: 'ImageDraw.ImageDraw', font: 'ImageFont.FreeTypeFont', box: list[int], label: str, look: Look,
                taken: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    """Write a label in a corner of a box and record its place, unless it would cover another label."""
    text = ' '.join(label.split())
    text = text if len(text) <= _LABEL_LENGTH else f'{text[:_LABEL_LENGTH - 1]}…'
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = int(right - left) + 4, int(bottom - top) + 4
    x = max(0, min(box[0], size[0] - wide))
    y = max(0, min(box[3] - high + 1 if look.dash else box[1], size[1] - high))
    if any(x < other[2] and other[0] < x + wide and y < other[3] and other[1] < y + high for other in taken):
        return
    taken.append((x, y, x + wide, y + high))
    draw.rectangle(taken[-1], fill=look.color)
    draw.text((x + 2 - left, y + 2 - top), text, fill=look.ink, font=font)
