"""The images where a run did worst in each bucket, drawn for the report page."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..evaluated import Evaluated
from ..inputs.ground_truth import GroundTruth
from ..inputs.image_files import read_image
from .drawing import PREDICTION_COLOUR, TRUTH_COLOUR, Shapes, draw_example, jpeg_uri
from .page_text import bucket_phrase
from .shown_detections import MOST_SHOWN, Shown
from .worst_images import SCORE_THRESHOLD, ImageErrors, count_errors, worst_images


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


def draw_worst(evaluated: Evaluated, iou_type: str, shown: Callable[[int], Shown],
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
