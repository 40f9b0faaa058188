"""Measure whether the p-values of null bands are uniform if occlusion has no effect, and small if it has one.

A simulated detector runs on random parts of an annotation file. The difficulty of an instance depends on its category, its size
and the number of instances in the image. The detector is evaluated in buckets of r, and in buckets of r permuted among images.
For two other detectors, difficulty also grows with r, by a factor of 2 or 4 from r = 0 to 1. The table has the two-sided p-value
of each bucket's excess of AP, for both kinds of bands. A Kolmogorov-Smirnov test compares them with the uniform distribution: its
p-value should not be small for either band if r is permuted, nor for the matched band if difficulty ignores r.

    python benchmarks/null_bands.py ANNOTATIONS --csv docs/benchmarks/null_bands.csv
    python benchmarks/null_bands.py ANNOTATIONS --csv dealt.csv --parts 1 --images 4900 --repeats 7 --cases 'r at random'
"""

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
from scipy.stats import kstest
from simulated_detections import simulate_boxes

from mmtied.atomic import atomic_path
from mmtied.cli import user_errors
from mmtied.evaluation import Bootstrap, Evaluation, evaluate, read_ground_truth
from mmtied.evaluation.inputs.arrays import GroundTruth
from mmtied.evaluation.occlusion import image_ratios
from mmtied.tables import text_table

#: Field of an image with the r of another image.
DEALT = 'dealt_r'
#: Growth of difficulty from r = 0 to 1, and definition of the buckets, for each case.
CASES = {'r at random': (1, f'field:{DEALT}'), 'r ignored': (1, 'covered'), 'worse with r': (2, 'covered'),
         'much worse': (4, 'covered')}
BANDS = {'plain': 'AP_excess_p', 'matched': 'AP_matched_excess_p'}
FIELDS = ('part', 'case', 'bucket', 'images', *BANDS)


def main() -> None:
    """Evaluate each case on each part, write all p-values, and print the result of the test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file')
    parser.add_argument('--csv', type=Path, required=True, help='table to write')
    parser.add_argument('--parts', type=int, default=8, help='disjoint random parts of the images (default: %(default)s)')
    parser.add_argument('--images', type=int, default=600, help='images per part (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=1,
                        help='number of new permutations and simulations (default: %(default)s)')
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES), metavar='CASE',
                        help=f'cases to run: {", ".join(CASES)} (default: all)')
    args = parser.parse_args()
    with user_errors():
        data = json.loads(args.annotations.read_text(encoding='utf-8'))
        if args.parts * args.images > len(data['images']):
            raise ValueError(f'{args.annotations} has {len(data["images"])} images, fewer than {args.parts} x {args.images}')
        order = np.random.default_rng(0).permutation(len(data['images']))
        rows = []
        for part in range(args.parts * args.repeats):
            first = part % args.parts * args.images
            truth = read_ground_truth(deal_ratios(some_images(data, order[first:first + args.images]), part))
            for case in args.cases:
                growth, definition = CASES[case]
                found = simulate_boxes(truth, difficulties(truth, growth), seed=part)
                columns = (truth.image_ids[found.image], truth.category_ids[found.category], found.score, found.boxes_xywh)
                results = [dict(image_id=image_id, category_id=category_id, score=score, bbox=box)
                           for image_id, category_id, score, box in zip(*(column.tolist() for column in columns), strict=True)]
                result = evaluate(truth, results, Evaluation(definition), bootstrap=Bootstrap(2, seed=part))
                rows += [dict(zip(FIELDS, (part, case, bucket['name'], bucket['images'],
                                           *(bucket[key] for key in BANDS.values())), strict=True))
                         for bucket in result.report['bbox']['buckets'] if bucket['AP_excess_p'] is not None]
            print(f'part {part + 1} of {args.parts * args.repeats}', flush=True)
        with atomic_path(args.csv) as path, path.open('w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        print(describe(rows))


def some_images(data: dict, chosen: np.ndarray) -> dict:
    """Return COCO annotations of only some images, given by their index in the file."""
    images = [data['images'][place] for place in chosen]
    ids = {image['id'] for image in images}
    return {**data, 'images': images, 'annotations': [one for one in data['annotations'] if one['image_id'] in ids]}


def deal_ratios(data: dict, seed: int) -> dict:
    """Return annotations with r permuted among their images, in the field `DEALT`."""
    ratios = np.random.default_rng(seed).permutation(image_ratios(read_ground_truth(data))).tolist()
    images = [dict(image, **({} if math.isnan(ratio) else {DEALT: ratio}))
              for image, ratio in zip(data['images'], ratios, strict=True)]
    return {**data, 'images': images}


def difficulties(truth: GroundTruth, growth: float) -> np.ndarray:
    """Return the difficulty of each instance, a factor for the jitter of its boxes, shape (N,)."""
    of_category = np.random.default_rng(1).uniform(.6, 1.6, len(truth.category_ids))
    crowding = np.bincount(truth.image, minlength=len(truth.image_ids))[truth.image]
    sides = np.sqrt(truth.boxes_xywh[:, 2:].prod(1)).clip(8)
    difficulty = of_category[truth.category] * (sides / 64)**-.3 * crowding**.2
    return difficulty * growth**np.nan_to_num(image_ratios(truth))[truth.image]


def describe(rows: list[dict]) -> str:
    """Return a table of the test results by case and band."""
    table = []
    for case in dict.fromkeys(row['case'] for row in rows):
        for band in BANDS:
            values = [row[band] for row in rows if row['case'] == case and row[band] is not None]
            ranked = ranks(values)
            table.append([case, band, len(values), f'{kstest(ranked, "uniform").pvalue:.2g}',
                          f'{np.mean(np.array(values) <= .05):.3f}'])
    return text_table('p-values of AP_excess in all buckets',
                      ['difficulty and buckets', 'band', 'buckets', 'Kolmogorov-Smirnov p', 'share of p <= 0.05'], table)


def ranks(values: list[float], seed: int = 0) -> np.ndarray:
    """Spread permutation p-values evenly over their steps of 2 / 251, so that their distribution is continuous."""
    step = 2 / 251
    return np.array(values) - step * np.random.default_rng(seed).random(len(values))


if __name__ == '__main__':
    main()
