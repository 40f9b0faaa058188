"""Compare the models of an experiment over seeds and images, from the kept match records."""

from collections.abc import Mapping, Sequence

import torch

from mmtied.evaluation.buckets import Grouping, whole_set
from mmtied.evaluation.comparison import Estimate, describe_difference, estimate_groups
from mmtied.evaluation.intervals import Bootstrap
from mmtied.evaluation.records import SavedRun, read_records

from .runs import Run

#: The ends that the question is about, by the names of their buckets; None for all images.
BANDS = {'all': None, 'r < 0.2': ('r=0', '(0,0.1)', '[0.1,0.2)'), 'r >= 0.8': ('[0.8,0.9)', '[0.9,1]')}
#: How much larger a value is at r >= 0.8 than at r < 0.2.
CONTRAST = 'r >= 0.8 minus r < 0.2'


def compare_models(sides: Mapping[str, Sequence[Run]], iou_types: Sequence[str], bootstrap: Bootstrap) -> dict:
    """Compare every model with the first, for all images, both ends of r, and how the difference changes between the ends.

    Args:
        sides: Runs of each model, which differ in their seed; the first model is the baseline.
        iou_types: 'bbox', 'segm' or both.
        bootstrap: How to resample images.

    Returns:
        ``{iou type: {band: {statistic: {model: {'value', 'interval', 'difference', 'low', 'high', ...}}}}}``, where a band is a
        key of `BANDS` or `CONTRAST`. The baseline has no difference.
    """
    read = {model: [read_records(run.results) for run in runs] for model, runs in sides.items()}
    return {iou_type: _compare(read, iou_type, bootstrap) for iou_type in iou_types}


def _compare(sides: Mapping[str, Sequence[SavedRun]], iou_type: str, bootstrap: Bootstrap) -> dict:
    found = {model: {band: estimate(side, iou_type, names, bootstrap) for band, names in BANDS.items()}
             for model, side in sides.items()}
    baseline, *_ = sides
    for bands in found.values():
        bands[CONTRAST] = {name: contrast(bands['r >= 0.8'][name], bands['r < 0.2'][name]) for name in bands['all']}
    return {band: {statistic: {model: _describe(bands[band][statistic],
                                                None if model == baseline else found[baseline][band][statistic], bootstrap)
                               for model, bands in found.items()}
                   for statistic in found[baseline][band]}
            for band in [*BANDS, CONTRAST]}


def estimate(side: Sequence[SavedRun], iou_type: str, names: Sequence[str] | None, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Return each statistic of the images in some buckets, for the runs of one model."""
    def grouping(run: SavedRun) -> Grouping:
        if names is None:
            return whole_set(len(run.image_ids))
        main = run.evaluations[0]
        buckets = [number for number, bucket in enumerate(main.description['buckets']) if bucket['name'] in names]
        return Grouping(main.members[:, buckets].any(1, keepdim=True), torch.zeros(1, dtype=torch.int64))

    found, = estimate_groups(side, iou_type, grouping, bootstrap)
    return found


def contrast(high: Estimate, low: Estimate) -> Estimate:
    """Return the difference of a statistic between two sets of different images, run by run."""
    return Estimate(high.values - low.values, high.halves - low.halves, min(high.num_images, low.num_images))


def _describe(estimate: Estimate, baseline: Estimate | None, bootstrap: Bootstrap) -> dict:
    described = {'images': estimate.num_images, 'value': estimate.value.item(), 'seeds': estimate.values.tolist()}
    return described if baseline is None else {**described, **describe_difference(estimate, baseline, bootstrap)}
