"""Run one evaluation with one tool in a separate process, and write its table, times and peak memory.

``benchmarks/evaluation.py`` starts it. For ``memory`` and ``json``, imports, annotations and (for memory) detections are loaded
before the clock starts and the memory baseline is taken. For ``command``, the process reads everything, like a user's script, and
the parent times the process.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Module of COCO, module of the evaluation class, and its name, for tools with pycocotools' interface.
COCO_LIKE = {
    'pycocotools': ('pycocotools.coco', 'pycocotools.cocoeval', 'COCOeval'),
    'faster-coco-eval': ('faster_coco_eval', 'faster_coco_eval', 'COCOeval_faster'),
    'hotcoco': ('hotcoco', 'hotcoco', 'COCOeval'),
    'ultrafast-pycocotools': ('ultrafast_pycocotools', 'ultrafast_pycocotools', 'COCOeval'),
}
CONTENDERS = ('mmtied', *COCO_LIKE)
STATISTICS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')
#: Evaluates, and returns the statistics of all images (key 'all') and of each bucket.
Evaluate = Callable[[], dict[str, list[float]]]


def main() -> None:
    """Run one contender and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('contender', choices=CONTENDERS)
    parser.add_argument('iou_type', choices=('bbox', 'segm'))
    parser.add_argument('source', choices=('memory', 'json', 'command'))
    parser.add_argument('folder', type=Path,
                        help='folder with annotations.json, buckets.json, detections.npz and <iou_type>.json')
    parser.add_argument('output', type=Path)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    buckets = json.loads((args.folder / 'buckets.json').read_text(encoding='utf-8'))
    prepare = prepare_mmtied if args.contender == 'mmtied' else prepare_coco_like
    with open(os.devnull, 'w', encoding='utf-8') as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        evaluate = prepare(args, buckets)
        baseline = reset_peak()
        start, cpu_start = time.perf_counter(), time.process_time()
        rows = evaluate()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        result = dict(seconds=seconds, cpu_seconds=cpu_seconds, peak_mib=(memory('VmHWM') - baseline) / 1024, rows=rows)
    args.output.write_text(json.dumps(result), encoding='utf-8')


def prepare_mmtied(args: argparse.Namespace, buckets: dict[str, list[int]]) -> Evaluate:
    """Prepare mmtied, which assigns the buckets within the measured time."""
    import torch
    from simulated_detections import SimulatedDetections

    from mmtied.evaluation.inputs.ground_truth import read_ground_truth
    from mmtied.evaluation.inputs.results import make_detections, read_results, tensor_detections
    from mmtied.evaluation.pipeline import evaluate_detections
    truth = read_ground_truth(args.folder / 'annotations.json')
    if args.source == 'memory':
        found = SimulatedDetections.load(args.folder / 'detections.npz')
        tensors = [torch.from_numpy(column).to(args.device)
                   for column in (found.image_id, found.category_id, found.score, found.boxes_xywh)]
        entries = found.entries('segm') if args.iou_type == 'segm' else None
        del found
    if args.device != 'cpu':
        torch.zeros(1, device=args.device)

    def evaluate() -> dict[str, list[float]]:
        if args.source == 'memory' and args.iou_type == 'bbox':
            detections = tensor_detections(truth, *tensors)
        else:
            given = entries if args.source == 'memory' else read_results(args.folder / f'{args.iou_type}.json')
            detections = make_detections(given, truth, args.iou_type)
        report = evaluate_detections(truth, {args.iou_type: detections}, device=args.device).report[args.iou_type]
        rows = {'all': report['all'], **{row['name']: row for row in report['buckets']}}
        return {name: [-1 if row[key] is None else row[key] for key in STATISTICS] for name, row in rows.items()}

    return evaluate


def prepare_coco_like(args: argparse.Namespace, buckets: dict[str, list[int]]) -> Evaluate:
    """Prepare a tool with pycocotools' interface, which receives the images of each bucket."""
    coco_module, evaluation_module, name = COCO_LIKE[args.contender]
    evaluation_class = getattr(importlib.import_module(evaluation_module), name)
    truth = importlib.import_module(coco_module).COCO(str(args.folder / 'annotations.json'))
    results = str(args.folder / f'{args.iou_type}.json')
    if args.source == 'memory':
        from simulated_detections import SimulatedDetections
        found = SimulatedDetections.load(args.folder / 'detections.npz')
        results = found.rows() if args.iou_type == 'bbox' else found.entries('segm')
        del found

    def statistics(detections: object, image_ids: list[int] | None) -> list[float]:
        evaluation = evaluation_class(truth, detections, args.iou_type)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.summarize()
        return [float(value) for value in evaluation.stats[:6]]

    def evaluate() -> dict[str, list[float]]:
        detections = truth.loadRes(results)
        if args.contender != 'hotcoco':
            return {name: statistics(detections, ids) for name, ids in [('all', None), *buckets.items()]}
        evaluation = evaluation_class(truth, detections, args.iou_type)  # hotcoco slices one evaluation by image
        evaluation.evaluate()
        slices = evaluation.slice_by(buckets)
        keys = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
        return {name: [slices['_overall' if name == 'all' else name][key] for key in keys] for name in ('all', *buckets)}

    return evaluate


def memory(field: str) -> float:
    """Return a memory counter of this process in KiB, such as ``VmRSS``; NaN if the system is not Linux."""
    path = Path('/proc/self/status')
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(f'{field}:')), float('nan'))


def reset_peak() -> float:
    """Reset the peak memory to the resident size, and return it in KiB; NaN if the system cannot."""
    try:
        Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
    except OSError:
        return float('nan')
    return memory('VmRSS')


if __name__ == '__main__':
    main()
