"""Measure time and memory of `mmtied eval` over the number of detections: whole processes, from files to the printed tables.

Simulated detections (seeded) on the first images of an annotation file are repeated with new image ids and scores, 100 per image,
so the number of images grows with that of detections. ``LVIS-like`` has 20 000 generated images of 150 detections each, 1203
categories, and a list of negative categories per image.

Each process has one thread, since CPU seconds vary less than wall time on a busy machine, and idle threads add to them. Peak
memory is the largest resident set, including about 0.5 GB for Python and its packages. `--cpu-minutes` leaves out rows that would
exceed the limit.

    python benchmarks/scale.py instances_val2017.json --csv docs/benchmarks/scale_cpu.csv
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from reporting import add_options, apply_options, report
from simulated_detections import SimulatedDetections, make_annotations, simulate

from mmtied.cli import user_errors

TOOL = Path(__file__).resolve().parents[1] / 'tools' / 'occlusion_eval.py'
#: Numbers of images and detections to simulate and repeat.
VAL_BASE, LVIS_BASE = (500, 50_000), (500, 75_000)
LVIS_CATEGORIES, LVIS_REPEATS = 1203, 40


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file with masks')
    parser.add_argument('--repeats-of-data', type=int, nargs='+', default=[5, 10, 20, 40, 80], metavar='N',
                        help='multiples of 50 000 detections (default: 5 10 20 40 80)')
    parser.add_argument('--iou-types', nargs='+', choices=('bbox', 'segm'), default=['bbox', 'segm'])
    parser.add_argument('--replicates', type=int, nargs='+', default=[0, 1000])
    parser.add_argument('--shrink', type=int, default=1, help='divide the numbers of images and detections, for a smoke test')
    parser.add_argument('--without-lvis', action='store_true')
    parser.add_argument('--cpu-minutes', type=float, default=math.inf, metavar='N',
                        help='leave out rows beyond this total of CPU minutes, which includes generating data')
    add_options(parser, repeats=1)
    args = parser.parse_args()
    with user_errors(), tempfile.TemporaryDirectory() as folder:
        apply_options(args)
        report(args, 'Whole processes of `mmtied eval` with one thread, from JSON files to tables, without and with intervals.',
               rows(args, Path(folder)), ('torch', 'numpy'))


def rows(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Yield the measurements."""
    val = _simulated(json.loads(args.annotations.read_text(encoding='utf-8')), args, VAL_BASE)
    sizes = [('val2017-like', *val, times) for times in args.repeats_of_data]
    if not args.without_lvis:
        sizes.append(('LVIS-like', *_simulated(lvis_like(LVIS_BASE[0] // args.shrink), args, LVIS_BASE), LVIS_REPEATS))
    seconds_of = {}
    for size in sorted(sizes, key=lambda size: size[-1] * len(size[2].score)):
        yield from measure(args, folder, *size, seconds_of)


def measure(args: argparse.Namespace, folder: Path, name: str, data: dict, found: SimulatedDetections, times: int,
            seconds_of: dict[tuple[str, int], float]) -> Iterator[dict[str, object]]:
    """Yield a row for each IoU type and number of replicates.

    Args:
        args: The command line.
        folder: Where files are written.
        name: Of the data.
        data: Annotations to repeat.
        found: Detections to repeat.
        times: How often.
        seconds_of: CPU seconds of a detection by IoU type and replicates, as last measured; changed.
    """
    number = times * len(found.score)
    (folder / 'truth.json').write_text(json.dumps(repeated(data, times)), encoding='utf-8')
    for iou_type in args.iou_types:
        fitting = [replicates for replicates in args.replicates
                   if _cpu_seconds() + number * seconds_of.get((iou_type, replicates), 0) <= 60 * args.cpu_minutes]
        size = write_repeated(found, iou_type, times, data, folder / 'found.json') if fitting else 0
        for replicates in fitting:
            seconds, cpu_seconds, peak = run(folder, replicates)
            seconds_of[iou_type, replicates] = cpu_seconds / number
            row = {'data': name, 'images': times * len(data['images']), 'detections': number, 'IoU type': iou_type,
                   'replicates': replicates, 'file MB': size // 10**6, 'seconds': f'{seconds:.1f}',
                   'CPU seconds': f'{cpu_seconds:.1f}', 'peak GB': f'{peak / 1e9:.2f}'}
            print(row, f'{_cpu_seconds():.0f} CPU seconds so far', file=sys.stderr, flush=True)
            yield row


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and the evaluations."""
    return sum(os.times()[:4])


def run(folder: Path, replicates: int) -> tuple[float, float, int]:
    """Evaluate in a separate process; return seconds, CPU seconds and peak memory in bytes.

    Raises:
        ValueError: The process failed.
    """
    command = [sys.executable, str(TOOL), str(folder / 'truth.json'), str(folder / 'found.json'), '--replicates', str(replicates)]
    start = time.perf_counter()
    with (folder / 'log').open('w+', encoding='utf-8') as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # otherwise Popen would wait for it again
        if process.returncode:
            log.seek(0)
            raise ValueError(f'exit status {process.returncode}: {log.read()[-300:].strip()}')
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def lvis_like(num_images: int, seed: int = 0) -> dict:
    """Generate annotations with LVIS's categories, frequencies and negative categories."""
    data, rng = make_annotations(num_images, seed, LVIS_CATEGORIES), np.random.default_rng(seed)
    for image in data['images']:
        image['neg_category_ids'] = rng.integers(LVIS_CATEGORIES, size=20).tolist()
        image['not_exhaustive_category_ids'] = rng.integers(LVIS_CATEGORIES, size=3).tolist()
    for category in data['categories']:
        category['frequency'] = 'rcf'[category['id'] % 3]
    return data


def repeated(data: dict, times: int) -> dict:
    """Repeat images and annotations with new ids."""
    step_image = 1 + max(image['id'] for image in data['images'])
    step = 1 + max(entry['id'] for entry in data['annotations'])
    images = [dict(image, id=image['id'] + turn * step_image) for turn in range(times) for image in data['images']]
    entries = [dict(entry, id=entry['id'] + turn * step, image_id=entry['image_id'] + turn * step_image)
               for turn in range(times) for entry in data['annotations']]
    return dict(images=images, annotations=entries, categories=data['categories'])


def write_repeated(found: SimulatedDetections, iou_type: str, times: int, data: dict, path: Path) -> int:
    """Write results for `repeated` annotations, with new scores in each copy; return the size of the file in bytes."""
    step, rng = 1 + max(image['id'] for image in data['images']), np.random.default_rng(0)
    same = []
    for entry in found.entries(iou_type):
        shape = {key: value for key, value in entry.items() if key not in ('image_id', 'score')}
        same.append(json.dumps(shape, default=bytes.decode)[1:])
    with path.open('w', encoding='utf-8') as file:
        for turn in range(times):
            scores = np.clip(found.score + rng.normal(0, .01, len(same)), 0, 1).round(5).tolist()
            file.write(',\n' if turn else '[')
            file.write(',\n'.join(f'{{"image_id": {image}, "score": {score}, {rest}' for image, score, rest in zip(
                (found.image_id + turn * step).tolist(), scores, same, strict=True)))
        file.write(']')
    return path.stat().st_size


def _simulated(data: dict, args: argparse.Namespace, base: tuple[int, int]) -> tuple[dict, SimulatedDetections]:
    images, detections = (number // args.shrink for number in base)
    data = dict(data, images=data['images'][:images])
    kept = {image['id'] for image in data['images']}
    data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in kept]
    return data, simulate(data, detections, with_masks='segm' in args.iou_types)


if __name__ == '__main__':
    main()
