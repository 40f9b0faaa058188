"""Evaluate detections in COCO's results format: the whole way from arrays to the report."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .accumulate import Records, join_records
from .buckets import DEFAULT_EDGES, Evaluation, make_evaluations, make_plan
from .inputs.ground_truth import GroundTruth
from .inputs.results import Detections
from .masks import rle_pairs
from .matching import box_pairs, make_records, min_iou, rank_detections
from .protocol import IOU_THRESHOLDS, PROPOSAL_NUMS, check_iou_types, limits
from .result import Evaluated, conclude
from .targets import Targets, category_lookup, make_targets


def evaluate_coco(ground_truth: GroundTruth,
                  detections: Mapping[str, Detections],
                  definition: str = 'covered',
                  edges: Sequence[float] = DEFAULT_EDGES,
                  same_category: bool = False,
                  proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                  category_ids: Sequence[int] | None = None,
                  device: torch.device | str | None = None,
                  unit: str = 'image',
                  cumulative: bool = False,
                  further: Sequence[Mapping] = ()) -> dict:
    """AP of all images and of every occlusion bucket, equal to COCOeval on those images.

    Args:
        ground_truth: The annotations.
        detections: The detections of each IoU type (``'bbox'``, ``'segm'``) to evaluate, from `results.make_detections`, or
            from `results.tensor_detections`, which leaves them on their device.
        definition: Occlusion ratio, one of `occlusion.DEFINITIONS`.
        edges: Bucket edges, see `buckets.make_buckets`.
        same_category: Count only instances of the same category as occluders.
        proposal_nums: Limits of detections for each image and category, see `protocol.limits`.
        category_ids: Categories to evaluate, all by default. Annotations of the others still occlude.
        device: Where to match and accumulate; by default where the detections are, on the CPU for arrays.
        unit: What goes into buckets: ``'image'`` or ``'instance'``, see `evaluations.Evaluation`.
        cumulative: Buckets r >= t in place of disjoint ones.
        further: More evaluations from the same matching, each a dict of options of `evaluations.Evaluation`.

    Returns:
        The report, see `summary.summarize`.

    Raises:
        ValueError: Unknown definition, unit, IoU type or category, or unusable edges or limits.
    """
    evaluations = make_evaluations(further, definition=definition, edges=edges, unit=unit, cumulative=cumulative,
                                   same_category=same_category)
    return evaluate_detections(ground_truth, detections, evaluations, proposal_nums, category_ids, device).report


def evaluate_detections(ground_truth: GroundTruth,
                        detections: Mapping[str, Detections],
                        evaluations: Sequence[Evaluation] = (Evaluation(), ),
                        proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                        category_ids: Sequence[int] | None = None,
                        device: torch.device | str | None = None) -> Evaluated:
    """As `evaluate_coco`, with what further steps need: intervals, saved match records, pictures.

    Args:
        ground_truth: The annotations.
        detections: The detections of each IoU type to evaluate.
        evaluations: The main one, and further ones.
        proposal_nums: See `evaluate_coco`.
        category_ids: See `evaluate_coco`.
        device: See `evaluate_coco`.

    Raises:
        ValueError: See `evaluate_coco`.
    """
    check_iou_types(tuple(detections))
    largest = limits(proposal_nums)[1]
    categories = ground_truth.select_categories(category_ids)
    plan = make_plan(ground_truth, evaluations)
    columns = [of_type.image for of_type in detections.values()]
    found_on = next((column.device for column in columns if isinstance(column, Tensor)), 'cpu')
    targets = make_targets(ground_truth, categories, plan.outside).to(found_on if device is None else device)
    records = {
        iou_type: join_records([match_detections(of_type, ground_truth, targets, categories, largest)])
        for iou_type, of_type in detections.items()
    }
    return conclude(plan, records, targets, ground_truth, categories, proposal_nums)


def match_detections(detections: Detections, ground_truth: GroundTruth, targets: Targets, categories: np.ndarray,
                     limit: int) -> Records:
    """The match records of all detections, by boxes, or by masks where there are run-length codes.

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
    lowest = min_iou(torch.from_numpy(IOU_THRESHOLDS))
    if detections.rles is None:
        boxes = torch.as_tensor(detections.boxes_xywh).to(device)[chosen]
        pairs = box_pairs(cells, boxes, targets.cells, targets.boxes_xywh, targets.crowd, lowest)
    else:
        ground_truth.check_masks(targets.annotation)
        pairs = rle_pairs(cells, [detections.rles[number] for number in chosen.tolist()], targets.cells,
                          lambda target: ground_truth.rle(int(targets.annotation[target])), targets.crowd, lowest, area)
    return make_records(pairs, cells, rank, score, area, targets)


