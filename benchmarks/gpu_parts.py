"""Check and time the evaluation on a GPU: ``gpu_parts.py equality`` and ``gpu_parts.py intervals``, for ``gpu_check.sh``."""

import argparse
import contextlib
import copy
import io
import math

import numpy as np
import torch
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reporting import add_options, apply_options, report
from simulated_detections import SimulatedDetections, make_annotations, simulate
from timing import time_in_turns

from mmtied.cli import user_errors
from mmtied.evaluation import Bootstrap, EvaluationResult, OcclusionMeanAveragePrecision, evaluate
from mmtied.evaluation.buckets import bucket_members, make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import tensor_detections
from mmtied.evaluation.occlusion import image_ratios
from mmtied.evaluation.pipeline import evaluate_detections

STATISTICS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')
#: Largest difference from pycocotools, whose means are summed in another order.
TOLERANCE = 1e-12


def main() -> None:
    """Run one part."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        {'equality': equality, 'intervals': intervals}[args.part](args)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('part', choices=('equality', 'intervals'))
    parser.add_argument('--images', type=int, default=400)
    parser.add_argument('--detections', type=int, default=40_000)
    parser.add_argument('--replicates', type=int, default=1000)
    add_options(parser, repeats=3)
    return parser.parse_args()


def equality(args: argparse.Namespace) -> None:
    """Compare the evaluation on the device with pycocotools on all images and in every bucket, and its intervals with the CPU's.

    Raises:
        ValueError: A number differs.
    """
    data = make_annotations(args.images)
    found = simulate(data, args.detections)
    truth, buckets = read_ground_truth(data), make_buckets()
    members = bucket_members(image_ratios(truth), buckets)
    images = {'all': None, **{row.name: truth.image_ids[members[:, number]].tolist() for number, row in enumerate(buckets)}}
    expected = {iou_type: with_pycocotools(data, found, iou_type, images) for iou_type in ('bbox', 'segm')}

    on_device = evaluate_on(args.device, truth, found)
    check('boxes on the device', on_device, 'bbox', expected)
    entries = by_image(data, found, args.device)
    check('boxes by image', evaluate(data, entries, device=args.device), 'bbox', expected)
    metric = OcclusionMeanAveragePrecision(('bbox', 'segm'))
    for start in range(0, len(entries), 16):
        some = slice(start, start + 16)
        metric.update(with_masks(entries[some], found), targets_by_image(data, args.device, data['images'][some]))
    metric.compute()
    for iou_type in ('bbox', 'segm'):
        check('OcclusionMeanAveragePrecision', metric.result, iou_type, expected)
    bootstrap = Bootstrap(20)
    mine, cpu = (result.with_intervals(bootstrap).report['bbox']['all']
                 for result in (on_device, evaluate_on('cpu', truth, found)))
    given = [key for key, value in cpu.items() if key.endswith('_ci') and value]  # none below `intervals.MIN_IMAGES`
    difference = max((abs(a - b) for key in given for a, b in zip(mine[key], cpu[key], strict=True)), default=0.)
    print(f'intervals, device and CPU: {len(given)} intervals, largest difference {difference:.1e}')
    if not difference <= 1e-4:  # halves are evaluated in single precision
        raise ValueError(f'intervals on {args.device} differ from those on the CPU by {difference:.1e}')


def evaluate_on(device: str, truth: object, found: SimulatedDetections) -> EvaluationResult:
    """Evaluate boxes that are already tensors on the device."""
    columns = (found.image_id, found.category_id, found.score, found.boxes_xywh)
    tensors = [torch.from_numpy(column).to(device) for column in columns]
    return evaluate_detections(truth, {'bbox': tensor_detections(truth, *tensors)})


def with_pycocotools(data: dict, found: SimulatedDetections, iou_type: str, images: dict[str, list[int] | None]) -> dict:
    """Return the statistics of all images and of each bucket; None without ground truth."""
    rows = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(data)  # COCOeval replaces polygons
        truth.createIndex()
        results = truth.loadRes(found.entries(iou_type))
        for name, image_ids in images.items():
            evaluation = COCOeval(truth, results, iou_type)
            if image_ids is not None:
                evaluation.params.imgIds = image_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            rows[name] = [None if value == -1 else value for value in evaluation.stats[:6].tolist()]
    return rows


def check(what: str, result: EvaluationResult, iou_type: str, expected: dict[str, dict]) -> None:
    """Print the largest difference of any statistic; raise a ValueError if it exceeds rounding."""
    table = result.report[iou_type]
    rows = {'all': table['all'], **{row['name']: row for row in table['buckets']}}
    pairs = [(rows[name][key], value) for name, values in expected[iou_type].items()
             for key, value in zip(STATISTICS, values, strict=True)]
    difference = max(0. if mine is theirs is None else math.inf if None in (mine, theirs) else abs(mine - theirs)
                     for mine, theirs in pairs)
    print(f'{what}, {iou_type}: {len(pairs)} numbers, largest difference from pycocotools {difference:.1e}', flush=True)
    if not difference <= TOLERANCE:
        raise ValueError(f'{what}, {iou_type}: differs from pycocotools by {difference:.1e}')


def by_image(data: dict, found: SimulatedDetections, device: str) -> list[dict]:
    """Return the boxes like a detector: float64 tensors on the device, one dict per image."""
    corners = np.concatenate([found.boxes_xywh[:, :2], found.boxes_xywh[:, :2] + found.boxes_xywh[:, 2:]], axis=1)
    columns = dict(boxes=corners, scores=found.score, category_ids=found.category_id)
    return [dict({name: torch.from_numpy(column[found.image_id == image['id']]).to(device) for name, column in columns.items()},
                 image_id=image['id']) for image in data['images']]


def with_masks(entries: list[dict], found: SimulatedDetections) -> list[dict]:
    """Return predictions in torchvision's layout, with boolean masks on the device of the boxes."""
    rles, predictions = found.rles(), []
    for entry in entries:
        masks = mask_api.decode([rles[number] for number in (found.image_id == entry['image_id']).nonzero()[0]])
        predictions.append(dict(boxes=entry['boxes'], scores=entry['scores'], labels=entry['category_ids'],
                                masks=torch.from_numpy(masks.transpose(2, 0, 1).copy()).bool().to(entry['boxes'].device)))
    return predictions


