"""What became of the objects and detections of an image: found, missed, found twice, invented; and which images to show."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stream import SCORE_THRESHOLD

if TYPE_CHECKING:
    from ..result import EvaluationResult
    from .pictures import ImageErrors

#: How images are chosen, with the sentence that says so.
CHOICES = {'worst': 'The images with the lowest F1 in each bucket; ties go to the image with more instances',
           'typical': 'The images whose F1 is closest to the median of their bucket',
           'random': 'Images drawn at random from each bucket (seed {seed})'}


class Look(NamedTuple):
    """How an outcome is drawn: a color of Okabe and Ito's color-blind safe palette; dash and sign tell it apart without color."""

    color: str
    ink: str  # color of the label's text
    dash: int  # length of dashes in pixels, 0 for a solid line
    sign: str  # before the label


#: By outcome, in the order of the legend.
LOOKS = {
    'found': Look('#0072B2', 'white', 0, ''),
    'missed': Look('#D55E00', 'white', 9, 'missed: '),
    'found twice': Look('#CC79A7', 'black', 4, '2x '),
    'invented': Look('#F0E442', 'black', 0, '? '),
}


class Outcomes(NamedTuple):
    """What became of one image, at IoU 0.5."""

    detections: list[str]  # outcome of each detection that is shown; empty for one that counts neither way
    missed: np.ndarray  # positions of the annotations that were missed
    twice: int  # detections that found an object again, also those that are not shown


def image_outcomes(result: 'EvaluationResult', iou_type: str, image: int, shown: np.ndarray, column: int) -> Outcomes:
    """Say what became of an image's objects and detections.

    `shown` are the categories of the detections to show, those with the highest scores first; `column` is that of the bucket's
    match bits, as objects outside a bucket of instances count neither way. Lower scores than `SCORE_THRESHOLD` do not count.
    """
    records, positives = result.records[iou_type], result.targets.positives()
    here = records.select(((records.image == image) & (records.score >= SCORE_THRESHOLD)).nonzero()[:, 0])
    counted = positives.counted[:, column]
    known = here.target >= 0
    in_bucket = known & counted[here.target.clamp(min=0)]
    true, ignored = (here.matched[:, 0] & 1) != 0, (here.ignored[:, 0] & 1) != 0
    found, twice = true & ~ignored & in_bucket, ~true & in_bucket
    invented = ~true & ~ignored & ~known
    names = {}
    for name, rows in (('found', found), ('found twice', twice), ('invented', invented)):
        for place in rows.nonzero()[:, 0].tolist():
            names[int(here.category[place]), int(here.rank[place])] = name
    missed = counted & (positives.image == image)
    missed[here.target[found]] = False
    place_of = {category: place for place, category in enumerate(result.categories.tolist())}
    outcomes, ranks = [], {}
    for category in shown.tolist():  # in order of scores, as ranks are
        rank = ranks[category] = ranks.get(category, -1) + 1
        outcomes.append(names.get((place_of.get(category, -1), rank), ''))
    return Outcomes(outcomes, result.targets.annotation[missed.nonzero()[:, 0].cpu().numpy()], int(twice.sum()))


def choose_by_errors(errors: 'ImageErrors', members: Tensor, count: int = 3, choice: str = 'worst', seed: int = 0) -> list[int]:
    """Choose images of a bucket, at most `count`; return their positions in that order.

    ``'worst'`` are those of the lowest F1 (ties go to the image with more instances, then to the first in the file, and images
    without an error are left out), ``'typical'`` those whose F1 is closest to the median.

    Args:
        errors: Of all images.
        members: The images to choose from, shape (I,) bool.
        count: Maximum number of images.
        choice: One of `CHOICES`.
        seed: Of the random choice.
    """
    check_choice(choice)
    f1 = errors.f1
    candidates = (members.to(f1.device) & ((f1 < 1) if choice == 'worst' else ~f1.isnan())).nonzero()[:, 0]
    if choice == 'random':
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed)).to(f1.device)
        return candidates[order[:count]].tolist()
    far = f1[candidates] if choice == 'worst' else (f1[candidates] - f1[candidates].quantile(.5)).abs() if (
        len(candidates)) else f1[candidates]
    order = torch.argsort((errors.found + errors.missed)[candidates], stable=True, descending=True)
    order = order[torch.argsort(far[order], stable=True)]
    return candidates[order[:count]].tolist()


def check_choice(choice: str) -> str:
    """Return a choice of images; raise a ValueError for an unknown one."""
    if choice not in CHOICES:
        raise ValueError(f'images: choice={choice!r}; use one of {", ".join(CHOICES)}')
    return choice
