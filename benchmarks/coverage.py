"""Measure how often 95 % intervals of AP contain the expected AP of a data set of that size.

Data sets of n images are drawn without replacement from a population of 40 000: eight copies of the annotated images of a file,
each with its own detections. A cell of the table is a detector, a mix of r, and n. Standard errors are multiplied by
sqrt(1 - n / N), where N is the number of images of that mix, since data sets drawn from few images differ less from each other
than those drawn from many (percentiles are not adjusted, and only used for all r). Four detectors run on the same images: `good`,
`mid` and `poor` differ in jitter, and `mid again` is another draw of `mid`. So pairs have a known difference (`good` minus `mid`)
or none (`mid again` minus `mid`, whose interval should exclude 0 in 5 % of cases).

    python benchmarks/coverage.py ANNOTATIONS --csv docs/benchmarks/coverage.csv
    python benchmarks/coverage.py ANNOTATIONS --candidates --csv docs/benchmarks/coverage_candidates.csv

Intervals use `mmtied.evaluation.intervals.standard_error` and Student's t with n - 1 degrees of freedom, close to those of 1000
replicates. A run continues where the CSV file ends. ``--candidates`` compares interval methods on `mid`. One of them is the
bootstrap of hotcoco's comparison, which turns each draw into a set of images and takes percentiles; mmtied's weights compute it,
since hotcoco takes 0.5 s per replicate.
"""

import argparse
import csv
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from simulated_detections import simulate_boxes
from torch import Tensor
from torch.nn.functional import embedding_bag

from mmtied.cli import user_errors
from mmtied.evaluation import weighted_ap
from mmtied.evaluation.accumulate import Positives, Records
from mmtied.evaluation.inputs.ground_truth import GroundTruth, read_ground_truth
from mmtied.evaluation.intervals import MIN_IMAGES, random_parts, standard_error, student_quantile
from mmtied.evaluation.occlusion import image_ratios
from mmtied.evaluation.pipeline import evaluate_detections
from mmtied.evaluation.weighted_ap import UsedDetections, block_ap, make_blocks

if __name__ == 'coverage':  # numba imports the package of that name, and finds this folder if it is on the path
    raise ImportError('benchmarks/coverage.py is a script, not the package coverage')

DETECTORS = {'good': (.35, 1), 'mid': (1., 2), 'mid again': (1., 3), 'poor': (2.2, 4)}  # jitter, seed
PAIRS = (('good', 'mid'), ('mid again', 'mid'))
MIXES = {'all r': (0., 1.), 'r < 0.1': (0., .1), 'r >= 0.5': (.5, 1.)}
SIZES = (50, 100, 200, 400, 1000, 20, 30)
STATISTICS = ('AP', 'AP50', 'AP75')
USED = 'halves and quarters'
TURNS = 8  # copies of each image in the population
FIELDS = ('images', 'mix', 'detector', 'statistic', 'method', 'subsets', 'coverage', 'contains its AP', 'expected', 'deviation',
          'standard error / deviation')