def targets_by_image(data: dict, device: str, images: list[dict]) -> list[dict]:
    """Return the annotations of some images in torchvision's layout."""
    targets = []
    for image in images:
        entries = [entry for entry in data['annotations'] if entry['image_id'] == image['id']]
        size = image['height'], image['width']
        boxes = torch.tensor([entry['bbox'] for entry in entries], dtype=torch.float64)
        masks = mask_api.decode([mask_api.merge(mask_api.frPyObjects(entry['segmentation'], *size)) for entry in entries])
        target = dict(boxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
                      labels=torch.tensor([entry['category_id'] for entry in entries]),
                      area=torch.tensor([entry['area'] for entry in entries], dtype=torch.float64),
                      masks=torch.from_numpy(masks.transpose(2, 0, 1).copy()).bool())
        targets.append(dict({name: column.to(device) for name, column in target.items()}, image_size=size))
    return targets


def intervals(args: argparse.Namespace) -> None:
    """Time evaluation and bootstrap intervals of boxes on the device and on the CPU, in turns."""
    data = make_annotations(args.images)
    found = simulate(data, args.detections, with_masks=False)
    truth, bootstrap = read_ground_truth(data), Bootstrap(args.replicates)
    devices = dict.fromkeys((args.device, 'cpu'))
    results = {device: evaluate_on(device, truth, found) for device in devices}
    calls = {f'evaluation, {device}': lambda device=device: evaluate_on(device, truth, found) for device in devices}
    calls |= {f'intervals, {device}': lambda device=device: results[device].with_intervals(bootstrap) for device in devices}
    times = time_in_turns(calls, args.repeats, device=args.device, warmups=1, least_seconds=0)
    rows = [{'step': step, 'device': device, 'seconds': f'{times.spread(f"{step}, {device}").median:.3f}',
             'times CPU': times.ratio(f'{step}, {device}', to=f'{step}, cpu').text()}
            for step in ('evaluation', 'intervals') for device in devices]
    report(args, f'{args.images} images, {args.detections} boxes, {args.replicates} replicates, medians of {args.repeats} turns.',
           rows)


if __name__ == '__main__':
    main()
