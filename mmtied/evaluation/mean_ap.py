"""AP by occlusion with torchmetrics' interface, for any PyTorch evaluation loop; torchmetrics itself is optional."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor
from torch import distributed as torch_dist

from .accumulate import accumulate, whole_set
from .buckets import Evaluation
from .inputs.coco_json import to_xywh
from .inputs.dumps import encode_masks, to_cpu
from .inputs.sources import from_supervision
from .pipeline import evaluate
from .protocol import IOU_THRESHOLDS, PROPOSAL_NUMS, RECALL_POINTS, STATISTICS, Statistic, check_iou_types
from .result import EvaluationResult

try:
    from torchmetrics import Metric
except ImportError:
    Metric = None

#: Keys to read in addition to ``masks``.
_KEYS = dict(preds=('boxes', 'scores', 'labels'), target=('boxes', 'labels', 'iscrowd', 'area', 'image_size'))
_BOX_FORMATS = ('xyxy', 'xywh', 'cxcywh')
#: States: lists with one tensor per image, which torchmetrics moves, copies and joins.
_STATES = ('predictions', 'truths', 'sizes', 'predicted_masks', 'true_masks')


class _PlainMetric:
    """The part of ``torchmetrics.Metric`` used here."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        for name in _STATES:
            setattr(self, name, [])


