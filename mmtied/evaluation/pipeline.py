"""Evaluate detections: read, match, accumulate and summarize."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records, join_records
from .buckets import Evaluation, EvaluationPlan, bucket_members, make_plan
from .comparison import compare_runs
from .doubts import describe_doubts
from .inputs import load_detections
from .inputs.arrays import GroundTruth
from .inputs.categories import label_category_ids, merge_names
from .inputs.faults import one_line
from .inputs.ground_truth import read_ground_truth
from .inputs.plausibility import describe_unusual
from .inputs.results import Detections
from .intervals import Bootstrap
from .masks import rle_pairs
from .matching import LVIS_DETECTIONS, FederatedRules, Pairs, box_pairs, match_ranked
from .parallel import operations_in_one_thread
from .protocol import PROPOSAL_NUMS, check_iou_types, check_proposal_nums
from .records import SavedRun, name_runs, read_records
from .result import ComparisonResult, EvaluationResult, make_result
from .stated import field_of
from .targets import Targets, category_lookup, make_targets


def evaluate(annotations: Any, detections: Any, evaluations: Evaluation | Sequence[Evaluation] | None = None, *,
             iou_types: str | Sequence[str] | None = None, classes: Sequence[str] | None = None, box_format: str | None = None,
             proposal_nums: Sequence[int] = PROPOSAL_NUMS, bootstrap: Bootstrap | bool | None = None,
             device: torch.device | str | None = None, name: str | None = None, label_names: Sequence[str] | None = None,
             category_offset: int = 0, use_cats: bool = True, only_images_with_results: bool = False,
             skip_invalid: bool = False) -> EvaluationResult:
    r"""Evaluate a detector by occlusion: COCO's AP of all images and of every bucket of the occlusion ratio.

    On any set of images, the scores equal pycocotools'.

    Args:
        annotations: A file or folder in any format of docs/formats.md, a dict in COCO format, a pycocotools ``COCO``, or the
            result of `read_ground_truth`, which has options for ignore regions.
        detections: A results file or a list of files, a list of COCO results, the result of ``COCO.loadRes``, a list with one
            dict per image (image_id, boxes as xyxy, scores, labels or category_ids, and masks; tensors or arrays), or a dict from
            image ids to such dicts. Image ids may be file names. See `inputs.load_detections`.
        evaluations: Definitions and buckets, by default images by `covered` in tenths. The first of several is the report's main
            evaluation.
        iou_types: ``'bbox'``, ``'segm'`` or both; by default those of the detections.
        classes: Names of the categories to evaluate, all by default. Annotations of other categories still occlude; their
            detections are dropped.
        box_format: Format of the boxes in `detections`: xywh, xyxy or cxcywh, with a final n if normalized by the image size; by
            default xywh in COCO results, otherwise xyxy.
        proposal_nums: Limits of detections per image and category: COCO's (1, 10, 100), or mmdet's (100, 300, 1000).
        bootstrap: Add confidence intervals with these settings; True for the default ones.
        device: Device for matching and accumulation, by default the CPU. GPU tensors are copied to the CPU, where detections are
            read; to keep boxes on their GPU, use `inputs.results.tensor_detections` and `evaluate_detections`.
        name: The detector's name on plots and pages, and in comparisons of saved runs; by default the name of the first file
            without ``.bbox`` or ``.segm``.
        label_names: Names of the model's labels, if its classes differ from the annotations'.
        category_offset: Added to category ids in `detections`, or to labels.
        use_cats: False for class-agnostic AP, as with COCOeval's ``useCats = 0``.
        only_images_with_results: Evaluate only images with detections.
        skip_invalid: Skip and count invalid annotations and detections.

    Returns:
        The result: `report`, `rows()`, `table()`, `plot()`, `latex()`, `save(folder)`.

    Raises:
        ValueError: Invalid annotations, detections or options; the one-line message names the entry.

    Warns:
        UserWarning: Probable mistakes, one line each: no detections, repeated detections or annotations, boxes that seem to have
            another format, results for only part of the images, mismatched categories, and others. The report lists them under
            ``notes``.

    Example:
        >>> annotations = {'images': [{'id': 1, 'height': 9, 'width': 9}], 'categories': [{'id': 1, 'name': 'cat'}],
        ...                'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'area': 16}]}
        >>> detections = [{'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 4, 4], 'score': .9}]
        >>> print(str(evaluate(annotations, detections, Evaluation(edges=(0, 1)))).partition('\n\n')[0])
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
            raise ValueError(f"evaluations: expected an Evaluation or a list such as [Evaluation(unit='instance')], "
                             f'got {evaluation!r}')
    if not isinstance(category_offset, int):
        raise ValueError(f'category_offset: expected an integer, got {category_offset!r}')
    classes = [classes] if isinstance(classes, str) else classes
    iou_types = None if iou_types is None else check_iou_types(iou_types)
    bootstrap = _checked_bootstrap(bootstrap)
    ground_truth = read_ground_truth(annotations, skip_invalid=skip_invalid)
    if classes or label_names:
        ground_truth = merge_names(ground_truth)
    notes: list[str] = []
    found = load_detections(detections, ground_truth, iou_types, classes, box_format, skip_invalid=skip_invalid,
                            label_names=label_names, category_offset=category_offset,
                            any_category=not use_cats and classes is None, notes=notes)
    doubts, limit = [], check_proposal_nums(proposal_nums)[-1]
    for iou_type, of_type in found.items():
        lines = describe_unusual(of_type, ground_truth, limit) if len(of_type.score) else ['there are no detections']
        doubts += [f'{iou_type}: {line}' for line in lines]
    ground_truth, found, lines = _with_results(ground_truth, found, only_images_with_results)
    doubts += lines
    if skip_invalid and 'segm' in found:
        ground_truth = ground_truth.with_masks()
    category_ids = None if classes is None else label_category_ids(ground_truth, classes)
    first = detections[0] if isinstance(detections, list | tuple) and detections else detections
    stem = Path(first).stem if isinstance(first, str | os.PathLike) else 'detector'
    shown_name = name or re.sub(r'(?<=.)\.(bbox|segm)$', '', stem)
    result = evaluate_detections(ground_truth, found, evaluations, proposal_nums, category_ids, device, shown_name, use_cats)
    doubts += describe_doubts(result)
    for line in dict.fromkeys(doubts):
        warnings.warn(line, stacklevel=2)
    result.report['notes'] = list(dict.fromkeys((*result.report.get('notes', ()), *notes, *doubts)))
    if name:
        result.report['name'] = name
    if isinstance(annotations, str | os.PathLike):
        result.report['data'] = Path(annotations).name
    return result.with_intervals(bootstrap) if bootstrap else result


def compare(*runs: EvaluationResult | SavedRun | str | os.PathLike | Sequence, names: Sequence[str] | None = None,
            bootstrap: Bootstrap | bool | None = None, iou_types: Sequence[str] | None = None) -> ComparisonResult:
    """Compare runs on the same data with the first one, with paired intervals over images and, for lists of runs, seeds.

    Args:
        runs: Two or more results, folders of saved results, or ``records.npz`` files; or lists of runs that differ in their seed,
            whose means are compared.
        names: A distinct name for each; by default the names of the results, of the saved runs, or of their folders.
        bootstrap: Settings of the resampling.
        iou_types: IoU types to compare, by default those that all runs have.

    Returns:
        The differences: `report`, `rows()`, `table()`, `plot()`, `text()`, `latex()`, `save(folder)`.

    Raises:
        ValueError: Fewer than two runs, runs with different data or buckets, or unreadable records.
    """
    sides = [list(side) if isinstance(side, list | tuple) and len(runs) > 1 else [side] for side in runs]
    if not all(sides):
        raise ValueError('compare: got an empty list of runs; each list needs at least one')
    for run in (run for side in sides for run in side):
        if not isinstance(run, EvaluationResult | SavedRun | str | os.PathLike):
            raise ValueError('compare: expected results of evaluate, folders of saved results, or records.npz files, as in '
                             f'compare(first, second), got {type(run).__name__}')
    sides = [[read_records(run) if isinstance(run, str | os.PathLike) else run for run in side] for side in sides]
    saved = [[run.saved_run() if isinstance(run, EvaluationResult) else run for run in side] for side in sides]
    names = names or [name if len(side) == 1 else f'mean of {name} and {len(side) - 1} more'
                      for name, side in zip(_names([side[0] for side in sides]), sides, strict=True)]
    return ComparisonResult(compare_runs(saved, names, _checked_bootstrap(bootstrap), iou_types))


@operations_in_one_thread()
def evaluate_detections(ground_truth: GroundTruth, detections: Mapping[str, Detections],
                        evaluations: Sequence[Evaluation] = (Evaluation(), ), proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                        category_ids: Sequence[int] | None = None, device: torch.device | str | None = None,
                        name: str = 'detector', use_cats: bool = True) -> EvaluationResult:
    """Evaluate detections that are already arrays or tensors.

    Args:
        ground_truth: The annotations.
        detections: The detections of each IoU type to evaluate, from `inputs.load_detections`, or from
            `inputs.results.tensor_detections`, which leaves them on their device.
        evaluations: The main evaluation, then extra ones.
        proposal_nums: See `evaluate`.
        category_ids: Categories to evaluate, all by default.
        device: Device for matching and accumulation, by default that of the detections.
        name: See `evaluate`.
        use_cats: See `evaluate`.

    Raises:
        ValueError: Unknown IoU type or category, or invalid limits.
    """
    check_iou_types(tuple(detections))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown or missing device
        raise ValueError(f'device={device!r}: {one_line(error)}') from None
    proposal_nums = (LVIS_DETECTIONS, ) if ground_truth.federated else proposal_nums
    largest = check_proposal_nums(proposal_nums)[-1]
    categories = ground_truth.select_categories(category_ids)
    plan = make_plan(ground_truth, evaluations)
    notes = [*ground_truth.notes, *_describe_unsorted(plan)]
    if not use_cats:
        notes.append('categories are ignored (use_cats=False): a detection may match an object of any category')
        detections = {iou_type: _without_categories(of_type, categories) for iou_type, of_type in detections.items()}
        ground_truth, plan = without_categories(ground_truth, categories, plan)
        categories = np.arange(1)
    columns = [of_type.image for of_type in detections.values()]
    found_on = next((column.device for column in columns if isinstance(column, Tensor)), 'cpu')
    targets = make_targets(ground_truth, categories, plan.outside).to(found_on if device is None else device)
    records = {
        iou_type: join_records([match_detections(of_type, ground_truth, targets, categories, largest)])
        for iou_type, of_type in detections.items()
    }
    result = make_result(records, targets, plan, ground_truth, categories, proposal_nums, name=name, detections=detections)
    if notes:
        result.report['notes'] = notes
    return result


def match_detections(detections: Detections, ground_truth: GroundTruth, targets: Targets, categories: np.ndarray,
                     limit: int) -> Records:
    """Match all detections of one IoU type, by masks if they have run-length codes, otherwise by boxes.

    `categories` are the evaluated ones, as for `make_targets`; the work is done on the device of `targets`.
    """
    device = targets.cells.device
    image, category, score, area = (torch.as_tensor(column).to(device) for column in (
        detections.image, detections.category, detections.score, detections.area))

    def find_pairs(cells: Tensor, chosen: Tensor) -> Pairs:
        if detections.rles is None:
            boxes = torch.as_tensor(detections.boxes_xywh).to(device)[chosen]
            return box_pairs(cells, boxes, targets.cells, targets.boxes_xywh, targets.crowd)
        ground_truth.check_masks(targets.annotation)
        return rle_pairs(cells, [detections.rles[number] for number in chosen.tolist()], targets.cells,
                         lambda target: ground_truth.rle(int(targets.annotation[target])), targets.crowd, area=area[chosen])

    place = torch.from_numpy(category_lookup(ground_truth, categories)).to(device)[category]
    rules = FederatedRules(ground_truth, categories) if ground_truth.federated else None
    return match_ranked(image, place, score, area, targets, limit, find_pairs, rules)


def without_categories(ground_truth: GroundTruth, categories: np.ndarray,
                       plan: EvaluationPlan) -> tuple[GroundTruth, EvaluationPlan]:
    """Merge the annotations of the evaluated categories into one category, in COCOeval's order; also return their plan."""
    chosen = np.flatnonzero(np.isin(ground_truth.category, categories))
    chosen = chosen[np.lexsort((ground_truth.category[chosen], ground_truth.image[chosen]))]
    ratios = tuple(values if evaluation.unit == 'image' else values[chosen]
                   for evaluation, values in zip(plan.evaluations, plan.ratios, strict=True))
    return ground_truth.select(chosen).class_agnostic(), plan._replace(outside=plan.outside[chosen], ratios=ratios)


def _describe_unsorted(plan: EvaluationPlan) -> list[str]:
    """Report the number of images or annotations with a stated value that is in no bucket."""
    lines = []
    for evaluation, values in zip(plan.evaluations, plan.ratios, strict=True):
        if field_of(evaluation.definition) is None:
            continue
        outside = values[~(np.isnan(values) | bucket_members(values, evaluation.buckets).any(1))]
        if len(outside):
            unit = 'images' if evaluation.unit == 'image' else 'annotations'
            reason = 'their annotations have several levels; use --unit instance' if evaluation.levels else (
                f'their {field_of(evaluation.definition)} ranges from {outside.min():g} to {outside.max():g}')
            lines.append(f'{len(outside)} of {(~np.isnan(values)).sum()} {unit} with a value are in no bucket: {reason}')
    return lines


def _without_categories(detections: Detections, categories: np.ndarray) -> Detections:
    """Merge the detections of the evaluated categories into one category, category by category."""
    place = np.asarray(detections.category.cpu() if isinstance(detections.category, Tensor) else detections.category)
    chosen = np.flatnonzero(np.isin(place, categories))
    chosen = detections.select(chosen[np.argsort(place[chosen], kind='stable')])
    return replace(chosen, category=chosen.category * 0)


def _with_results(ground_truth: GroundTruth, found: dict[str, Detections],
                  only: bool) -> tuple[GroundTruth, dict[str, Detections], list[str]]:
    """Drop images without detections if `only` is set; add a note if many images with objects have none."""
    have = np.zeros(len(ground_truth.image_ids), dtype=bool)
    for of_type in found.values():
        have[np.asarray(of_type.image)] = True
    filled = np.zeros(len(have), dtype=bool)
    filled[ground_truth.image[~ground_truth.crowd]] = True
    lacking = int((filled & ~have).sum())
    if only and have.any():
        new_place = np.cumsum(have) - 1
        found = {iou_type: replace(of_type, image=new_place[of_type.image]) for iou_type, of_type in found.items()}
        return ground_truth.select_images(have), found, [
            f'only the {have.sum()} of {len(have)} images with results are evaluated (only_images_with_results)']
    if have.any() and lacking * 20 > filled.sum():
        return ground_truth, found, [
            f'results cover only part of the images: {lacking} of {filled.sum()} images with objects have none, and their '
            'objects count as missed; --only-images-with-results evaluates the others']
    return ground_truth, found, []


def _checked_bootstrap(bootstrap: Bootstrap | bool | None) -> Bootstrap | None:
    if bootstrap is not None and not isinstance(bootstrap, Bootstrap | bool):
        raise ValueError(f'bootstrap: expected True, False or a Bootstrap such as Bootstrap(200, seed=1), got {bootstrap!r}')
    return Bootstrap() if bootstrap is True else bootstrap or None


def _names(runs: Sequence[EvaluationResult | SavedRun]) -> list[str]:
    """Return the names of results, and of saved runs by `name_runs`; number equal names."""
    others = [run for run in runs if not isinstance(run, EvaluationResult)]
    of_others = iter(name_runs([run.source for run in others], [run.name for run in others]))
    names = [run.name if isinstance(run, EvaluationResult) else next(of_others) for run in runs]
    return [f'{name} {names[:number + 1].count(name)}' if names.count(name) > 1 else name for number, name in enumerate(names)]
