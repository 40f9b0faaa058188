"""Null bands: the range of a bucket's statistic if occlusion did not matter.

AP depends on the number of images and instances and on their sizes and categories, all of which change with r. So each bucket is
compared with random sets instead of with all images:

- *plain*: random sets of the same number of images. The difference from the band, the excess, is the part of the statistic that
  the number of images does not explain.
- *matched*: random sets of the same number of images with similar instance counts, sizes and categories. Images are drawn in
  proportion to their odds of being in the bucket, from a logistic regression on these counts (the conditional randomization test
  of Candes et al., "Panning for gold", JRSS B 2018; fixed-size sets by Pareto sampling, Rosen 1997). The odds are cross-fitted,
  or the bucket would match itself. The sets still differ in these counts from the bucket and from each other, so a linear
  regression over the sets removes what the counts explain.
- For instance buckets, random sets with the same number of instances of each category and size (small, medium, large), drawn from
  the instances of all buckets.

The bucket is one of the sets that could have been drawn, so the permutation p-value is exact for the plain band.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .accumulate import Grouping, Positives, Records
from .buckets import Evaluation, EvaluationPlan
from .instance_null import INSTANCE_KIND, balanced_rows, have_several_sets, instance_nulls
from .intervals import MIN_IMAGES, Bootstrap, bootstrap_statistics
from .parallel import operations_in_one_thread
from .protocol import AREA_RANGES, PROPOSAL_NUMS
from .summary import all_evaluations, count_images

#: Kinds of null bands of image buckets: the infix of their keys, and their description in reports.
KINDS = {'': 'random sets of the same number of images',
         'matched_': 'random sets of the same number of images, drawn to match in instance counts, sizes and categories; '
                     'regression removes the remaining differences'}
#: Upper edges of the bins of instances per image that matching distinguishes.
_COUNTS = (1, 2, 3, 4, 6, 9, 14)
#: Number of categories to match: those in the most images.
_CATEGORIES = 100
#: Ridge penalties of the logistic regression: for instance counts and sizes, and for the many categories.
_RIDGE, _CATEGORY_RIDGE = 1., 100.
#: Folds of the cross-fitting.
_FOLDS = 5
#: Candidate ridge penalties of the linear regression over sets, as multiples of the mean variance along a principal axis.
_SET_RIDGES = (.001, .01, .1, 1., 10., 100.)


def add_null_bands(report: Mapping, records: Mapping[str, Records], positives: Positives, plan: EvaluationPlan,
                   num_categories: int, bootstrap: Bootstrap | None = None,
                   proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> dict:
    """Return a copy of a report with null bands.

    Args:
        report: From `summary.summarize` or `intervals.add_intervals`.
        records: Match records by IoU type, with all columns.
        positives: The ground truths that count, with all columns.
        plan: The evaluations and groups of the report and of its ``further`` reports.
        num_categories: K.
        bootstrap: Seed, confidence level, and number of random sets.
        proposal_nums: Limits of detections, see `Statistic.limit`.

    Returns:
        The report with ``null_bands``, the settings, and in the row of every bucket, for each statistic with intervals:
        ``AP_null``, ``AP_null_ci``, ``AP_excess`` (AP minus AP_null), ``AP_excess_ci`` if AP has an interval, and
        ``AP_excess_p``, a two-sided p-value. Image buckets also have ``AP_matched_null`` and so on, and ``matched_own``, the
        share of the bucket's own images in its matched sets; instance buckets have ``recall@P80_ci``, ``AP_balanced`` and
        ``AP_balanced_ci``. None below `intervals.MIN_IMAGES` images, and for an instance bucket with only one possible set.
    """
    bootstrap = bootstrap or Bootstrap()
    done = []
    for part, evaluation, grouping, ratios in zip(all_evaluations(report), *plan[:3], strict=True):
        part = {**part, 'null_bands': _describe(evaluation, bootstrap)}
        sets, comparable = None, [True] * len(grouping.columns)
        if evaluation.unit == 'image':
            sets = image_sets(positives, grouping, ratios, num_categories, bootstrap)
        else:
            comparable = have_several_sets(positives, grouping.columns)
        for iou_type, table in records.items():
            if evaluation.unit == 'image':
                nulls = _image_nulls(sets.drawn, table, positives, num_categories, bootstrap, proposal_nums)
            else:
                nulls = {'': instance_nulls(table, positives, grouping, num_categories, bootstrap, proposal_nums)}
                balanced = balanced_rows(table, positives, grouping, num_categories, bootstrap, proposal_nums)
            rows = []
            for number, (row, column) in enumerate(zip(part[iou_type]['buckets'], grouping.columns.tolist(), strict=True)):
                enough = comparable[number] and count_images(grouping.members[:, number].to(positives.image.device), positives,
                                                             column) >= MIN_IMAGES
                extra = {'matched_own': sets.own[number] if enough else None} if sets else balanced[number]
                for kind, values in nulls.items():
                    for place, statistic in enumerate(bootstrap.chosen()):
                        of_sets = values[number][:, place] if enough else None
                        if kind == 'matched_' and enough:
                            of_sets = explain_differences(of_sets, sets.differences[number]).clamp(0, statistic.highest)
                        extra |= _compare(row, statistic.name, kind, of_sets, bootstrap.level)
                rows.append({**row, **extra})
            part[iou_type] = {**part[iou_type], 'buckets': rows}
        done.append(part)
    return {**done[0], **({'further': done[1:]} if 'further' in report else {})}


class ImageSets(NamedTuple):
    """Random image sets for each bucket."""
    #: The sets of each bucket, (N, I) int16 of 0 and 1, by kind.
    drawn: dict[str, list[Tensor]]
    #: Difference of the mean features between matched sets and bucket, in standard deviations over images, (N, F), by bucket.
    differences: list[Tensor]
    #: Share of the bucket's own images in its matched sets, by bucket.
    own: list[float]


@operations_in_one_thread()
def image_sets(positives: Positives, grouping: Grouping, ratios: np.ndarray, num_categories: int,
               bootstrap: Bootstrap) -> ImageSets:
    """Draw random image sets for each bucket from the images with an instance and a ratio."""
    device, num_images = positives.image.device, len(grouping.members)
    members = grouping.members.to(device)
    pool = members.any(1)
    pool[positives.image[positives.counted[:, 0]]] = True
    pool = (pool & torch.from_numpy(~np.isnan(ratios)).to(device)).nonzero()[:, 0]
    features, ridge = matching_features(positives, num_images, num_categories, pool)
    generator = torch.Generator().manual_seed(bootstrap.seed)
    sets = ImageSets({kind: [] for kind in KINDS}, [], [])
    for inside in members[pool].T:
        size = int(inside.sum())
        plain = torch.zeros_like(features[:, 0])
        log_odds = cross_fitted_odds(features, inside, ridge, generator) if size else plain
        chosen = {kind: draw_sets(of, size, bootstrap.null_sets, generator)
                  for kind, of in (('', plain), ('matched_', log_odds))}
        for kind, of_kind in chosen.items():
            drawn = torch.zeros(bootstrap.null_sets, num_images, dtype=torch.int16, device=device)
            drawn[:, pool] = of_kind
            sets.drawn[kind].append(drawn)
        matched = chosen['matched_'].double()
        sets.differences.append((matched - inside.double()) @ features / max(1, size))
        sets.own.append(matched[:, inside].mean().item() if size else 0.)
    return sets


def matching_features(positives: Positives, num_images: int, num_categories: int, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the features that matched sets share with a bucket, and the ridge penalty of each.

    Features are the number of instances, binned and as a logarithm, in total and by size, and the counts of frequent categories.

    Args:
        positives: The ground truths that count.
        num_images: I.
        num_categories: K.
        pool: Indices of the P images that sets are drawn from.

    Returns:
        Features with mean 0 and standard deviation 1, shape (P, F) float64, and ridge penalties, (F,).
    """
    counted = positives.counted[:, :len(AREA_RANGES)].double()
    numbers = torch.zeros(num_images, counted.shape[1], dtype=torch.float64, device=counted.device)
    numbers.index_add_(0, positives.image, counted)
    steps = torch.bucketize(numbers[:, 0].contiguous(), torch.tensor(_COUNTS, dtype=torch.float64, device=counted.device))
    steps = torch.nn.functional.one_hot(steps, len(_COUNTS) + 1).double()
    categories = torch.zeros(num_images, num_categories, dtype=torch.float64, device=counted.device)
    categories.index_put_((positives.image, positives.category), counted[:, 0], accumulate=True)
    frequent = torch.argsort((categories > 0).sum(0), stable=True, descending=True)[:_CATEGORIES]
    numbers = torch.cat([steps, numbers.log1p(), (numbers[:, 1:] > 0).double()], dim=1)
    features = torch.cat([numbers, categories[:, frequent].log1p()], dim=1)[pool]
    ridge = features.new_full((features.shape[1], ), _CATEGORY_RIDGE)
    ridge[:numbers.shape[1]] = _RIDGE
    return (features - features.mean(0)) / features.std(0, correction=0).clamp(min=1e-6), ridge


