"""The images where a run did worst in each bucket, with ground truth and predictions drawn."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from ...plotting import hide_spines, new_figure, plain_label
from ..accumulate import Positives, Records
from ..inputs.ground_truth import GroundTruth
from ..inputs.images import read_image
from ..inputs.results import Detections
from ..result import EvaluationResult
from ..stream import MOST_SHOWN, SCORE_THRESHOLD
from .tables import bucket_phrase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw, ImageFont

#: Blue and orange: told apart by every common kind of colour vision, and in grey.
TRUTH_COLOUR, PREDICTION_COLOUR = '#2A7BFF', '#FF8C1A'
#: Longest side of a drawn image in pixels.
LONGEST_SIDE = 480
_LABEL_LENGTH = 22


class Shapes(NamedTuple):
    """What is drawn on an image in one colour.

    Args:
        boxes_xywh: In pixels of the annotated image, shape (N, 4).
        labels: A short text for each.
        rles: Run-length codes of the masks, where there are any.
    """

    boxes_xywh: np.ndarray
    labels: Sequence[str]
    rles: Sequence[dict] | None = None


def draw_example(image: 'Image.Image', size: tuple[int, int], truth: Shapes, predictions: Shapes) -> 'Image.Image':
    """The image, made small, with ground truth and predictions in two colours.

    Labels of predictions stand at the upper left of their boxes, those of ground truth at the lower left; a label that would
    cover another one is left out.

    Args:
        image: RGB.
        size: Height and width that the shapes refer to.
        truth: Ground truth.
        predictions: Predictions, the most certain first.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = LONGEST_SIDE / max(size)
    width, height = (max(1, round(side * scale)) for side in (size[1], size[0]))
    small = image.convert('RGB').resize((width, height), Image.Resampling.LANCZOS)
    layers = ((truth, TRUTH_COLOUR), (predictions, PREDICTION_COLOUR))
    for shapes, colour in layers:
        for rle in shapes.rles or ():
            small = _tint(small, rle, colour)
    draw, font = ImageDraw.Draw(small), ImageFont.load_default(13)
    for shapes, colour in layers:
        for box in _corners(shapes, scale, width, height):
            draw.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline='#101010', width=1)
            draw.rectangle(box, outline=colour, width=2)
    taken = []
    for shapes, colour in reversed(layers):
        for box, label in zip(_corners(shapes, scale, width, height), shapes.labels, strict=True):
            _label(draw, font, box, label, colour, taken, (width, height))
    return small


def jpeg_uri(picture: 'Image.Image', quality: int = 80) -> str:
    """A picture as a data URI of a JPEG."""
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _corners(shapes: Shapes, scale: float, width: int, height: int) -> list[list[int]]:
    """Boxes xyxy in whole pixels of the small picture, inside it and at least 3 pixels wide and high."""
    boxes = np.asarray(shapes.boxes_xywh, dtype=float).reshape(-1, 4) * scale
    low = np.clip(boxes[:, :2], 0, [max(width - 4, 0), max(height - 4, 0)])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], low + 3, [max(width - 1, 3), max(height - 1, 3)])
    return np.concatenate([low, high], axis=1).round().astype(int).tolist()


def _tint(picture: 'Image.Image', rle: dict, colour: str) -> 'Image.Image':
    """The picture with a mask tinted."""
    from PIL import Image

    mask = Image.fromarray(90 * mask_api.decode(rle).astype(np.uint8))
    return Image.composite(Image.new('RGB', picture.size, colour), picture, mask.resize(picture.size, Image.Resampling.BILINEAR))


def _label(draw: 'ImageDraw.ImageDraw', font: 'ImageFont.FreeTypeFont', box: list[int], label: str, colour: str,
           taken: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    """Write a label in a corner of a box unless another label is there, and note where it stands."""
    text = ' '.join(label.split())
    text = text if len(text) <= _LABEL_LENGTH else f'{text[:_LABEL_LENGTH - 1]}…'
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = int(right - left) + 4, int(bottom - top) + 4
    x = max(0, min(box[0], size[0] - wide))
    y = box[1] if colour == PREDICTION_COLOUR else box[3] - high + 1
    y = max(0, min(y, size[1] - high))
    place = (x, y, x + wide, y + high)
    if any(place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3] for other in taken):
        return
    taken.append(place)
    draw.rectangle(place, fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill='white' if colour == TRUTH_COLOUR else 'black', font=font)


