"""AP by occlusion in torchmetrics' style, for any evaluation loop in PyTorch; torchmetrics itself is not needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor
from torch import distributed as torch_dist

from .buckets import Evaluation
from .inputs.dumps import to_cpu
from .pipeline import evaluate
from .protocol import PROPOSAL_NUMS, STATISTICS, Statistic, check_iou_types
from .result import EvaluationResult

#: Keys that are read, in addition to ``masks``.
_KEYS = dict(preds=('boxes', 'scores', 'labels'), target=('boxes', 'labels', 'iscrowd', 'area', 'image_size'))


class OcclusionMeanAveragePrecision:
    """AP of all images and of every bucket by occlusion, from predictions and targets as torchvision's detectors use them.

    `update` keeps the boxes on the CPU, where it copies those of all its images together, and masks as run-length codes.
    `compute` evaluates all images that were given so far; where `torch.distributed` runs, those of all processes. Images have no
    ids here, so an image that a padded sampler repeats counts twice; `OcclusionCocoMetric` tells images apart.

    Args:
        iou_type: ``'bbox'``, ``'segm'`` or both.
        evaluation: How to sort images or instances into buckets, by default images by `covered` in tenths.
        proposal_nums: Limits of detections for each image and category.

    Attributes:
        result: Result of the last `compute`, with its `plot()`, `table()` and `save(folder)`.

    Example:
        >>> metric = OcclusionMeanAveragePrecision(evaluation=Evaluation(edges=(0, 0.5, 1)))
        >>> boxes, labels = torch.tensor([[0., 0., 8., 8.], [4., 0., 12., 8.]]), torch.tensor([1, 1])
        >>> metric.update([dict(boxes=boxes, scores=torch.tensor([.9, .8]), labels=labels)], [dict(boxes=boxes, labels=labels)])
        >>> values = metric.compute()
        >>> values['map'].item(), values['map_r0.5-1'].item(), 'map_r0' in values
        (1.0, 1.0, False)
    """

    def __init__(self, iou_type: str | Sequence[str] = 'bbox', evaluation: Evaluation | None = None,
                 proposal_nums: Sequence[int] = PROPOSAL_NUMS) -> None:
        self.iou_types = check_iou_types(iou_type)
        self.evaluation = evaluation or Evaluation()
        self.proposal_nums = tuple(proposal_nums)
        self.result: EvaluationResult | None = None
        self._images: list[tuple[dict, dict]] = []

    def update(self, preds: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> None:
        """Take the predictions and the targets of some images.

        Args:
            preds: For each image ``boxes`` (n, 4) xyxy, ``scores`` (n,), ``labels`` (n,) and, for segm, ``masks`` (n, height,
                width), boolean or integers.
            target: For each image ``boxes`` (m, 4) xyxy, ``labels`` (m,) and, for segm and for definitions that need them,
                ``masks``; perhaps ``iscrowd`` (m,), ``area`` (m,), and ``image_size`` (height, width), to which boxes are
                clipped where r is computed. Other keys are ignored.

        Raises:
            ValueError: The lists differ in length, an entry lacks a key, or masks are probabilities or of another shape.
        """
        if len(preds) != len(target):
            raise ValueError(f'OcclusionMeanAveragePrecision: {len(preds)} predictions for {len(target)} targets; one target for '
                             'each image is needed')
        mask_keys = ('masks', ) if 'segm' in self.iou_types else ()
        for predicted, truth in zip(preds, target, strict=True):
            for what, entry, keys in (('preds', predicted, ('scores', )), ('target', truth, ())):
                missing = [key for key in ('boxes', 'labels', *keys, *mask_keys) if key not in entry]
                if missing:
                    raise ValueError(f'OcclusionMeanAveragePrecision: {what} has no {missing[0]!r}; it has {", ".join(entry)}')
        self._images += zip(_on_cpu(preds, 'preds'), _on_cpu(target, 'target'), strict=True)

    def compute(self) -> dict[str, Tensor]:
        """Evaluate everything since the last `reset`.

        Returns:
            By name a number, -1 where undefined: ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``,
            ``map_large`` and the other `STATISTICS`, and for each bucket with ground truth ``map_r0.1-0.2`` and
            ``map_75_r0.1-0.2``. With two IoU types each name starts with its type, as in ``bbox_map``.

        Raises:
            ValueError: There was no `update`, or its values cannot be used.
        """
        images = self._images
        if torch_dist.is_available() and torch_dist.is_initialized():
            gathered = [None] * torch_dist.get_world_size()
            torch_dist.all_gather_object(gathered, images)
            images = [image for part in gathered for image in part]
        if not images:
            raise ValueError('OcclusionMeanAveragePrecision: no image was given; call update before compute')
        detections = [dict(predicted, image_id=number + 1, category_ids=predicted['labels'])
                      for number, (predicted, _) in enumerate(images)]
        for entry in detections:
            del entry['labels']
            entry.pop('mask_size', None)
        self.result = evaluate(_annotations(images), detections, self.evaluation, iou_types=self.iou_types,
                               proposal_nums=self.proposal_nums)
        values = {}
        for iou_type in self.iou_types:
            table, prefix = self.result.report[iou_type], f'{iou_type}_' if len(self.iou_types) > 1 else ''
            for statistic in STATISTICS.values():
                value = table['all'][statistic.name]
                values[prefix + _key(statistic)] = torch.tensor(-1. if value is None else value)
                for bucket, row in zip(self.evaluation.buckets, table['buckets'], strict=True):
                    if statistic.logged_by_bucket and row[statistic.name] is not None:
                        values[f'{prefix}{_key(statistic)}_{bucket.key}'] = torch.tensor(row[statistic.name])
        return values

    def reset(self) -> None:
        """Forget all images and the result."""
        self._images, self.result = [], None


def _key(statistic: Statistic) -> str:
    """Return torchmetrics' name of a statistic: ``map``, ``map_50``, ``map_small``, ``mar_100``; its own for a measure."""
    if statistic.measure:
        return statistic.name
    parts = ['mar' if statistic.recall else 'map']
    parts += [] if statistic.iou is None else [f'{100 * statistic.iou:.0f}']
    parts += [] if statistic.area == 'all' else [statistic.area]
    parts += [str(statistic.max_dets)] if statistic.recall and statistic.max_dets else []
    return '_'.join(parts)


