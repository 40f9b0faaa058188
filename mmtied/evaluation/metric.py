"""COCO AP by occlusion as an mmengine metric."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from torch import Tensor

from .accumulate import Records, join_records, no_records
from .buckets import DEFAULT_EDGES, make_buckets
from .ground_truth import GroundTruth, read_ground_truth
from .image_matcher import ImageMatcher
from .protocol import PROPOSAL_NUMS, STATISTICS, check_iou_types, limits
from .ratios import describe_definition, image_ratios
from .report import format_tables
from .summary import summarize

#: CocoMetric's names of `STATISTICS`.
_COCO_METRIC_NAMES = dict(zip(STATISTICS, ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'), strict=True))
#: What is reported of each bucket as scalars; the report has everything.
_BUCKET_SCALARS = ('AP', 'AP75')


@METRICS.register_module()
class OcclusionCocoMetric(BaseMetric):
    """AP of all images and of every bucket of images by occlusion ratio; takes the place of mmdet's `CocoMetric`.

    Predictions are matched in `process`, on the device that holds them, and only a small record of each is kept. The
    scalars have CocoMetric's names (``coco/bbox_mAP`` ...) and, for each bucket with ground truth, ``bbox_mAP_r0.1-0.2`` and
    ``bbox_mAP_75_r0.1-0.2``; -1 stands for an undefined overall number. After an evaluation `report` holds everything
    (see `summary.summarize`) on the main process.

    AP uses at most 100 detections for each image and category. With CocoMetric's ``proposal_nums=(100, 300, 1000)`` the
    other numbers use 1000, as CocoMetric's do; the default is COCO's own, 100 throughout.

    Args:
        ann_file: COCO instances file.
        metric: ``'bbox'``, ``'segm'`` or both.
        definition: Occlusion ratio, one of `occlusion.DEFINITIONS`.
        edges: Bucket edges, see `buckets.make_buckets`.
        same_category: Count only instances of the same category as occluders.
        proposal_nums: Limits of detections for each image and category.
        backend_args: For reading `ann_file`, see mmengine.fileio.
        collect_device: See mmengine's BaseMetric.
        prefix: See mmengine's BaseMetric.
        format_only: Here so that configs of CocoMetric fit; only False.
        outfile_prefix: As `format_only`; only None.
        classwise: As `format_only`; only False.
        iou_thrs: As `format_only`; only None, for COCO's thresholds.
        metric_items: As `format_only`; only None.
        sort_categories: As `format_only`; only False.
        use_mp_eval: As `format_only`; changes nothing, as there is nothing to spread over processes.
        file_client_args: As `format_only`; only None.

    Raises:
        ValueError: No usable annotation file, unknown definition, metric or edges, or an option that only CocoMetric has.
    """

    default_prefix = 'coco'

    def __init__(self,
                 ann_file: str | None = None,
                 metric: str | Sequence[str] = 'bbox',
                 definition: str = 'covered',
                 edges: Sequence[float] = DEFAULT_EDGES,
                 same_category: bool = False,
                 proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                 backend_args: dict | None = None,
                 collect_device: str = 'cpu',
                 prefix: str | None = None,
                 format_only: bool = False,
                 outfile_prefix: str | None = None,
                 classwise: bool = False,
                 iou_thrs: Sequence[float] | None = None,
                 metric_items: Sequence[str] | None = None,
                 sort_categories: bool = False,
                 use_mp_eval: bool = False,
                 file_client_args: dict | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        refused = dict(format_only=format_only, outfile_prefix=outfile_prefix, classwise=classwise, iou_thrs=iou_thrs,
                       metric_items=metric_items, sort_categories=sort_categories, file_client_args=file_client_args)
        for name, value in refused.items():
            if value:
                raise ValueError(f'OcclusionCocoMetric has no {name}={value!r}; keep a CocoMetric for that and add '
                                 "custom_hooks=[dict(type='OcclusionEvalHook')]")
        if ann_file is None:
            raise ValueError('OcclusionCocoMetric needs ann_file, a COCO instances file; OcclusionEvalHook in custom_hooks '
                             "takes it from the evaluated dataset's ann_file instead")
        self.metrics = check_iou_types(metric)
        self.buckets = make_buckets(edges)
        self.definition = describe_definition(definition, same_category)
        self.proposal_nums = tuple(proposal_nums)
        self.limit = limits(proposal_nums)[1]
        with get_local_path(ann_file, backend_args=backend_args) as local_path:
            self.ground_truth = read_ground_truth(local_path)
        self.ratios = image_ratios(self.ground_truth, definition, same_category)
        self.report: dict | None = None
        self._matcher: ImageMatcher | None = None
        self._device = torch.device('cpu')

    @property
    def matcher(self) -> ImageMatcher:
        """Matches the classes of `dataset_meta`."""
        if self._matcher is None:
            category_ids = category_ids_of(self.dataset_meta, self.ground_truth)
            self._matcher = ImageMatcher(self.ground_truth, category_ids, self.limit)
        return self._matcher

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Match a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``img_id`` and ``pred_instances`` with ``bboxes`` (n, 4) xyxy, ``scores``,
                ``labels`` and, for segm, ``masks`` (boolean, or run-length codes) and perhaps ``mask_scores``.
        """
        for sample in data_samples:
            image_id, predictions = sample['img_id'], sample['pred_instances']
            record = {'image': self.matcher.position(image_id)}
            scores, labels = predictions['scores'].detach(), predictions['labels']
            self._device = scores.device
            if 'bbox' in self.metrics:
                found = self.matcher.match_boxes(image_id, labels, scores, predictions['bboxes'].detach())
                record['bbox'] = tuple(column.cpu() for column in found)
            if 'segm' in self.metrics:
                if 'masks' not in predictions:
                    raise ValueError(f"image id {image_id}: the predictions have no masks, which metric 'segm' needs; "
                                     "set metric='bbox' for a model without a mask head")
                scores = predictions['mask_scores'].detach() if 'mask_scores' in predictions else scores
                found = self.matcher.match_masks(image_id, labels, scores, as_masks(predictions['masks'], scores.device))
                record['segm'] = tuple(column.cpu() for column in found)
            self.results.append(record)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """The scalars of all images and every bucket; sets `report` and logs its tables."""
        by_image = {record['image']: record for record in results}  # a padded sampler repeats images
        targets = self.matcher.targets.to(self._device)
        records = {
            iou_type: join_records([no_records(), *(Records(*record[iou_type]) for record in by_image.values())], self._device)
            for iou_type in self.metrics
        }
        self.report = summarize(self.definition, records, targets, self.ratios, self.buckets, self.proposal_nums)
        MMLogger.get_current_instance().info('\n' + format_tables(self.report))
        return scalars(self.report, self.metrics, [bucket.key for bucket in self.buckets])