class OcclusionMeanAveragePrecision(_PlainMetric if Metric is None else Metric):
    """AP of all images and of every bucket by occlusion, from predictions and targets in torchvision's format.

    If torchmetrics is installed, this is a ``torchmetrics.Metric`` with collections, `forward`, `clone` and Lightning logging.
    `update` copies the boxes of all its images to the CPU together and stores masks as run-length codes. `compute` evaluates all
    images so far, of all processes if `torch.distributed` is initialized. Images have no ids, so an image that a padded sampler
    repeats counts twice; `OcclusionCocoMetric` counts it once.

    Args:
        iou_type: ``'bbox'``, ``'segm'`` or both.
        evaluation: Definition and buckets, by default images by `covered` in tenths.
        proposal_nums: Limits of detections per image and category.
        box_format: Format of the boxes, ``'xyxy'``, ``'xywh'`` or ``'cxcywh'``.
        class_metrics: Compute ``map_per_class`` and ``mar_100_per_class``, which are -1 otherwise.
        max_detection_thresholds: torchmetrics' name for `proposal_nums`.
        average: ``'macro'`` for the mean over categories, ``'micro'`` to merge all categories into one.
        iou_thresholds: Only COCO's ten, the default, are supported; `register_statistic` adds others.
        rec_thresholds: Only COCO's 101, the default, are supported.
        extended_summary: Must be False; `result` has the records.
        backend: A torchmetrics backend; results equal pycocotools' with any of them.
        **options: Options of ``torchmetrics.Metric``, such as ``sync_on_compute``; none without torchmetrics.

    Attributes:
        result: Result of the last `compute`, with `plot()`, `table()` and `save(folder)`.

    Raises:
        ValueError: Unknown IoU type, box format or average, or an unsupported torchmetrics option.

    Example:
        >>> metric = OcclusionMeanAveragePrecision(evaluation=Evaluation(edges=(0, 0.5, 1)))
        >>> boxes, labels = torch.tensor([[0., 0., 8., 8.], [4., 0., 12., 8.]]), torch.tensor([1, 1])
        >>> metric.update([dict(boxes=boxes, scores=torch.tensor([.9, .8]), labels=labels)], [dict(boxes=boxes, labels=labels)])
        >>> values = metric.compute()
        >>> values['map'].item(), values['map_r0.5-1'].item(), 'map_r0' in values
        (1.0, 1.0, False)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, iou_type: str | Sequence[str] = 'bbox', evaluation: Evaluation | None = None,
                 proposal_nums: Sequence[int] = PROPOSAL_NUMS, box_format: str = 'xyxy', class_metrics: bool = False, *,
                 max_detection_thresholds: Sequence[int] | None = None, average: str = 'macro',
                 iou_thresholds: Sequence[float] | None = None, rec_thresholds: Sequence[float] | None = None,
                 extended_summary: bool = False, backend: str = 'pycocotools', **options: Any) -> None:
        self.result: EvaluationResult | None = None
        super().__init__(**options)
        if Metric is not None:
            for name in _STATES:
                self.add_state(name, default=[], dist_reduce_fx=None)
        if box_format not in _BOX_FORMATS:
            raise ValueError(f'OcclusionMeanAveragePrecision: box_format={box_format!r}; use one of {", ".join(_BOX_FORMATS)}')
        _check_options(iou_thresholds, rec_thresholds, extended_summary, backend, average, class_metrics)
        self.iou_types = check_iou_types(iou_type)
        if not isinstance(evaluation, Evaluation | None):
            raise ValueError('OcclusionMeanAveragePrecision: evaluation must be one Evaluation(...), got '
                             f'{type(evaluation).__name__}')
        self.evaluation = evaluation or Evaluation()
        self.proposal_nums = tuple(max_detection_thresholds or proposal_nums)
        self.average, self.box_format, self.class_metrics = average, box_format, class_metrics

    def update(self, preds: Sequence[Any], target: Sequence[Any]) -> None:
        """Add the predictions and targets of some images.

        Args:
            preds: For each image, ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,) and, for segm, ``masks`` (n, height,
                width), boolean or integer; or a ``supervision.Detections``. For segm alone, boxes in `preds` and `target` are
                optional and default to those of the masks. An image without objects needs neither.
            target: For each image, ``boxes`` (m, 4), ``labels`` (m,) and, for segm and definitions that need them, ``masks``;
                optionally ``iscrowd`` (m,), ``area`` (m,), and ``image_size`` (height, width), to which boxes are clipped
                before computing r. Other keys are ignored. Or a ``supervision.Detections``.

        Raises:
            ValueError: The lists differ in length, an entry lacks a key, or masks are probabilities or have the wrong shape.
        """
        if not (isinstance(preds, list | tuple) and isinstance(target, list | tuple)):
            raise ValueError('OcclusionMeanAveragePrecision: expected lists with one entry per image as preds and target, got '
                             f'{type(preds).__name__} and {type(target).__name__}')
        if len(preds) != len(target):
            raise ValueError(f'OcclusionMeanAveragePrecision: got {len(preds)} preds and {len(target)} targets; expected one of '
                             'each per image')
        preds = [from_supervision(entry) if hasattr(entry, 'xyxy') else entry for entry in preds]
        target = [from_supervision(entry, is_truth=True) if hasattr(entry, 'xyxy') else entry for entry in target]
        shapes = [name for name, iou_type in (('boxes', 'bbox'), ('masks', 'segm')) if iou_type in self.iou_types]
        for predicted, truth in zip(preds, target, strict=True):
            for what, entry, keys in (('preds', predicted, ['labels', 'scores']), ('target', truth, ['labels'])):
                is_empty = 'labels' in entry and np.shape(entry['labels']) == (0, )
                for key in keys if is_empty else shapes + keys:
                    if key not in entry:
                        raise ValueError(f'OcclusionMeanAveragePrecision: {what} has no {key!r}; it has {", ".join(entry)}')
        if 'segm' not in self.iou_types:  # Mask R-CNN's are probabilities
            preds = [{key: value for key, value in entry.items() if key != 'masks'} for entry in preds]
        for predicted, truth in zip(_on_cpu(preds, 'preds'), _on_cpu(target, 'target'), strict=True):
            self._keep(predicted, truth)

    def compute(self) -> dict[str, Tensor]:
        """Evaluate all images since the last `reset`.

        Returns:
            Scalars by name, float64, -1 if undefined: ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``,
            ``map_large``, ``mar_1`` and so on, the other `STATISTICS` by their own names, and for each bucket with ground truth
            ``map_r0.1-0.2`` and ``map_75_r0.1-0.2``. With two IoU types, names start with the type, as in ``bbox_map``. Also
            ``classes``, the labels, int32.

        Raises:
            ValueError: `update` was never called, or got invalid values.
        """
        # torchmetrics joins the states of all processes itself.
        is_joined = Metric is not None or not torch_dist.is_available() or not torch_dist.is_initialized()
        states = {name: getattr(self, name) for name in _STATES} if is_joined else _gathered(self)
        if not states['sizes']:
            raise ValueError('OcclusionMeanAveragePrecision: no images; call update before compute')
        annotations, detections, labels = _as_coco(states)
        self.result = evaluate(annotations, detections, self.evaluation, iou_types=self.iou_types, box_format='xywh',
                               proposal_nums=self.proposal_nums, use_cats=self.average == 'macro')
        values = {}
        for iou_type in self.iou_types:
            table, prefix = self.result.report[iou_type], f'{iou_type}_' if len(self.iou_types) > 1 else ''
            for statistic in STATISTICS.values():
                values[prefix + _key(statistic)] = _number(table['all'][statistic.name])
                for bucket, row in zip(self.evaluation.buckets, table['buckets'], strict=True):
                    if statistic.logged_by_bucket and row[statistic.name] is not None:
                        values[f'{prefix}{_key(statistic)}_{bucket.key}'] = _number(row[statistic.name])
            values |= {prefix + name: value for name, value in self._more_values(iou_type).items()}
        return {**values, 'classes': torch.tensor(labels, dtype=torch.int32)}

    def reset(self) -> None:
        """Clear all images and the result."""
        super().reset()
        self.result = None

    def _keep(self, predicted: dict, truth: dict) -> None:
        """Append one image to the states."""
        boxes, found = _boxes(truth, self.box_format), _boxes(predicted, self.box_format)
        crowd, area = truth.get('iscrowd', np.zeros(len(boxes))), truth.get('area', np.full(len(boxes), np.nan))
        for state, columns in ((self.truths, (boxes, truth['labels'], crowd, area)),
                               (self.predictions, (found, predicted['scores'], predicted['labels']))):
            state.append(torch.from_numpy(np.column_stack(columns).astype(np.float64)))
        stated = truth.get('image_size', truth.get('mask_size', predicted.get('mask_size')))
        size = _extent(np.concatenate([boxes, found])) if stated is None else stated
        self.sizes.append(torch.tensor([int(side) for side in size]))
        for name, entry in (('predicted_masks', predicted), ('true_masks', truth)):
            codes = b' '.join(rle['counts'] for rle in entry.get('masks', ()))  # codes have no spaces
            height_width = np.array(entry.get('mask_size', (0, 0)), dtype=np.int64).tobytes()
            getattr(self, name).append(torch.frombuffer(bytearray(height_width + codes), dtype=torch.uint8))

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """Join the states of all processes, whose numbers and shapes differ."""
        for name, state in _gathered(self, process_group).items():
            setattr(self, name, state)

    def _more_values(self, iou_type: str) -> dict[str, Tensor]:
        """Return AR at each limit, and per-category AP and AR; -1 without ground truth."""
        result, largest = self.result, max(self.proposal_nums)
        positives, everything = result.targets.positives(), whole_set(len(result.ground_truth.image_ids))

        def of_classes(limit: int, recall: bool) -> Tensor:
            found = accumulate(result.records[iou_type], positives, everything, len(result.categories), limit, recall, [0])
            return found[0, 0, :len(IOU_THRESHOLDS)].mean(0)

        known = {statistic.max_dets for statistic in STATISTICS.values() if statistic.recall and statistic.area == 'all'}
        values = {f'mar_{limit}': of_classes(limit, True).nanmean().nan_to_num(-1)
                  for limit in self.proposal_nums if limit not in known}
        for name, limit, recall in (('map_per_class', STATISTICS['AP'].limit(self.proposal_nums), False),
                                    (f'mar_{largest}_per_class', largest, True)):
            values[name] = of_classes(limit, recall).nan_to_num(-1) if self.class_metrics else _number(None)
        return values


def _check_options(iou_thresholds: Sequence[float] | None, rec_thresholds: Sequence[float] | None, extended_summary: bool,
                   backend: str, average: str, class_metrics: bool) -> None:
    """Raise a ValueError for unsupported torchmetrics options."""
    start = 'OcclusionMeanAveragePrecision: '
    for name, values, ours in (('iou_thresholds', iou_thresholds, IOU_THRESHOLDS),
                               ('rec_thresholds', rec_thresholds, RECALL_POINTS)):
        if values is not None and (len(values) != len(ours) or not np.allclose(values, ours)):
            raise ValueError(f"{start}{name} must be COCO's, the default; "
                             "register_statistic(Statistic('AP60', iou=0.6)) adds an IoU threshold")
    if extended_summary:
        raise ValueError(f'{start}extended_summary=True is not supported; metric.result.records has the match of each detection')
    backends = ('pycocotools', 'faster_coco_eval')
    if backend not in backends:
        raise ValueError(f'{start}backend={backend!r}; use one of {", ".join(backends)}, whose results are equal')
    if average not in ('macro', 'micro') or (average == 'micro' and class_metrics):
        raise ValueError(f"{start}average={average!r}; use 'macro', or 'micro' without class_metrics")


def _gathered(metric: OcclusionMeanAveragePrecision, group: Any = None) -> dict[str, list[Tensor]]:
    """Return the states of all processes in rank order."""
    states = {name: [tensor.cpu() for tensor in getattr(metric, name)] for name in _STATES}
    gathered = [None] * torch_dist.get_world_size(group)
    torch_dist.all_gather_object(gathered, states, group=group)
    return {name: [tensor for part in gathered for tensor in part[name]] for name in _STATES}


def _key(statistic: Statistic) -> str:
    """Return torchmetrics' name of a statistic: ``map``, ``map_50``, ``map_small``, ``mar_100``; measures keep their own."""
    if statistic.measure:
        return statistic.name
    parts = ['mar' if statistic.recall else 'map']
    parts += [] if statistic.iou is None else [f'{100 * statistic.iou:.0f}']
    parts += [] if statistic.area == 'all' else [statistic.area]
    parts += [str(statistic.max_dets)] if statistic.recall and statistic.max_dets else []
    return '_'.join(parts)


