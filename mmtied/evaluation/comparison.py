"""Compare runs on one data set: differences in AP by occlusion, with paired intervals over images and seeds."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from .accumulate import Grouping, whole_set
from .intervals import Bootstrap, degrees_of_freedom, halves_of, point_estimates, replicates, standard_error, student_quantile
from .protocol import IOU_TYPES, STATISTICS, check_iou_types
from .records import SavedGroups, SavedRun
from .summary import count_images, describe_evaluation, named_rows, reported_iou_types, with_buckets

METHOD = 'paired random halves and quarters of the images, Student t'


def compare_runs(runs: Sequence[SavedRun | Sequence[SavedRun]], labels: Sequence[str], bootstrap: Bootstrap | None = None,
                 iou_types: Sequence[str] | None = None) -> dict:
    """Compare each side with the first, on all images and on every bucket of their common evaluations.

    A side is a run, or several runs of one recipe with different seeds, whose mean is compared. The interval then covers the
    choice of images and of seeds; with a single run it does not account for the seed.

    Args:
        runs: At least two sides.
        labels: A distinct name for each side.
        bootstrap: Settings of the resampling.
        iou_types: IoU types to compare, by default those that all runs have.

    Returns:
        ``{'runs', 'seeds', 'intervals', 'evaluations': [{'definition', 'unit', 'cumulative', '<iou type>': {'all': {...},
        'buckets': [{'name', 'lower', 'upper', ...}]}}]}``. ``seeds`` is the number of runs on each side. ``...`` is images and,
        for each statistic of `bootstrap` (by default AP, AP50, AP75), ``values`` of all sides, their ``value_intervals``, and
        ``differences`` of every side but the first: difference, low, high, share_above_zero and share_below_zero (of the
        halves; ties count half each). Values are None without ground truth, intervals below `intervals.MIN_IMAGES` images.

    Raises:
        ValueError: Fewer than two sides, or runs that cannot be compared.

    Warns:
        UserWarning: An IoU type is skipped because only some runs have it, or two sides contain the same results.
    """
    bootstrap = bootstrap or Bootstrap()
    sides = [[side] if isinstance(side, SavedRun) else list(side) for side in runs]
    if len(set(labels)) != len(sides):
        raise ValueError(f'names: expected {len(sides)} distinct names, one per run, got {", ".join(labels)}')
    if len(sides) < 2 or not all(sides):
        raise ValueError(f'compare: expected at least two runs, got {sum(map(bool, sides))}')
    for label, side in zip(labels, sides, strict=True):
        _check_seeds(label, side)
    runs = [run for side in sides for run in side]
    names = [label if len(side) == 1 else f'{label} ({number + 1})' for label, side in zip(labels, sides, strict=True)
             for number in range(len(side))]
    chosen, iou_types = iou_types, check_comparable(runs, iou_types, names)
    for iou_type in IOU_TYPES if chosen is None else ():
        having = [label for label, run in zip(names, runs, strict=True) if iou_type in run.records]
        if having and iou_type not in iou_types:
            warnings.warn(f'{iou_type} is not compared: only {", ".join(having)} has it', stacklevel=3)
    for (label, side), (other, others) in combinations(zip(labels, sides, strict=True), 2):
        found = {iou_type for pair in product(side, others) for iou_type in _same_results(*pair)}
        same = [iou_type for iou_type in iou_types if iou_type in found]
        if same:
            which = 'results' if same == iou_types else f'{" and ".join(same)} results'
            if len(side) == len(others) == 1:
                line = f'{label} and {other} have the same {which}, so their differences are 0'
            else:
                line = f'a run of {label} and a run of {other} have the same {which}, so the sides differ too little'
            warnings.warn(line, stacklevel=3)
    groups = [part for part in runs[0].evaluations if all(_find(run, part) is not None for run in runs)]
    evaluations = [{key: value for key, value in part.description.items() if key != 'buckets'} for part in groups]
    for iou_type in iou_types:
        everything = _rows(sides, iou_type, lambda run: whole_set(len(run.image_ids)), bootstrap)
        for entry, part in zip(evaluations, groups, strict=True):
            rows = _rows(sides, iou_type, lambda run, part=part: _find(run, part), bootstrap)
            buckets = [{**bucket, **row} for bucket, row in zip(part.description['buckets'], rows, strict=True)]
            entry[iou_type] = {'all': everything[0], 'buckets': buckets}
    return {'runs': list(labels), 'seeds': [len(side) for side in sides], 'intervals': bootstrap.describe(METHOD),
            'evaluations': evaluations}


def comparison_rows(comparison: Mapping) -> Iterator[dict]:
    """Flatten a comparison: yield one row per set of images, statistic and run except the first."""
    baseline, *others = comparison['runs']
    for evaluation in comparison['evaluations']:
        common = {key: evaluation[key] for key in ('definition', 'unit', 'cumulative')}
        for iou_type in reported_iou_types(evaluation):
            for name, row in named_rows(evaluation, iou_type):
                place = {'name': name, **{key: row.get(key) for key in ('lower', 'upper', 'images')}}
                for statistic in (name for name, value in row.items() if isinstance(value, dict)):
                    first, *values = row[statistic]['values']
                    for run, value, difference in zip(others, values, row[statistic]['differences'], strict=True):
                        yield {**common, 'iou_type': iou_type, **place, 'statistic': statistic, 'baseline': baseline,
                               'run': run, 'baseline_value': first, 'value': value, **difference}


def without_empty_differences(comparison: Mapping) -> dict:
    """Return a comparison without the buckets where no run has a value, except in evaluations where all are empty."""
    def has_value(bucket: Mapping) -> bool:
        return any(value is not None for row in bucket.values() if isinstance(row, dict) for value in row['values'])

    return {**comparison, 'evaluations': [with_buckets(entry, has_value) for entry in comparison['evaluations']]}


def compared_statistics(comparison: Mapping) -> list[str]:
    """Return the names of the compared statistics."""
    entry = comparison['evaluations'][0]
    return [name for name, value in entry[reported_iou_types(entry)[0]]['all'].items() if isinstance(value, dict)]


def check_comparable(runs: Sequence[SavedRun], iou_types: Sequence[str] | None, labels: Sequence[str]) -> list[str]:
    """Return the IoU types to compare, in their usual order; raise a ValueError if the runs cannot be compared."""
    iou_types = None if iou_types is None else check_iou_types(iou_types)
    first = runs[0]
    for label, run in zip(labels[1:], runs[1:], strict=True):
        one, other = (first.source, run.source) if first.source != run.source else (labels[0], label)
        pair = f'{one} and {other} cannot be compared'
        if len(first.image_ids) != len(run.image_ids) or (first.image_ids != run.image_ids).any():
            raise ValueError(f'{pair}: they cover different images ({len(first.image_ids)} and {len(run.image_ids)})')
        if first.category_names != run.category_names:
            raise ValueError(f'{pair}: they cover different categories '
                             f'({len(first.category_names)} and {len(run.category_names)})')
        if first.fingerprint != run.fingerprint:
            raise ValueError(f'{pair}: the image ids are equal, but not the sizes or annotations; if these should be equal too, '
                             'evaluate both again, as an earlier version may have read them differently')
        if first.mask_fingerprint and run.mask_fingerprint and first.mask_fingerprint != run.mask_fingerprint:
            raise ValueError(f'{pair}: the annotations have equal boxes but different masks')
        if first.proposal_nums != run.proposal_nums:
            raise ValueError(f'{pair}: proposal_nums is {first.proposal_nums} in one and {run.proposal_nums} in the other')
        for part in first.evaluations:
            if _find(run, part) is not None and not _same_members(first, part, run, _find(run, part)):
                raise ValueError(f'{pair}: their buckets of {describe_evaluation(part.description)} have different members')
    if not any(all(_find(run, part) is not None for run in runs) for part in first.evaluations):
        found = '; '.join(f'{label} has {" and ".join(map(_describe_buckets, run.evaluations))}'
                          for label, run in zip(labels, runs, strict=True))
        raise ValueError(f'the runs have no buckets in common: {found}')
    for label, run in zip(labels, runs, strict=True):
        missing = [name for name in iou_types or () if name not in run.records]
        if missing:
            raise ValueError(f'{label} has no {missing[0]}; it has {", ".join(run.records)}')
    common = [name for name in IOU_TYPES if all(name in run.records for run in runs) and name in (iou_types or IOU_TYPES)]
    if not common:
        raise ValueError('the runs have no IoU type in common: ' + '; '.join(', '.join(run.records) for run in runs))
    return common


def _check_seeds(label: str, side: Sequence[SavedRun]) -> None:
    """Raise a ValueError if a side repeats a run, which would make the seed seem irrelevant."""
    for other, run in combinations(side, 2):
        if _same_results(run, other):
            raise ValueError(f'{label}: {other.source} and {run.source} have the same results; list each run of a side once, '
                             'with its own seed')


def _same_results(run: SavedRun, other: SavedRun) -> list[str]:
    """Return the IoU types whose detections and matches are equal in two runs."""
    return [name for name, table in run.records.items() if name in other.records and len(table.score)
            and all(torch.equal(getattr(table, column).cpu(), getattr(other.records[name], column).cpu())
                    for column in ('image', 'category', 'score', 'matched'))]


def _describe_buckets(groups: SavedGroups) -> str:
    ends = [bucket[end] for bucket in groups.description['buckets'] for end in ('lower', 'upper')]
    edges = ' '.join(f'{edge:g}' for edge in sorted({end for end in ends if end is not None}))
    return f'{describe_evaluation(groups.description)} (edges {edges})'


def _find(run: SavedRun, groups: SavedGroups) -> SavedGroups | None:
    """Return the run's evaluation with the same buckets, None if it has none."""
    return next((part for part in run.evaluations if part.description == groups.description), None)