def category_ids_of(dataset_meta: dict | None, ground_truth: GroundTruth) -> list[int]:
    """Category id of each label: those of the dataset's classes in the order of the annotation file, as mmdet numbers them.

    Raises:
        ValueError: The dataset names no classes, or one that the file does not have.
    """
    classes = (dataset_meta or {}).get('classes')
    if classes is None:
        raise ValueError("OcclusionCocoMetric needs the dataset's classes: dataset_meta has no 'classes'")
    names = ground_truth.category_names
    missing = [name for name in classes if name not in names.values()]
    if missing:
        raise ValueError(f'{ground_truth.source} has no category named {missing[0]!r}, which is among the dataset classes; '
                         f'it has {", ".join(map(str, names.values()))}')
    return [category_id for category_id, name in names.items() if name in classes]


def as_masks(masks: Any, device: torch.device) -> Tensor | list[dict]:
    """Boolean masks on a device from a tensor or array; run-length codes stay as they are."""
    if isinstance(masks, list | tuple) and (not masks or isinstance(masks[0], dict)):
        return list(masks)
    return torch.as_tensor(masks, device=device).bool()


def scalars(report: dict, iou_types: Sequence[str], bucket_keys: Sequence[str]) -> dict[str, float]:
    """The report's numbers under CocoMetric's names, overall -1 where undefined, by bucket only where defined."""
    values = OrderedDict()
    for iou_type in iou_types:
        for name, coco_name in _COCO_METRIC_NAMES.items():
            value = report[iou_type]['all'][name]
            values[f'{iou_type}_{coco_name}'] = -1. if value is None else value
        for key, bucket in zip(bucket_keys, report[iou_type]['buckets'], strict=True):
            for name in _BUCKET_SCALARS:
                if bucket[name] is not None:
                    values[f'{iou_type}_{_COCO_METRIC_NAMES[name]}_{key}'] = bucket[name]
    return values