def _number(value: float | None) -> Tensor:
    return torch.tensor(-1. if value is None else value, dtype=torch.float64)


def _boxes(entry: Mapping, box_format: str) -> np.ndarray:
    """Return an image's boxes, or the bounding boxes of its masks, as xywh, (n, 4) float64."""
    if 'boxes' not in entry:
        return np.array([mask_api.toBbox(rle) for rle in entry.get('masks', ())]).reshape(-1, 4)
    return to_xywh(entry['boxes'].astype(np.float64).reshape(-1, 4), box_format)


def _extent(boxes_xywh: np.ndarray) -> np.ndarray:
    """Return height and width of the smallest image that contains the boxes, as a default size."""
    ends = np.nan_to_num(boxes_xywh[:, :2] + boxes_xywh[:, 2:]).max(axis=0, initial=1)
    return np.minimum(np.ceil(ends), 2**31 - 1)[::-1]


def _on_cpu(entries: Sequence[Mapping[str, Any]], what: str) -> list[dict]:
    """Convert images' entries to arrays, with masks as run-length codes and their size."""
    columns = [(number, key) for number, entry in enumerate(entries) for key in _KEYS[what] if entry.get(key) is not None]
    kept: list[dict] = [{} for _ in entries]
    tensors = [torch.as_tensor(entries[number][key]) for number, key in columns]
    for (number, key), values in zip(columns, to_cpu(tensors), strict=True):
        kept[number][key] = values.numpy()
    for number, (entry, arrays) in enumerate(zip(entries, kept, strict=True)):
        _check_shapes(arrays, f'OcclusionMeanAveragePrecision: {what}[{number}]')
        if entry.get('masks') is not None:
            masks = entry['masks'] if isinstance(entry['masks'], Tensor) else np.asarray(entry['masks'])
            arrays['masks'] = encode_masks(masks, len(arrays['labels']), f'OcclusionMeanAveragePrecision: {what}')
            arrays['mask_size'] = masks.shape[1:]
    return kept


