"""Compare the models of an experiment over seeds and images, using the stored match records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mmtied.evaluation.accumulate import Grouping, whole_set
from mmtied.evaluation.comparison import Estimate, describe_difference, estimate_groups
from mmtied.evaluation.intervals import Bootstrap
from mmtied.evaluation.records import SavedRun, read_records

from .runs import Run

#: The value at the high end of r minus that at the low end.
CHANGE = 'change'


@dataclass(frozen=True)
class Question:
    """The question of an experiment: how models differ on images with little and with much occlusion.

    Attributes:
        iou_types: 'bbox', 'segm' or both.
        low: Upper end of little occlusion, an edge of the buckets.
        high: Lower end of much occlusion.
        evaluation: Index of the run's evaluation with image buckets.
    """

    iou_types: tuple[str, ...]
    low: float
    high: float
    evaluation: int = 0

    @property
    def bands(self) -> dict[str, tuple[float, float]]:
        """Ranges of r by name, starting with all images."""
        return {'all': (0, math.inf), f'r < {self.low:g}': (0, self.low), f'r >= {self.high:g}': (self.high, math.inf)}


def compare_models(sides: Mapping[str, Sequence[Run]], question: Question, bootstrap: Bootstrap) -> dict:
    """Compare every model with the first on all images, at both ends of r, and in the change between the ends.

    Args:
        sides: Runs of each model with different seeds; the first model is the baseline.
        question: The comparison to make.
        bootstrap: Settings for resampling images.

    Returns:
        ``{iou type: {band: {statistic: {model: {'value', 'interval', 'difference', 'low', 'high', ...}}}}}``, where a band is a
        key of `Question.bands` or `CHANGE`. The baseline has no difference.
    """
    read = {model: [read_records(run.results) for run in runs] for model, runs in sides.items()}
    return {iou_type: _compare(read, iou_type, question, bootstrap) for iou_type in question.iou_types}


def _compare(sides: Mapping[str, Sequence[SavedRun]], iou_type: str, question: Question, bootstrap: Bootstrap) -> dict:
    found = {model: {band: estimate(side, iou_type, question, band, bootstrap) for band in question.bands}
             for model, side in sides.items()}
    baseline, *_ = sides
    everything, low, high = question.bands
    for bands in found.values():
        bands[CHANGE] = {name: contrast(bands[high][name], bands[low][name]) for name in bands[everything]}
    return {band: {statistic: {model: _describe(bands[band][statistic],
                                                None if model == baseline else found[baseline][band][statistic], bootstrap)
                               for model, bands in found.items()}
                   for statistic in found[baseline][band]}
            for band in [*question.bands, CHANGE]}


def estimate(side: Sequence[SavedRun], iou_type: str, question: Question, band: str, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Estimate each statistic on the images of a band, for the runs of one model."""
    least, below = question.bands[band]

    def grouping(run: SavedRun) -> Grouping:
        if (least, below) == (0, math.inf):  # include images without a ratio
            return whole_set(len(run.image_ids))
        main = run.evaluations[question.evaluation]
        buckets = [number for number, bucket in enumerate(main.description['buckets'])
                   if least <= bucket['lower'] and bucket['upper'] <= below]
        return Grouping(main.members[:, buckets].any(1, keepdim=True), torch.zeros(1, dtype=torch.int64))

    found, = estimate_groups(side, iou_type, grouping, bootstrap)
    return found


def contrast(high: Estimate, low: Estimate) -> Estimate:
    """Return the difference of a statistic between two disjoint sets of images, run by run.

    The parts of both are combined, so that their variances are extrapolated together.
    """
    return Estimate(high.values - low.values, high.parts - low.parts, min(high.num_images, low.num_images))


def _describe(estimate: Estimate, baseline: Estimate | None, bootstrap: Bootstrap) -> dict:
    described = {'images': estimate.num_images, 'value': estimate.value.item(), 'seeds': estimate.values.tolist()}
    return described if baseline is None else {**described, **describe_difference(estimate, baseline, bootstrap)}