def cross_fitted_odds(features: Tensor, inside: Tensor, ridge: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image's log-odds of being in a bucket, from logistic regressions on other images.

    A fit that includes the image has seen its bucket, so the bucket's own images would be drawn too often.

    Args:
        features: Shape (P, F) float64, see `matching_features`.
        inside: Images in the bucket, (P,) bool.
        ridge: Ridge penalty of each feature, (F,).
        generator: CPU generator that assigns images to `_FOLDS` stratified folds.

    Returns:
        Shape (P,) float64.
    """
    fold = torch.empty(len(inside), dtype=torch.int64, device=inside.device)
    for side in (inside, ~inside):
        places = side.nonzero()[:, 0]
        fold[places[torch.randperm(len(places), generator=generator).to(places.device)]] = (
            torch.arange(len(places), device=places.device) % _FOLDS)
    inputs = torch.cat([torch.ones_like(features[:, :1]), features], dim=1)
    log_odds, weights = torch.empty_like(inputs[:, 0]), None
    for number in range(_FOLDS):
        held = fold == number
        weights = fit_logistic(inputs[~held], inside[~held], ridge, weights)
        log_odds[held] = inputs[held] @ weights
    return log_odds.clamp(-20, 20)


def fit_logistic(inputs: Tensor, inside: Tensor, ridge: Tensor, start: Tensor | None = None, steps: int = 25) -> Tensor:
    """Fit a logistic regression by Newton's method.

    Args:
        inputs: Shape (P, 1 + F) float64; the first column is the constant, which is not penalized.
        inside: Targets, (P,) bool.
        ridge: Ridge penalties of the other columns, (F,).
        start: Initial weights, such as those of a fit to similar images.
        steps: Maximum number of Newton steps.

    Returns:
        Weights, shape (1 + F,).
    """
    wanted, penalty = inside.double(), torch.cat([torch.full_like(ridge[:1], 1e-9), ridge])
    weights = torch.zeros_like(penalty) if start is None else start.clone()
    if start is None:
        weights[0] = torch.logit(wanted.mean(), eps=1e-6)
    for _ in range(steps):
        chance = torch.sigmoid(inputs @ weights)
        gradient = inputs.T @ (wanted - chance) - penalty * weights
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + torch.diag(penalty)
        step = torch.linalg.solve(curvature, gradient)
        weights += step / max(1., step.abs().max().item() / 3)
        if step.abs().max() < 1e-6:
            break
    return weights


@operations_in_one_thread()
def explain_differences(values: Tensor, differences: Tensor) -> Tensor:
    """Adjust the values of random sets for the differences between their features and those of the bucket.

    Ridge regression of the values on the differences: returns the prediction at zero difference plus the leave-one-out residual
    of each set. The penalty with the smallest residuals is used.

    Args:
        values: A statistic of each set, shape (N,).
        differences: Features of each set minus those of the bucket, (N, F) float64.

    Returns:
        The adjusted values, shape (N,), less those that are NaN.
    """
    differences, values = differences[~values.isnan()], values[~values.isnan()].double()
    if len(values) < 3:
        return values
    left, scale, right = torch.linalg.svd(differences - differences.mean(0), full_matrices=False)
    along = left.T @ (values - values.mean())
    bucket = -(right @ differences.mean(0)) / scale.clamp(min=1e-9)
    best = None
    for ridge in _SET_RIDGES:
        shrunk = scale**2 / (scale**2 + ridge * scale.square().mean() + 1e-18)
        leverage = (left**2 * shrunk).sum(1) + 1 / len(values)
        residuals = (values - values.mean() - left @ (shrunk * along)) / (1 - leverage)
        if best is None or residuals.square().mean() < best[0]:
            best = residuals.square().mean(), values.mean() + (bucket * shrunk * along).sum() + residuals
    return best[1]


def draw_sets(log_odds: Tensor, size: int, num_sets: int, generator: torch.Generator) -> Tensor:
    """Draw sets of a fixed size with unequal odds (Pareto sampling).

    Args:
        log_odds: Log-odds of each image, shape (I,) float64; if all are equal, every set is equally likely.
        size: Images in a set.
        num_sets: N.
        generator: CPU generator.

    Returns:
        Shape (N, I) int16 of 0 and 1.
    """
    drawn = torch.zeros(num_sets, len(log_odds), dtype=torch.int16, device=log_odds.device)
    for row in drawn:
        place = torch.rand(len(log_odds), dtype=torch.float64, generator=generator).to(log_odds.device)
        row[torch.topk(torch.logit(place, eps=1e-15) - log_odds, size, largest=False).indices] = 1
    return drawn


def _image_nulls(sets: Mapping[str, list[Tensor]], records: Records, positives: Positives, num_categories: int,
                 bootstrap: Bootstrap, proposal_nums: Sequence[int]) -> dict[str, list[Tensor]]:
    """Return by kind the statistics of each bucket's sets, (N, S) each, N = 0 below `MIN_IMAGES` images.

    All sets are evaluated together.
    """
    sets = {kind: [one if len(one) and one[0].sum() >= MIN_IMAGES else one[:0] for one in of_kind]
            for kind, of_kind in sets.items()}
    joined = torch.cat([one for of_kind in sets.values() for one in of_kind])
    values = bootstrap_statistics(records, positives, torch.arange(joined.shape[1], device=joined.device), joined, num_categories,
                                  proposal_nums=proposal_nums, precise=False, statistics=bootstrap.chosen())
    parts = iter(values.split([len(one) for of_kind in sets.values() for one in of_kind]))
    return {kind: [next(parts) for _ in of_kind] for kind, of_kind in sets.items()}


def _compare(row: Mapping, name: str, kind: str, values: Tensor | None, level: float) -> dict:
    """Return a statistic's null band, excess and p-value by report key."""
    keys = [f'{name}_{kind}{key}' for key in ('null', 'null_ci', 'excess', 'excess_ci', 'excess_p')]
    values = None if values is None else values[~values.isnan()]
    if values is None or not len(values) or row[name] is None:
        return dict.fromkeys(keys)
    mean, ends = values.mean().item(), torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype, device=values.device)
    above, below = ((values >= row[name] - 1e-6).sum().item(), (values <= row[name] + 1e-6).sum().item())  # including ties
    p_value = min(1., 2 * (1 + min(above, below)) / (1 + len(values)))
    bounds = row.get(f'{name}_ci')
    excess_bounds = [end - mean for end in bounds] if bounds else None
    return dict(zip(keys, (mean, torch.quantile(values, ends).tolist(), row[name] - mean, excess_bounds, p_value), strict=True))


def _describe(evaluation: Evaluation, bootstrap: Bootstrap) -> dict:
    kinds = {'plain': KINDS[''], 'matched': KINDS['matched_']} if evaluation.unit == 'image' else {'plain': INSTANCE_KIND}
    return dict(sets=bootstrap.null_sets, seed=bootstrap.seed, **kinds)