def _check_shapes(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raise a ValueError unless an image's arrays agree in length and its labels are integers."""
    labels = arrays['labels']
    if labels.ndim != 1 or (labels != np.floor(labels)).any():
        raise ValueError(f'{where}: labels must be integers, one per object; got {labels.tolist()!s:.80}')
    for key, values in arrays.items():
        needed = {'boxes': (len(labels), 4), 'image_size': (2, )}.get(key, labels.shape)
        if values.shape != needed and (len(labels) or values.size):
            why = 'height and width' if key == 'image_size' else f'{needed} for {len(labels)} labels'
            raise ValueError(f'{where}: {key!r} has shape {values.shape}; expected {why}')


def _masks(state: Tensor, number: int) -> list[dict] | None:
    """Return the run-length codes of an image's state, None if it has no masks."""
    content = state.cpu().numpy().tobytes()
    size = np.frombuffer(content[:16], dtype=np.int64).tolist()
    if not any(size):
        return None
    codes = content[16:].split(b' ') if number else []
    return [{'size': size, 'counts': code} for code in codes]


def _as_coco(states: Mapping[str, Sequence[Tensor]]) -> tuple[dict, list[dict], list[int]]:
    """Return all targets in COCO format, the predictions of each image, and the labels of both."""
    images, entries, detections, labels = [], [], [], set()
    columns = zip(*([tensor.cpu().numpy() for tensor in states[name]] for name in _STATES[:3]), strict=True)
    for number, (predicted, truth, size) in enumerate(columns, 1):
        images.append(dict(id=number, height=int(size[0]), width=int(size[1])))
        masks = _masks(states['true_masks'][number - 1], len(truth))
        for place, (box, (label, crowd, area)) in enumerate(zip(truth[:, :4], truth[:, 4:].tolist(), strict=True)):
            entry = dict(id=len(entries) + 1, image_id=number, category_id=int(label), bbox=box.tolist(),
                         area=float(box[2:].prod()), iscrowd=int(crowd))
            if masks is not None:
                entry |= dict(segmentation=masks[place], area=float(mask_api.area(masks[place])))
            entries.append({**entry, 'area': area} if area > 0 else entry)  # like torchmetrics, recompute an area of 0
        found = dict(image_id=number, boxes=predicted[:, :4], scores=predicted[:, 4], category_ids=predicted[:, 5].astype(int))
        masks = _masks(states['predicted_masks'][number - 1], len(predicted))
        detections.append(found if masks is None else {**found, 'masks': masks})
        labels |= {*found['category_ids'].tolist(), *truth[:, 4].astype(int).tolist()}
    categories = [dict(id=label, name=str(label)) for label in sorted(labels) or [0]]  # COCO format needs a category
    return dict(images=images, annotations=entries, categories=categories), detections, sorted(labels)