def _same_members(run: SavedRun, groups: SavedGroups, other: SavedRun, others: SavedGroups) -> bool:
    """Return whether two runs' groups have the same images and counted ground truths."""
    mine, theirs = ((*one.positives[:2], one.positives.counted[:, part.columns], part.members)
                    for one, part in ((run, groups), (other, others)))
    return all(torch.equal(left, right) for left, right in zip(mine, theirs, strict=True))


def _rows(sides: Sequence[Sequence[SavedRun]], iou_type: str, grouping: Callable[[SavedRun], Grouping | SavedGroups],
          bootstrap: Bootstrap) -> list[dict]:
    """Return the images of each group, and its values and differences by statistic."""
    rows = []
    for groups in zip(*(estimate_groups(side, iou_type, grouping, bootstrap) for side in sides), strict=True):
        row = {'images': next(iter(groups[0].values())).num_images}
        for name in groups[0]:
            found = [estimates[name] for estimates in groups]
            row[name] = {'values': [_plain(estimate.value) for estimate in found],
                         'value_intervals': [estimate.interval(bootstrap.level, STATISTICS[name].highest)
                                             for estimate in found],
                         'differences': [describe_difference(estimate, found[0], bootstrap) for estimate in found[1:]]}
        rows.append(row)
    return rows


