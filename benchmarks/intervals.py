"""Bootstrap intervals of every bucket and the whole set: seconds for AP, AP50 and AP75, and memory.

Simulated detections (seeded) on real annotations are matched once; what is timed is resampling and computing AP from the match
records. A plain loop that calls COCOeval once for each replicate and bucket is what the last column extrapolates, from the time
of one COCOeval run on the same detections.

    python benchmarks/intervals.py ANNOTATIONS --docs docs/benchmarks.md
"""

import argparse
import contextlib
import io
import json
import resource
import statistics
import time
from pathlib import Path

import torch
from machine import describe_machine
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from report_section import check_page, markdown_table, write_section
from simulated_detections import SimulatedDetections, simulate

from mmtied.cli import user_errors
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.intervals import Bootstrap
from mmtied.evaluation.pipeline import evaluate_detections

_HEADER = ['evaluation', 'seconds', 'CPU seconds', 'peak MiB more', 'a loop over COCOeval (extrapolated)']


def main() -> None:
    """Time, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file with masks')
    parser.add_argument('--iou-types', nargs='+', choices=('bbox', 'segm'), default=['bbox', 'segm'])
    parser.add_argument('--detections', type=int, default=500_000)
    parser.add_argument('--replicates', type=int, default=1000)
    parser.add_argument('--repeat', type=int, default=2, help='runs of each, of which the median is shown')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--docs', type=Path, help='page to write the section into')
    parser.add_argument('--note', default='', help='a sentence about the conditions')
    args = parser.parse_args()
    with user_errors():
        if args.docs:
            check_page(args.docs)
        bootstrap = Bootstrap(args.replicates)
        ground_truth = read_ground_truth(args.annotations)
        detections = simulate(json.loads(args.annotations.read_text()), args.detections, with_masks='segm' in args.iou_types)
        rows = [measure(args, ground_truth, detections, iou_type, bootstrap) for iou_type in args.iou_types]
        text = (f'{args.replicates} replicates for eleven buckets and the whole set, {args.detections} simulated detections on '
                f'{len(ground_truth.image_ids)} images; medians of {args.repeat} runs, lowest to highest in brackets.')
        text = '\n\n'.join([text, markdown_table(_HEADER, rows), describe_machine(('torch', 'numpy', 'pycocotools'), args.device)
                            + (f' {args.note}' if args.note else '')])
        print(text)
        if args.docs:
            heading = '## Intervals' + ('' if args.device == 'cpu' else ' on a GPU')
            write_section(args.docs, f'intervals {args.device}', f'{heading}\n\n{text}')


def measure(args: argparse.Namespace, ground_truth: object, detections: SimulatedDetections, iou_type: str,
            bootstrap: Bootstrap) -> list[str]:
    """One row of the table."""
    entries = detections.entries(iou_type)
    found = make_detections(entries, ground_truth, iou_type)
    evaluated = evaluate_detections(ground_truth, {iou_type: found}, device=args.device)
    before, seconds, cpu_seconds = peak_mib(), [], []
    for _ in range(args.repeat):
        start, cpu_start = time.perf_counter(), time.process_time()
        evaluated.with_intervals(bootstrap)
        if args.device != 'cpu':
            torch.cuda.synchronize(args.device)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    more = peak_mib() - before
    loop = time_cocoeval(args.annotations, entries, iou_type)
    days = loop * args.replicates * 2 / 86400  # the whole set, and the buckets, which together are as large again
    return [iou_type, spread(seconds), spread(cpu_seconds), f'{more:.0f}', f'{days:.1f} days']


def time_cocoeval(annotations: Path, entries: list[dict], iou_type: str, share: int = 20) -> float:
    """Seconds of one COCOeval run, from every `share`-th image."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        image_ids = sorted(truth.getImgIds())[::share]
        chosen = set(image_ids)
        results = truth.loadRes([dict(entry) for entry in entries if entry['image_id'] in chosen])
        start = time.perf_counter()
        evaluation = COCOeval(truth, results, iou_type)
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
    return (time.perf_counter() - start) * share


def spread(values: list[float]) -> str:
    """Median and range."""
    return f'{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]'


def peak_mib() -> float:
    """The most memory that the process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    main()