def _on_cpu(entries: Sequence[Mapping[str, Any]], what: str) -> list[dict]:
    """Return images' entries as arrays, with masks as run-length codes and their size."""
    columns = [(number, key) for number, entry in enumerate(entries) for key in _KEYS[what] if entry.get(key) is not None]
    kept: list[dict] = [{} for _ in entries]
    tensors = [torch.as_tensor(entries[number][key]) for number, key in columns]
    for (number, key), values in zip(columns, to_cpu(tensors), strict=True):
        kept[number][key] = values.numpy()
    return [_with_masks(entry, arrays, what) for entry, arrays in zip(entries, kept, strict=True)]


def _with_masks(entry: Mapping[str, Any], kept: dict, what: str) -> dict:
    """Add an image's masks to its arrays."""
    if entry.get('masks') is not None:
        masks = torch.as_tensor(entry['masks']).detach().cpu().numpy()
        if masks.dtype.kind not in 'bui' or masks.ndim != 3 or len(masks) != len(kept['labels']):
            raise ValueError(f'OcclusionMeanAveragePrecision: masks of {what} must be boolean or integers of shape '
                             f'({len(kept["labels"])}, height, width), got {masks.dtype} of shape {masks.shape}; for '
                             'probabilities pass masks > 0.5, for (n, 1, height, width) masks.squeeze(1)')
        kept['masks'] = [mask_api.encode(np.asfortranarray(mask != 0, dtype=np.uint8)) for mask in masks]
        kept['mask_size'] = masks.shape[1:]
    return kept


def _annotations(images: Sequence[tuple[dict, dict]]) -> dict:
    """Return the targets of all images in COCO's layout."""
    entries, sizes, labels = [], [], set()
    for number, (predicted, truth) in enumerate(images, 1):
        labels |= {*predicted['labels'].tolist(), *truth['labels'].tolist()}
        boxes = truth['boxes'].astype(np.float64).reshape(-1, 4)
        extent = np.ceil(boxes[:, 2:].max(axis=0, initial=1)).astype(int)[::-1]
        height, width = (int(side) for side in truth.get('image_size', truth.get('mask_size', extent)))
        sizes.append(dict(id=number, height=height, width=width))
        for place, (box, label) in enumerate(zip(boxes, truth['labels'].tolist(), strict=True)):
            side = box[2:] - box[:2]
            entry = dict(id=len(entries) + 1, image_id=number, category_id=label, bbox=[*box[:2].tolist(), *side.tolist()],
                         area=float(truth['area'][place]) if 'area' in truth else float(side.prod()),
                         iscrowd=int(truth['iscrowd'][place]) if 'iscrowd' in truth else 0)
            if 'masks' in truth:
                entry['segmentation'] = truth['masks'][place]
                entry['area'] = entry['area'] if 'area' in truth else float(mask_api.area(truth['masks'][place]))
            entries.append(entry)
    return dict(images=sizes, annotations=entries, categories=[dict(id=label, name=str(label)) for label in sorted(labels)])
