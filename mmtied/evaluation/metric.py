"""COCO AP by occlusion as an mmengine metric."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, gather_object, get_comm_device, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from torch import Tensor

from mmtied.arguments import reject_unknown

from .accumulate import join_records
from .buckets import EvaluationPlan, make_evaluations, make_plan
from .doubts import describe_doubts
from .inputs.categories import label_category_ids, merge_names, named_category_ids
from .inputs.faults import one_line, shown
from .inputs.ground_truth import GroundTruth, read_ground_truth
from .inputs.openmmlab import class_names
from .inputs.plausibility import describe_inverted
from .matching import LVIS_DETECTIONS
from .parallel import meet, publish_work
from .pipeline import without_categories
from .protocol import DEFAULT_EDGES, PROPOSAL_NUMS, STATISTICS, check_iou_types, check_proposal_nums
from .reporting.tables import format_tables, scalars
from .result import EvaluationResult, make_result
from .stream import TO_DRAW, ImageMatcher, MatchedImages, as_masks, join_once, match_images, shown_detections

#: Images to match together.
BATCH = 256
#: Options of mmdet's CocoMetric without a counterpart here.
_COCO_OPTIONS = ('format_only', 'outfile_prefix', 'classwise', 'iou_thrs', 'metric_items', 'sort_categories', 'use_mp_eval',
                 'file_client_args')


@METRICS.register_module()
class OcclusionCocoMetric(BaseMetric):
    """AP of all images and of every bucket by occlusion ratio; replaces mmdet's `CocoMetric`.

    `process` computes mask IoU on the device of the masks and matches `BATCH` images at a time. It then keeps one match record
    per detection, and processes exchange only records. An image that a padded sampler repeats counts once.

    The scalars have CocoMetric's names (``coco/bbox_mAP`` ...). Each bucket with ground truth adds ``bbox_mAP_r0.1-0.2`` and
    ``bbox_mAP_75_r0.1-0.2``; extra evaluations add a prefix, as in ``covered_instance_bbox_mAP_r0.1-0.2``. Undefined overall
    scalars are -1. After an evaluation, the main process has all numbers in `evaluated` and its `report` (see
    `summary.summarize`), the names of the buckets' scalars in `bucket_scalars`, and the highest-scoring boxes of each image, for
    pictures, in `shown` (see `stream.shown_table`).

    AP uses at most 100 detections per image and category. With CocoMetric's ``proposal_nums=(100, 300, 1000)``, the other
    statistics use 1000, as in CocoMetric; COCO's own limits, the default, give 100 throughout.

    Args:
        ann_file: COCO instances file, a dict in that format, or a pycocotools ``COCO``.
        metric: ``'bbox'``, ``'segm'`` or both.
        definition: Occlusion ratio, a key of `occlusion.OCCLUSION_RATIOS`.
        edges: Bucket edges, see `buckets.make_buckets`.
        same_category: Count only instances of the same category as occluders.
        unit: Unit of the buckets, ``'image'`` or ``'instance'``, see `buckets.Evaluation`.
        cumulative: Use buckets r >= t instead of disjoint ones.
        levels: Levels instead of ranges between `edges`, see `buckets.Evaluation`.
        min_height: Minimum height in pixels of bucketed instances.
        preset: Name of a data set's evaluation in `buckets.PRESETS`, instead of the options above.
        extra_evaluations: More evaluations that share the matching, each a dict of options of `buckets.Evaluation`.
        proposal_nums: Limits of detections per image and category.
        ignore_key: Keys that are true in annotations of ignore regions, see `ground_truth.Reading`.
        ignore_categories: Categories whose annotations are ignore regions for all detections.
        skip_invalid: Skip and count invalid annotations.
        label_names: Names of the model's labels, by default the data set's classes. Detections of labels that are missing from
            the annotations are dropped.
        use_cats: False for class-agnostic AP.
        only_images_with_results: Evaluate only the images that were processed.
        backend_args: Arguments for reading `ann_file`, see mmengine.fileio.
        collect_device: Device on which the main process collects the records, ``'cpu'`` or ``'gpu'``. NCCL sends them through the
            GPU either way; statistics are computed on the device of the predictions.
        prefix: See mmengine's BaseMetric.
        **coco_options: Options that only CocoMetric has, such as ``classwise``; accepted only if unset or False.

    Raises:
        ValueError: Invalid annotation file, definition, unit, metric or edges, or an option that only CocoMetric has.
        TypeError: An unknown option.
    """

    default_prefix = 'coco'

    def __init__(self, ann_file: str | dict | None = None, metric: str | Sequence[str] = 'bbox', definition: str = 'covered',
                 edges: Sequence[float] = DEFAULT_EDGES, same_category: bool = False, unit: str = 'image',
                 cumulative: bool = False, levels: Sequence | dict | None = None, min_height: float = 0,
                 preset: str | None = None, extra_evaluations: Sequence[dict] = (), proposal_nums: Sequence[int] = PROPOSAL_NUMS,
                 ignore_key: str | Sequence[str] = (), ignore_categories: Sequence[str | int] = (), skip_invalid: bool = False,
                 label_names: Sequence[str] | None = None, use_cats: bool = True, only_images_with_results: bool = False,
                 backend_args: dict | None = None, collect_device: str = 'cpu', prefix: str | None = None,
                 **coco_options: Any) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        for name, value in coco_options.items():
            if name == 'further':
                raise ValueError('OcclusionCocoMetric: further is now called extra_evaluations; rename it in the config')
            if name not in _COCO_OPTIONS:
                reject_unknown('OcclusionCocoMetric', {name: value}, OcclusionCocoMetric.__init__)
            if value and name != 'use_mp_eval':  # use_mp_eval does not change the result
                raise ValueError(f'OcclusionCocoMetric has no {name}={value!r}; keep a CocoMetric for that and add '
                                 "default_hooks=dict(occlusion=dict(type='mmtied.OcclusionEvalHook'))")
        if ann_file is None:
            raise ValueError('OcclusionCocoMetric needs ann_file, a COCO instances file; the OcclusionEvalHook '
                             "uses the evaluated dataset's ann_file instead")
        if not isinstance(getattr(ann_file, 'dataset', ann_file), str | os.PathLike | dict | GroundTruth):
            raise ValueError('OcclusionCocoMetric: ann_file must be the path of a COCO instances file, a dict in that format, or '
                             f'a pycocotools COCO; got {shown(ann_file)}')
        self.metrics = check_iou_types(metric)
        self.evaluations = make_evaluations(extra_evaluations, preset, definition=definition, edges=edges, unit=unit,
                                            cumulative=cumulative, same_category=same_category, levels=levels,
                                            min_height=min_height)
        self.proposal_nums = check_proposal_nums(proposal_nums) and tuple(proposal_nums)
        is_path = isinstance(ann_file, str | os.PathLike)
        with get_local_path(ann_file, backend_args=backend_args) if is_path else nullcontext(ann_file) as local:
            self.ground_truth = merge_names(read_ground_truth(local, ignore_key=ignore_key, ignore_categories=ignore_categories,
                                                              skip_invalid=skip_invalid))
        if skip_invalid and 'segm' in self.metrics:
            self.ground_truth = self.ground_truth.with_masks()
        if self.ground_truth.federated:
            self.proposal_nums = (LVIS_DETECTIONS, )
        self.limit = max(self.proposal_nums)
        self.label_names, self.use_cats, self.only_images_with_results = label_names, use_cats, only_images_with_results
        self.plan = make_plan(self.ground_truth, self.evaluations)
        self.buckets, self.ratios = self.evaluations[0].buckets, self.plan.ratios[0]
        self.evaluated: EvaluationResult | None = None
        self.shown: Tensor | None = None
        self.bucket_scalars: set[str] = set()
        self._matcher: ImageMatcher | None = None
        self._device = torch.device('cpu')
        publish_work()

    @property
    def report(self) -> dict | None:
        """The report of the last evaluation; main process only."""
        return None if self.evaluated is None else self.evaluated.report

    @property
    def matcher(self) -> ImageMatcher:
        """The matcher for the classes of `dataset_meta`, created on first use."""
        if self._matcher is None:
            self._matcher, self._matched_plan = self._make_matcher(self.ground_truth, self.plan)
        return self._matcher

    def _make_matcher(self, truth: GroundTruth, plan: EvaluationPlan) -> tuple[ImageMatcher, EvaluationPlan]:
        """Return a matcher for the annotations, and the plan for its ground truth."""
        category_ids = self._category_ids()
        if not self.use_cats:
            categories = truth.select_categories([number for number in category_ids if number >= 0])
            truth, plan = without_categories(truth, categories, plan)
        return ImageMatcher(truth, category_ids, self.limit, plan.outside, self.use_cats), plan

    def _category_ids(self) -> list[int]:
        """Return the category id of each label by name, -1 for none."""
        if self.label_names is not None:
            return named_category_ids(self.ground_truth, self.label_names)
        classes = class_names(self.dataset_meta)
        if not classes:
            raise ValueError("OcclusionCocoMetric needs the dataset's classes, but dataset_meta has no 'classes'")
        ids = label_category_ids(self.ground_truth, classes)
        if ids != named_category_ids(self.ground_truth, classes):
            MMLogger.get_current_instance().warning(
                f'{type(self).__name__}: {self.ground_truth.source} orders the categories differently from the classes of the '
                "data set; labels are assumed to follow the file, as in mmdet's CocoMetric. With the OcclusionEvalHook they "
                'follow the data set; label_names=[...] sets their order')
        return ids

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the evaluated dataset. Setting it checks the classes before anything runs."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        if class_names(dataset_meta) and self.label_names is None:
            label_category_ids(self.ground_truth, class_names(dataset_meta))

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store a batch, and match every `BATCH` images. Values are validated at match time to avoid a device sync per image.

        Args:
            data_batch: Unused.
            data_samples: For each image, ``img_id`` and ``pred_instances`` with ``bboxes`` (n, 4) xyxy, ``scores``, ``labels``
                and, for segm, ``masks`` (see `as_masks`) and optional ``mask_scores``.

        Raises:
            ValueError: Unknown image, missing predictions, or invalid values.
        """
        for sample in data_samples:
            image_id, predictions, candidates = sample['img_id'], sample['pred_instances'], {}
            self.matcher.position(image_id)
            scores, labels = predictions['scores'].detach(), predictions['labels']
            self._device = scores.device
            if 'bbox' in self.metrics or 'bboxes' in predictions:
                boxes = self.matcher.take_boxes(image_id, labels, scores, predictions['bboxes'].detach())
                candidates['bbox' if 'bbox' in self.metrics else TO_DRAW] = boxes
            if 'segm' in self.metrics:
                if 'masks' not in predictions:
                    raise ValueError(f"image id {image_id}: metric 'segm' needs masks, but the predictions have none; "
                                     "set metric='bbox' for a model without a mask head")
                scores = predictions['mask_scores'].detach() if 'mask_scores' in predictions else scores
                candidates['segm'] = self.matcher.take_masks(image_id, labels, scores, as_masks(predictions['masks']))
            self.results.append(candidates)
        if sum(not isinstance(result, MatchedImages) for result in self.results) >= BATCH:
            self.results = self._matched(self.results)

    def scalar_names(self) -> list[str]:
        """Return the names of the scalars of `evaluate`; buckets without ground truth have none."""
        report = self._result(self._once([]), self.matcher, self._matched_plan).report
        return [f'{self.prefix}/{name}' for name in scalars(report, self.metrics, self.evaluations)]

    def evaluate(self, size: int) -> dict[str, float]:
        """Match the remaining images, gather records on the main process, and broadcast its scalars.

        Args:
            size: Unused; images are identified by id.
        """
        if not self.results:
            MMLogger.get_current_instance().warning(f'{type(self).__name__} got empty `self.results`: no image was processed')
        matched = self._once(self.results)
        meet(f'{type(self).__name__}: joining the results')
        parts = self._gathered(matched)
        sent, failure = [None, None], None
        if is_main_process():
            try:
                sent[0] = {f'{self.prefix}/{name}': value for name, value in self.compute_metrics(parts).items()}
            except Exception as error:  # reported to the waiting processes too
                failure, sent[1] = error, f'{type(error).__name__}: {one_line(error)}'
        meet(f'{type(self).__name__}: waiting for the scalars')
        broadcast_object_list(sent)
        self.results.clear()
        if failure is not None:
            raise failure
        if sent[1]:
            raise ValueError(f'{type(self).__name__}: the evaluation failed in the main process ({sent[1]})')
        return sent[0]

    def _gathered(self, matched: MatchedImages) -> list[MatchedImages]:
        """Gather the matches of all processes on the main one."""
        if get_world_size() == 1:
            return [matched]
        device = 'cpu' if self.collect_device == 'cpu' else get_comm_device()
        gathered = gather_object([tensor.cpu() for tensor in matched.tensors()])
        return [MatchedImages.from_tensors([tensor.to(device) for tensor in tensors], self.metrics) for tensors in gathered or ()]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scalars of all images and every bucket, set `evaluated` and `shown`, and log the tables."""
        joined, matcher = self._once(results), self.matcher
        plan = self._matched_plan
        if self.only_images_with_results and len(joined.images) < len(self.ground_truth.image_ids):
            joined, matcher, plan = self._restricted(joined)
        self.shown = joined.shown.cpu()
        self.evaluated = self._result(joined, matcher, plan, detections={'bbox': shown_detections(self.shown)})
        report, truth = self.report, matcher.ground_truth
        doubts, num_images = describe_doubts(self.evaluated), len(truth.image_ids)
        if len(joined.images) < num_images:
            doubts.insert(0, f'only {len(joined.images)} of the {num_images} annotated images were processed, and objects in the '
                          'others count as missed; only_images_with_results=True evaluates the processed ones')
        if truth.notes or doubts:
            report['notes'] = [*truth.notes, *doubts]
        logger = MMLogger.get_current_instance()
        inverted = joined.images[joined.inverted].sort().values.cpu().numpy()
        if len(inverted):
            doubts.append(describe_inverted(truth.image_ids[inverted].tolist()))
        for line in doubts:
            logger.warning(f'{type(self).__name__}: {line}')
        logger.info('\n' + format_tables(report, brief=True))
        values = scalars(report, self.metrics, self.evaluations)
        overall = {f'{iou_type}_{statistic.scalar}' for iou_type in self.metrics for statistic in STATISTICS.values()}
        self.bucket_scalars = {f'{self.prefix}/{name}' for name in values if name not in overall}
        return values

    def _result(self, joined: MatchedImages, matcher: ImageMatcher, plan: EvaluationPlan, **more: Any) -> EvaluationResult:
        """Build the result from matched images."""
        records = {iou_type: join_records([table.wide()], self._device) for iou_type, table in joined.records.items()}
        return make_result(records, matcher.targets.to(self._device), plan, matcher.ground_truth, matcher.categories,
                           self.proposal_nums, **more)

    def _restricted(self, joined: MatchedImages) -> tuple[MatchedImages, ImageMatcher, EvaluationPlan]:
        """Return matches, matcher and plan restricted to the processed images."""
        have = np.zeros(len(self.ground_truth.image_ids), dtype=bool)
        have[joined.images.cpu().numpy()] = True
        truth = self.ground_truth.select_images(have)
        new_place = torch.from_numpy(np.cumsum(have) - 1).to(joined.images.device)
        shown = joined.shown.clone()
        shown[:, 0] = new_place[shown[:, 0].long()].to(shown)
        records = {name: table._replace(image=new_place[table.image.long()].to(table.image))
                   for name, table in joined.records.items()}
        joined = MatchedImages(new_place[joined.images], shown, joined.inverted, records)
        return joined, *self._make_matcher(truth, make_plan(truth, self.evaluations))

    def _once(self, results: list) -> MatchedImages:
        """Match and join all results, each image once."""
        return join_once(self._matched(results), self.metrics, self.plan.num_columns, len(self.ground_truth.image_ids))

    def _matched(self, results: list) -> list[MatchedImages]:
        """Match all unmatched results."""
        waiting = [result for result in results if not isinstance(result, MatchedImages)]
        done = [result for result in results if isinstance(result, MatchedImages)]
        return [*done, match_images(self.matcher, waiting)] if waiting else done