def estimate_groups(side: Sequence[SavedRun], iou_type: str, grouping: Callable[[SavedRun], Grouping | SavedGroups],
                    bootstrap: Bootstrap) -> list[dict[str, 'Estimate']]:
    """Estimate the statistics of each group, by name, from runs of one recipe.

    `grouping` returns a run's groups: the same images in every run, and the run's own columns.
    """
    def of_runs(compute: Callable) -> Tensor:
        return torch.stack([compute(run.records[iou_type], run.positives, grouping(run), len(run.category_names), bootstrap,
                                    run.proposal_nums) for run in side])

    values, parts = of_runs(point_estimates), of_runs(replicates)  # (runs, B, S) and (runs, R, B, S)
    groups = grouping(side[0])
    return [{statistic.name: Estimate(values[:, number, place], parts[:, :, number, place],
                                      count_images(members, side[0].positives, column))
             for place, statistic in enumerate(bootstrap.chosen())}
            for number, (members, column) in enumerate(zip(groups.members.T, groups.columns.tolist(), strict=True))]


@dataclass(frozen=True)
class Estimate:
    """A statistic of a training recipe: the mean over K runs with different seeds on the same n images."""

    values: Tensor  # on all images, by run, (K,) float64
    parts: Tensor  # on the same parts of the images, by run, in the order of `intervals.random_parts`, (K, R) float64
    num_images: int  # n

    @property
    def value(self) -> Tensor:
        """The mean over runs, a scalar."""
        return self.values.mean()

    @property
    def seed_variances(self) -> list[tuple[float, int]]:
        """Variance of the mean over runs and its degrees of freedom; empty for a single run."""
        number = len(self.values)
        return [(self.values.var().item() / number, number - 1)] if number > 1 else []

    def interval(self, level: float, highest: float = 1.) -> list[float] | None:
        """Return the interval over images and seeds, clipped to 0 and the highest value; None for too few images."""
        reach = _reach(self.parts.mean(0), self.num_images, self.seed_variances, level)
        return None if reach is None else [max(0., self.value.item() - reach), min(highest, self.value.item() + reach)]

    def resampled_seeds(self, generator: torch.Generator) -> Tensor:
        """Bootstrap the runs: for each half, the deviation of the mean over K redrawn runs from the mean over all, (R,).

        Deviations are scaled by sqrt(K / (K - 1)), as resampled means vary too little otherwise.
        """
        halves = halves_of(self.parts)
        number, num_halves = halves.shape
        mean = halves.mean(0)
        if number == 1:
            return torch.zeros_like(mean)
        drawn = torch.randint(number, (number, num_halves), generator=generator).to(mean.device)
        return math.sqrt(number / (number - 1)) * (halves.gather(0, drawn).mean(0) - mean)