_IOU_50 = 1


class ImageErrors(NamedTuple):
    """Detections and ground truths of each image at IoU 0.5, each shape (I,) int64.

    Args:
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


def count_errors(records: Records, positives: Positives, num_images: int, score_threshold: float = SCORE_THRESHOLD,
                 column: int = 0) -> ImageErrors:
    """Count what was found, missed and wrongly detected in each image, at IoU 0.5.

    Matching goes by descending score, so leaving out low scores afterwards gives the same as matching without them.

    Args:
        records: The detections' match records.
        positives: The ground truths that count.
        num_images: I.
        score_threshold: Detections below it are left out.
        column: Area range, or column of a bucket of instances; 0 is all areas.

    Example:
        >>> one = torch.tensor([0])
        >>> bits = torch.tensor([[1]], dtype=torch.int16)
        >>> records = Records(one, one, one, torch.tensor([0.9]), bits, 0 * bits)
        >>> positives = Positives(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool))
        >>> [counts.tolist() for counts in count_errors(records, positives, 2)]
        [[1, 0], [1, 0], [0, 0]]
    """
    shown = records.score >= score_threshold
    matched = (records.matched[:, column] & _IOU_50) != 0
    ignored = (records.ignored[:, column] & _IOU_50) != 0
    found = torch.bincount(records.image[shown & matched & ~ignored], minlength=num_images)
    false = torch.bincount(records.image[shown & ~matched & ~ignored], minlength=num_images)
    instances = torch.bincount(positives.image[positives.counted[:, column]], minlength=num_images)
    return ImageErrors(found, instances - found, false)


def worst_images(errors: ImageErrors, members: Tensor, count: int = 3) -> list[int]:
    """The images with the lowest F1, those with the most instances first among equals, then in the order of the file.

    Args:
        errors: Of all images.
        members: Which images to choose from, shape (I,) bool.
        count: At most so many are chosen.

    Returns:
        Positions of images that have an error, the worst first.

    Example:
        >>> errors = ImageErrors(*torch.tensor([[3, 0, 0, 5], [0, 1, 4, 0], [1, 0, 0, 0]]))
        >>> worst_images(errors, torch.tensor([True, True, True, True]))
        [2, 1, 0]
    """
    f1 = errors.f1
    candidates = (members.to(f1.device) & (f1 < 1)).nonzero()[:, 0]
    instances = (errors.found + errors.missed)[candidates]
    order = torch.argsort(instances, stable=True, descending=True)
    order = order[torch.argsort(f1[candidates][order], stable=True)]
    return candidates[order[:count]].tolist()




class Shown(NamedTuple):
    """Detections of one image to draw, the most certain first.

    Args:
        boxes_xywh: In pixels, shape (N, 4) float64.
        category: Position of each category in the ground truth's `category_ids`, shape (N,) int64.
        score: Shape (N,) float64.
        rles: Run-length codes of the masks, where there are any.
    """

    boxes_xywh: np.ndarray
    category: np.ndarray
    score: np.ndarray
    rles: list[dict] | None = None


def shown_in(table: Tensor, image: int) -> Shown:
    """The detections of the image at a position, from tables of different images joined by `torch.cat`."""
    rows = table[table[:, 0] == image].cpu().numpy()
    return Shown(rows[:, 3:], rows[:, 1].astype(np.int64), rows[:, 2])


def shown_of(detections: Detections, image: int, min_score: float = SCORE_THRESHOLD, most: int = MOST_SHOWN) -> Shown:
    """The detections of one image to draw, from all detections of one IoU type."""
    from pycocotools import mask as mask_api

    here = np.flatnonzero((detections.image == image) & (detections.score >= min_score))
    here = here[np.argsort(-detections.score[here], kind='stable')][:most]
    rles = None if detections.rles is None else [detections.rles[number] for number in here.tolist()]
    boxes = np.array([mask_api.toBbox(rle) for rle in rles]).reshape(-1, 4) if rles is not None else detections.boxes_xywh[here]
    return Shown(boxes, detections.category[here], detections.score[here], rles)


class Group(NamedTuple):
    """A bucket to choose images from.

    Args:
        name: How the page calls it.
        members: Its images, shape (I,) bool.
        errors: Of all images.
    """

    name: str
    members: Tensor
    errors: ImageErrors


class DrawnImage(NamedTuple):
    """One picture of the page, with its numbers."""

    name: str
    uri: str
    width: int
    height: int
    ratio: float
    f1: float
    instances: int
    found: int
    missed: int
    false: int


class DrawnBucket(NamedTuple):
    """The pictures of one bucket, the worst first."""

    name: str
    images: list[DrawnImage]


class WorstImages(NamedTuple):
    """What the page shows of the worst images."""

    buckets: list[DrawnBucket]
    explanation: str
    truth_colour: str = TRUTH_COLOUR
    prediction_colour: str = PREDICTION_COLOUR


def draw_worst(evaluated: EvaluationResult, iou_type: str, shown: Callable[[int], Shown],
               path_of_image: Callable[[int], str | os.PathLike | None], count: int = 3, run: str = '') -> WorstImages:
    """The worst images of each bucket of a run's main evaluation.

    Args:
        evaluated: The run.
        iou_type: What errors are counted by; masks are drawn for segm.
        shown: Gives the detections to draw of the image at a position.
        path_of_image: Gives the file of the image at a position.
        count: Images of each bucket, at most.
        run: Name of the run, for pages with several.

    Raises:
        ValueError: An image file is missing or cannot be read.
    """
    main, grouping, ratios = evaluated.plan.evaluations[0], evaluated.plan.groupings[0], evaluated.picture_ratios
    records, positives = evaluated.records[iou_type], evaluated.targets.positives()
    groups = [Group(bucket_phrase(bucket.name), members, count_errors(records, positives, len(ratios), column=column))
              for bucket, members, column in zip(main.buckets, grouping.members.T, grouping.columns.tolist(), strict=True)]
    return worst_examples(evaluated.ground_truth, groups, ratios, shown, path_of_image, iou_type, count, evaluated.categories,
                          run)


def worst_examples(ground_truth: GroundTruth, groups: Sequence[Group], ratios: np.ndarray, shown: Callable[[int], Shown],
                   path_of_image: Callable[[int], str | os.PathLike | None], iou_type: str, count: int = 3,
                   categories: np.ndarray | None = None, run: str = '') -> WorstImages:
    """Choose and draw the worst images of each bucket.

    Args:
        ground_truth: The annotations.
        groups: The buckets, in order.
        ratios: Occlusion ratio of every image, shape (I,).
        shown: Gives the detections to draw of the image at a position.
        path_of_image: Gives the file of the image at a position.
        iou_type: What the errors were counted by; masks are drawn for segm.
        count: Images of each bucket, at most.
        categories: Positions of the evaluated categories in `ground_truth.category_ids`; all by default.
        run: Name of the run, for pages with several.

    Raises:
        ValueError: An image file is missing or cannot be read.
    """
    names = [str(ground_truth.category_names[category_id]) for category_id in ground_truth.category_ids.tolist()]
    buckets = []
    for group in groups:
        images = []
        for image in worst_images(group.errors, group.members, count):
            path = path_of_image(image)
            truth = _truth(ground_truth, image, names, iou_type == 'segm', categories)
            predictions = _predictions(shown(image), names)
            picture = draw_example(read_image(path), tuple(ground_truth.image_sizes[image].tolist()), truth, predictions)
            found, missed, false = (int(numbers[image]) for numbers in group.errors)
            images.append(DrawnImage(Path(path).name, jpeg_uri(picture), *picture.size, float(ratios[image]),
                                     float(group.errors.f1[image]), found + missed, found, missed, false))
        buckets.append(DrawnBucket(group.name, images))
    return WorstImages(buckets, _explanation(iou_type, run))


def _truth(ground_truth: GroundTruth, image: int, names: Sequence[str], with_masks: bool,
           categories: np.ndarray | None) -> Shapes:
    """The evaluated instances of an image, crowds left out, large ones first."""
    here = (ground_truth.image == image) & ~ground_truth.crowd
    if categories is not None:
        here &= np.isin(ground_truth.category, categories)
    here = np.flatnonzero(here)
    here = here[np.argsort(-ground_truth.area[here], kind='stable')]
    return Shapes(ground_truth.boxes_xywh[here], [names[number] for number in ground_truth.category[here].tolist()],
                  [ground_truth.rle(number) for number in here.tolist()] if with_masks else None)


def _predictions(shown: Shown, names: Sequence[str]) -> Shapes:
    labels = [f'{names[category]} {score:.2f}' for category, score in zip(shown.category.tolist(), shown.score, strict=True)]
    return Shapes(shown.boxes_xywh, labels, shown.rles)


def _explanation(iou_type: str, run: str) -> str:
    """How the images were chosen and what is drawn."""
    return (f'The images with the lowest F1{f" of {run}" if run else ""} in each bucket: F1 is 2 found / (2 found + missed + '
            f'false), counted by {iou_type} at IoU 0.5 among detections with a score of {SCORE_THRESHOLD} or more; among equals '
            f'those with the most instances come first. At most {MOST_SHOWN} predictions are drawn, none below that score; '
            'crowd regions are not drawn.')


class Instances(NamedTuple):
    """Instances of one image.

    Args:
        masks: Shape (N, H, W) bool.
        labels: Index of each instance's category, shape (N,).
        scores: Shape (N,), or None for ground truth.
    """

    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class Example(NamedTuple):
    """One column of the gallery.

    Args:
        title: Stands above the image, for example ``'r = 0.85'``.
        image: RGB, shape (H, W, 3) uint8.
        truth: Its ground truth.
        predictions: What was predicted.
    """

    title: str
    image: np.ndarray
    truth: Instances
    predictions: Instances


def draw_gallery(examples: Sequence[Example], categories: Sequence[str]) -> 'Figure':
    """Draw a column for each example; colours stand for categories.

    Args:
        examples: At least one.
        categories: Names of the categories, by label.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    import matplotlib
    from matplotlib.patches import Patch

    colours = matplotlib.colormaps['tab10'].colors
    figure = new_figure(1.62 * len(examples) + .4, 3.75)
    rows = figure.subplots(2, len(examples), squeeze=False)
    for column, example in zip(rows.T, examples, strict=True):
        column[0].set_title(plain_label(example.title), fontsize=9)
        for axes, instances in zip(column, (example.truth, example.predictions), strict=True):
            _draw(axes, example.image, instances, colours)
    for axes, name in zip(rows[:, 0], ('ground truth', 'prediction'), strict=True):
        axes.set_ylabel(name, fontsize=9)
    patches = [Patch(color=colours[label % len(colours)], label=plain_label(name)) for label, name in enumerate(categories)]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(categories), frameon=False, fontsize=8)
    return figure


def _draw(axes: 'Axes', image: np.ndarray, instances: Instances, colours: Sequence[tuple[float, float, float]]) -> None:
    """Show the image dimmed, with each instance's mask tinted and outlined, the most certain ones on top."""
    axes.imshow(.45 * image / 255 + .55)
    order = range(len(instances.labels)) if instances.scores is None else np.argsort(instances.scores)
    for index in order:
        mask, colour = instances.masks[index], colours[instances.labels[index] % len(colours)]
        axes.imshow(np.where(mask[..., None], (*colour, .5), 0.))
        if mask.any():
            axes.contour(np.pad(mask, 1), levels=[.5], colors=[colour], linewidths=1.1,
                         extent=(-1.5, mask.shape[1] + .5, -1.5, mask.shape[0] + .5))
    axes.set(xlim=(-.5, image.shape[1] - .5), ylim=(image.shape[0] - .5, -.5), xticks=[], yticks=[])
    hide_spines(axes, 'top', 'right', 'bottom', 'left')
