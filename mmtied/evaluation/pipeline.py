"""Evaluate detections: read, match, accumulate, summarize."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records, join_records
from .buckets import Evaluation, make_plan
from .comparison import compare_runs
from .inputs import load_detections
from .inputs.ground_truth import GroundTruth, label_category_ids, read_ground_truth
from .inputs.results import Detections, describe_unusual
from .intervals import Bootstrap
from .masks import rle_pairs
from .matching import box_pairs, make_records, rank_detections
from .protocol import PROPOSAL_NUMS, check_iou_types, check_proposal_nums
from .records import SavedRun, name_runs, read_records
from .result import ComparisonResult, EvaluationResult
from .summary import summarize
from .targets import Targets, category_lookup, make_targets


def evaluate(annotations: Any,
             detections: Any,
             evaluations: Evaluation | Sequence[Evaluation] | None = None,
             *,
             iou_types: str | Sequence[str] | None = None,
             classes: Sequence[str] | None = None,
             box_format: str | None = None,
             proposal_nums: Sequence[int] = PROPOSAL_NUMS,
             bootstrap: Bootstrap | bool | None = None,
             device: torch.device | str | None = None,
             name: str | None = None) -> EvaluationResult:
    """Evaluate a detector by occlusion: COCO's AP of all images and of every bucket of the occlusion ratio.

    On any set of images the numbers equal pycocotools'.

    Args:
        annotations: A COCO instances file, a dict of its layout, or a pycocotools ``COCO``.
        detections: A results file (COCO's JSON, or mmdet's ``.pkl``) or a list of such files, a list of COCO results, what
            ``COCO.loadRes`` returned, or a list with a dict for each image: image_id, boxes (xyxy), scores, labels or
            category_ids, and masks; tensors or arrays. Image ids may be file names. See `inputs.load_detections`.
        evaluations: How to sort images or instances into buckets, by default images by `covered` in tenths. Of several, the
            first is the main one of the report.
        iou_types: ``'bbox'``, ``'segm'`` or both; by default what the detections hold.
        classes: Names of the categories to evaluate, all by default. Annotations of the others still occlude.
        box_format: Format of the boxes in `detections`, ``'xywh'`` or ``'xyxy'``; by default xywh in COCO's results, xyxy
            elsewhere.
        proposal_nums: Limits of detections for each image and category; COCO's (1, 10, 100), or mmdet's (100, 300, 1000).
        bootstrap: Add confidence intervals by this bootstrap, or by the default one where True.
        device: Where to match and accumulate, by default the CPU. Tensors on a GPU are copied to the CPU, where detections are
            read; to leave boxes on their GPU, use `inputs.results.tensor_detections` and `evaluate_detections`.
        name: The detector's name on plots and pages, and in comparisons of what is saved; by default that of the first file,
            without ``.bbox`` or ``.segm``.

    Returns:
        The result: `report`, `rows()`, `table()`, `plot()`, `latex()`, `save(folder)`.

    Raises:
        ValueError: Unusable annotations, detections or options; the message is one line and names the entry.

    Warns:
        UserWarning: There are no detections, detections are repeated, corners of boxes are swapped, boxes look as if they
            had the other format, or image ids were looked up by file name.

    Example:
        >>> annotations = {'images': [{'id': 1, 'height': 9, 'width': 9}], 'categories': [{'id': 1, 'name': 'cat'}],
        ...                'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'area': 16}]}
        >>> detections = [{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'score': .9}]
        >>> evaluate(annotations, detections, Evaluation(edges=(0, 1)))
        detector, bbox: AP in % by occlusion ratio r (covered)
        r      images  instances  categories     AP   AP50   AP75   AP_S  AP_M  AP_L  AP_shared
        -----  ------  ---------  ----------  -----  -----  -----  -----  ----  ----  ---------
        all         1          1           1  100.0  100.0  100.0  100.0     -     -      100.0
        r=0         1          1           1  100.0  100.0  100.0  100.0     -     -      100.0
        (0,1]       0          0           0      -      -      -      -     -     -          -
    """
    evaluations = evaluations or Evaluation()
    evaluations = list(evaluations) if isinstance(evaluations, list | tuple) else [evaluations]
    for evaluation in evaluations:
        if not isinstance(evaluation, Evaluation):
            raise ValueError(f"evaluations: an Evaluation or a list of them is needed, such as [Evaluation(unit='instance')]; "
                             f'got {evaluation!r}')
    iou_types = None if iou_types is None else check_iou_types(iou_types)
    bootstrap = _checked_bootstrap(bootstrap)
    ground_truth = read_ground_truth(annotations)
    found = load_detections(detections, ground_truth, iou_types, classes, box_format)
    for iou_type, of_type in found.items():
        for line in describe_unusual(of_type, ground_truth) if len(of_type.score) else ['there are no detections']:
            warnings.warn(f'{iou_type}: {line}', stacklevel=2)
    category_ids = None if classes is None else label_category_ids(ground_truth, classes)
    first = detections[0] if isinstance(detections, list | tuple) and detections else detections
    stem = Path(first).stem if isinstance(first, str | os.PathLike) else 'detector'
    shown_name = name or re.sub(r'(?<=.)\.(bbox|segm)$', '', stem)
    result = evaluate_detections(ground_truth, found, evaluations, proposal_nums, category_ids, device, shown_name)
    if name:
        result.report['name'] = name
    if isinstance(annotations, str | os.PathLike):
        result.report['data'] = Path(annotations).name
    return result.with_intervals(bootstrap) if bootstrap else result


def compare(*runs: EvaluationResult | SavedRun | str | os.PathLike,
            names: Sequence[str] | None = None,
            bootstrap: Bootstrap | bool | None = None,
            iou_types: Sequence[str] | None = None) -> ComparisonResult:
    """Compare runs on the same data with the first of them, by paired bootstrap over images.

    Args:
        runs: Two or more results, folders that a result was saved into, or their ``records.npz``.
        names: A name for each, all different; by default the results' own, those that were given when the runs were saved, or
            those of the folders.
        bootstrap: How to resample.
        iou_types: IoU types to compare, by default those that all runs have.

    Returns:
        The differences: `report`, `rows()`, `table()`, `plot()`, `text()`, `latex()`, `save(folder)`.

    Raises:
        ValueError: Fewer than two runs, runs on other data or with other buckets, or records that cannot be read.
    """
    for run in runs:
        if not isinstance(run, EvaluationResult | SavedRun | str | os.PathLike):
            raise ValueError('compare: results of evaluate, folders they were saved into, or records.npz files are expected, '
                             f'as in compare(first, second); got {type(run).__name__}')
    runs = [read_records(run) if isinstance(run, str | os.PathLike) else run for run in runs]
    saved = [run.saved_run() if isinstance(run, EvaluationResult) else run for run in runs]
    return ComparisonResult(compare_runs(saved, names or _names(runs), _checked_bootstrap(bootstrap), iou_types))


def evaluate_detections(ground_truth: GroundTruth,
                        detections: Mapping[str, Detections],
                        evaluations: Sequence[Evaluation] = (Evaluation(), ),
                        proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                        category_ids: Sequence[int] | None = None,
                        device: torch.device | str | None = None,
                        name: str = 'detector') -> EvaluationResult:
    """Evaluate detections that are arrays or tensors already.

    Args:
        ground_truth: The annotations.
        detections: The detections of each IoU type to evaluate, from `inputs.load_detections`, or from
            `inputs.results.tensor_detections`, which leaves them on their device.
        evaluations: The main one, and extra ones.
        proposal_nums: See `evaluate`.
        category_ids: Categories to evaluate, all by default.
        device: Where to match and accumulate, by default where the detections are.
        name: See `evaluate`.

    Raises:
        ValueError: Unknown IoU type or category, or unusable limits.
    """
    check_iou_types(tuple(detections))
    largest = check_proposal_nums(proposal_nums)[-1]
    categories = ground_truth.select_categories(category_ids)
    plan = make_plan(ground_truth, evaluations)
    columns = [of_type.image for of_type in detections.values()]
    found_on = next((column.device for column in columns if isinstance(column, Tensor)), 'cpu')
    targets = make_targets(ground_truth, categories, plan.outside).to(found_on if device is None else device)
    records = {
        iou_type: join_records([match_detections(of_type, ground_truth, targets, categories, largest)])
        for iou_type, of_type in detections.items()
    }
    report = summarize(plan, records, targets, proposal_nums)
    return EvaluationResult(report, records, targets, plan, ground_truth, categories, tuple(proposal_nums), name, detections)


def match_detections(detections: Detections, ground_truth: GroundTruth, targets: Targets, categories: np.ndarray,
                     limit: int) -> Records:
    """Match all detections of one IoU type, by boxes, or by masks where there are run-length codes.

    Args:
        detections: Detections of one IoU type.
        ground_truth: The annotations.
        targets: Their tensors, on the device that does the work.
        categories: The evaluated categories, as for `make_targets`.
        limit: Detections kept for each image and category.
    """
    device = targets.cells.device
    image, category, score, area = (torch.as_tensor(column).to(device) for column in (
        detections.image, detections.category, detections.score, detections.area))
    place = torch.from_numpy(category_lookup(ground_truth, categories)).to(device)[category]
    evaluated = (place >= 0).nonzero()[:, 0]
    cells = (image * len(categories) + place)[evaluated]
    order, rank = rank_detections(cells, score[evaluated], limit)
    cells, chosen = cells[order], evaluated[order]
    score, area = score[chosen], area[chosen]
    if detections.rles is None:
        boxes = torch.as_tensor(detections.boxes_xywh).to(device)[chosen]
        pairs = box_pairs(cells, boxes, targets.cells, targets.boxes_xywh, targets.crowd)
    else:
        ground_truth.check_masks(targets.annotation)
        pairs = rle_pairs(cells, [detections.rles[number] for number in chosen.tolist()], targets.cells,
                          lambda target: ground_truth.rle(int(targets.annotation[target])), targets.crowd, area=area)
    return make_records(pairs, cells, rank, score, area, targets)


def _checked_bootstrap(bootstrap: Bootstrap | bool | None) -> Bootstrap | None:
    if bootstrap is not None and not isinstance(bootstrap, Bootstrap | bool):
        raise ValueError(f'bootstrap: True, False or a Bootstrap such as Bootstrap(200, seed=1) is needed, got {bootstrap!r}')
    return Bootstrap() if bootstrap is True else bootstrap or None


def _names(runs: Sequence[EvaluationResult | SavedRun]) -> list[str]:
    """Name results as they are and saved runs by `name_runs`, with a number where names agree."""
    others = [run for run in runs if not isinstance(run, EvaluationResult)]
    of_others = iter(name_runs([run.source for run in others], [run.name for run in others]))
    names = [run.name if isinstance(run, EvaluationResult) else next(of_others) for run in runs]
    return [f'{name} {names[:number + 1].count(name)}' if names.count(name) > 1 else name for number, name in enumerate(names)]