class Population:
    """The match records of one detector on all images of the population, sorted by image."""

    def __init__(self, ground_truth: GroundTruth, jitter: float, seed: int) -> None:
        records, positives, num_images = [], [], len(ground_truth.image_ids)
        for turn in range(TURNS):
            found = evaluate_detections(ground_truth, {'bbox': simulate_boxes(ground_truth, jitter, seed=100 * seed + turn)})
            offset = turn * num_images
            part, truths = found.records['bbox'], found.targets.positives()
            records.append(part._replace(image=part.image + offset, matched=part.matched[:, :1], ignored=part.ignored[:, :1]))
            positives.append(truths._replace(image=truths.image + offset, counted=truths.counted[:, :1]))
        self.num_categories = len(ground_truth.category_ids)
        self.records = Records(*map(torch.cat, zip(*records, strict=True)))
        self.positives = Positives(*map(torch.cat, zip(*positives, strict=True)))
        self.records = self.records.select(torch.argsort(self.records.image, stable=True))
        self.positives = Positives(*(column[torch.argsort(self.positives.image, stable=True)] for column in self.positives))
        images = torch.arange(TURNS * num_images + 1)
        self.starts = [torch.searchsorted(part.image, images) for part in (self.records, self.positives)]

    def statistics(self, images: Tensor, weights: Tensor) -> Tensor:
        """Compute AP, AP50 and AP75 of B data sets of n images, shape (B, n), under weightings (R, B, n): (B, R, 3) float64.

        Each data set gets its own categories, so that one scan covers all.
        """
        num_sets, num_images = images.shape
        flat, num_categories = images.flatten(), num_sets * self.num_categories
        of, row = _ranges(self.starts[0], flat)
        records = self.records.select(of)
        category = records.category + row // num_images * self.num_categories
        order = torch.argsort(records.score, stable=True, descending=True)
        order = order[torch.argsort(category[order], stable=True)]
        table = UsedDetections(row[order], category[order], records.matched[order, 0], records.ignored[order, 0])
        of, truth_row = _ranges(self.starts[1], flat)
        kept = self.positives.counted[of, 0]
        truth_row = truth_row[kept]
        truth_category = self.positives.category[of][kept] + truth_row // num_images * self.num_categories
        order = torch.argsort(truth_category, stable=True)
        starts = torch.searchsorted(truth_category[order], torch.arange(num_categories + 1))

        chunks = [(threshold, blocks) for threshold in range(10)
                  for blocks in make_blocks(table, 1 << threshold, num_categories, len(flat), 128)]
        found = []
        for part in weights.flatten(1).split(64):
            rows = torch.cat([part.T.float(), torch.zeros(1, len(part))])
            totals = embedding_bag(truth_row[order], rows, starts, mode='sum', include_last_offset=True)
            present = (totals > 0).view(num_sets, self.num_categories, -1).sum(1)
            totals.clamp_(min=1e-6)
            result = torch.zeros(10, num_sets, len(part))
            for threshold, blocks in chunks:
                result[threshold].index_add_(0, blocks.category // self.num_categories, block_ap(blocks, rows, totals))
            result = result.double() / present
            found.append(torch.stack([result.mean(0), result[0], result[5]], dim=2))
        return torch.cat(found, dim=1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file')
    parser.add_argument('--csv', type=Path, required=True, help='table to write or continue')
    parser.add_argument('--candidates', action='store_true', help='compare interval methods')
    parser.add_argument('--subsets', type=int, default=400, help='data sets per cell (default: %(default)s)')
    parser.add_argument('--replicates', type=int, default=300, help='replicates behind each interval (default: %(default)s)')
    parser.add_argument('--sizes', type=int, nargs='+', default=SIZES, help=f'images per data set, at least {MIN_IMAGES}')
    parser.add_argument('--mixes', nargs='+', choices=MIXES, default=list(MIXES))
    args = parser.parse_args()
    with user_errors():
        if min(args.sizes) < MIN_IMAGES:
            raise ValueError(f'--sizes {min(args.sizes)}: below {MIN_IMAGES} images there are no intervals')
        torch.set_num_threads(1)
        weighted_ap.ROWS = 8  # categories of small data sets have few true positives
        ground_truth = read_ground_truth(args.annotations)
        ratios = image_ratios(ground_truth)
        done = set()
        if args.csv.exists():
            with args.csv.open(encoding='utf-8', newline='') as file:
                done = {(row['mix'], int(row['images'])) for row in csv.DictReader(file)}
        names = ('mid',) if args.candidates else DETECTORS
        populations = {name: Population(ground_truth, *DETECTORS[name]) for name in names}
        for size, mix in itertools.product(args.sizes, args.mixes):
            if (mix, size) in done:
                continue
            start, (low, high) = time.monotonic(), MIXES[mix]
            units = torch.from_numpy(np.flatnonzero(np.tile((ratios >= low) & (ratios <= high), TURNS)))
            rows = list(measure(populations, units, size, args.subsets, args.replicates, args.candidates))
            new = not args.csv.exists()
            with args.csv.open('a', encoding='utf-8', newline='') as file:
                writer = csv.DictWriter(file, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerows(dict(row, images=size, mix=mix, subsets=args.subsets) for row in rows)
            print(f'{size} images, {mix}: {time.monotonic() - start:.0f} s', flush=True)


def measure(populations: dict[str, Population], units: Tensor, size: int, subsets: int, replicates: int,
            candidates: bool) -> Iterator[dict]:
    """Yield the rows of one cell."""
    generator = torch.Generator().manual_seed(size)
    together = max(1, min(32, 1600 // size))
    found: dict[str, dict[str, list]] = {name: {} for name in populations}
    for begin in range(0, subsets, together):
        images = torch.stack([units[torch.randperm(len(units), generator=generator)[:size]].sort().values
                              for _ in range(min(together, subsets - begin))])
        weights = {'data': torch.ones(1, *images.shape)}
        weights |= dict(_weights(images.shape, replicates, generator, candidates))
        for name, population in populations.items():
            values = population.statistics(images, torch.cat(list(weights.values())))
            for method, part in zip(weights, values.split([len(one) for one in weights.values()], dim=1), strict=True):
                found[name].setdefault(method, []).append(part.numpy())
    values = {name: {method: np.concatenate(parts) for method, parts in of.items()} for name, of in found.items()}
    if not candidates:
        for first, second in PAIRS:
            values[f'{first} - {second}'] = {method: values[first][method] - values[second][method] for method in values[first]}
    for name, of in values.items():
        data = of.pop('data')[:, 0]
        expected = data.mean(0) if name != 'mid again - mid' else np.zeros(3)
        deviation = data.std(0, ddof=1)
        for method, low, high, error in _intervals(data, of, size, len(units)):
            inside = (low <= expected) & (expected <= high)
            for place, statistic in enumerate(STATISTICS):
                ratio = '' if error is None else f'{np.sqrt((error[:, place]**2).mean()) / deviation[place]:.3f}'
                yield {'detector': name, 'statistic': statistic, 'method': method, 'coverage': f'{inside[:, place].mean():.4f}',
                       'contains its AP': f'{((low <= data) & (data <= high))[:, place].mean():.4f}',
                       'expected': f'{expected[place]:.4f}', 'deviation': f'{deviation[place]:.4f}',
                       'standard error / deviation': ratio}


def _weights(shape: tuple[int, int], replicates: int, generator: torch.Generator,
             candidates: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and weightings (R, B, n) of each resampling method."""
    num_sets, size = shape
    splits = [random_parts(size, replicates, int(torch.randint(2**62, (), generator=generator))) for _ in range(num_sets)]
    yield USED, torch.stack(splits, dim=1).float()
    if candidates:
        order = torch.rand(replicates, num_sets, size, generator=generator).argsort(2).argsort(2)
        yield 'random halves', (order < (size + 1) // 2).float()
        yield 'without a fifth', (order < size - size // 5).float()
        drawn = torch.randint(size, (replicates, num_sets, size), generator=generator)
        counts = torch.zeros(replicates, num_sets, size).scatter_add_(2, drawn, torch.ones(drawn.shape))
        yield 'bootstrap', counts
        yield 'set bootstrap', (counts > 0).float()
        gaps = torch.empty(replicates, num_sets, size).exponential_(generator=generator)
        yield 'Bayesian', gaps / gaps.mean(2, keepdim=True)
        parts = min(size, replicates)
        left_out = torch.rand(num_sets, size, generator=generator).argsort(1) % parts
        yield 'jackknife', (left_out != torch.arange(parts)[:, None, None]).float()


def _intervals(data: np.ndarray, values: dict[str, np.ndarray], size: int,
               of: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield method, lower and upper ends and standard errors, (S, 3) each, from values (S, R, 3).

    A data set has `size` of the `of` images of the population.
    """
    reach = student_quantile(.975, size - 1)
    for method, replicates in values.items():
        if method == USED:
            error = np.array([[standard_error(torch.from_numpy(column), size) for column in one.T] for one in replicates])
            error *= math.sqrt(1 - size / of)
            yield method, data - reach * error, data + reach * error, error
            continue
        kept = {'random halves': (size + 1) // 2, 'without a fifth': size - size // 5}.get(method)
        factor = 1. if kept is None else math.sqrt(kept / (size - kept))
        if method == 'jackknife':
            factor = (replicates.shape[1] - 1) / math.sqrt(replicates.shape[1])
        error = math.sqrt(1 - size / of) * factor * replicates.std(1, ddof=1)
        normal = 'bootstrap, normal' if method == 'bootstrap' else method
        if method != 'set bootstrap':
            yield normal, data - reach * error, data + reach * error, error
        if method in ('bootstrap', 'set bootstrap', 'Bayesian'):
            low, high = np.quantile(replicates, [.025, .975], axis=1)
            yield {'bootstrap': 'bootstrap, percentile', 'set bootstrap': 'set percentile (hotcoco)',
                   'Bayesian': 'Bayesian percentile'}[method], low, high, None
        if method == 'bootstrap':
            yield 'bootstrap, basic', 2 * data - high, 2 * data - low, None
            yield 'bootstrap, BCa', *_bca(data, replicates, values['jackknife']), None


def _bca(data: np.ndarray, replicates: np.ndarray, jackknife: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bias-corrected and accelerated intervals (Efron 1987)."""
    def normal(share: np.ndarray) -> np.ndarray:
        return torch.special.ndtri(torch.from_numpy(share)).numpy()

    share = (replicates < data[:, None]).mean(1).clip(.5 / replicates.shape[1], 1 - .5 / replicates.shape[1])
    bias, gaps = normal(share), jackknife.mean(1, keepdims=True) - jackknife
    acceleration = (gaps**3).sum(1) / (6 * (gaps**2).sum(1)**1.5)
    ends = []
    for z in (-1.959964, 1.959964):
        at = torch.special.ndtr(torch.from_numpy(bias + (bias + z) / (1 - acceleration * (bias + z)))).numpy()
        place = (at * (replicates.shape[1] - 1)).round().astype(int)
        ends.append(np.take_along_axis(np.sort(replicates, axis=1), place[:, None], axis=1)[:, 0])
    return ends[0], ends[1]


def _ranges(starts: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Select the rows of some images from a table sorted by image; also return the index of each row's image among them."""
    first = starts[images]
    number = starts[images + 1] - first
    offset = torch.repeat_interleave(first - (number.cumsum(0) - number), number)
    return torch.arange(len(offset)) + offset, torch.repeat_interleave(number)


if __name__ == '__main__':
    main()