def describe_difference(estimate: Estimate, baseline: Estimate, bootstrap: Bootstrap) -> dict:
    """Describe the paired difference of two estimates on the same images, see `compare_runs`.

    Shares are over halves of the images, each with a draw of the seeds, shifted and scaled to the difference and its standard
    error; a tie counts half above and half below.
    """
    difference = estimate.value - baseline.value
    parts = estimate.parts.mean(0) - baseline.parts.mean(0)
    num_images = estimate.num_images
    reach = None if bool(difference.isnan()) else _reach(parts, num_images, estimate.seed_variances + baseline.seed_variances,
                                                         bootstrap.level)
    if reach is None:
        return dict(difference=_plain(difference), low=None, high=None, share_above_zero=None, share_below_zero=None)
    generator = torch.Generator().manual_seed(bootstrap.seed)
    deviations = halves_of(parts)
    deviations = deviations - deviations.nanmean()
    spread = math.sqrt(deviations.square().nanmean().item())
    moved = deviations * (standard_error(parts, num_images) / spread if spread else 1.)
    moved = moved + estimate.resampled_seeds(generator) - baseline.resampled_seeds(generator)
    moved = difference + moved[~moved.isnan()]
    tied = (moved == 0).double().mean().item() / 2
    return dict(difference=_plain(difference), low=difference.item() - reach, high=difference.item() + reach,
                share_above_zero=(moved > 0).double().mean().item() + tied,
                share_below_zero=(moved < 0).double().mean().item() + tied)


def _reach(parts: Tensor, num_images: int, seed_variances: Sequence[tuple[float, int]], level: float) -> float | None:
    """Return half the width of an interval over images and seeds, with Welch-Satterthwaite degrees of freedom."""
    error = standard_error(parts, num_images)
    if error is None:
        return None
    variances = [(error**2, degrees_of_freedom(num_images, len(parts))), *seed_variances]
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return 0.
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    return student_quantile((1 + level) / 2, freedom) * math.sqrt(total)


def _plain(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else value.item()
