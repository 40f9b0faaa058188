"""The hook that adds the occlusion evaluation to any mmdet config and writes its files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import ConcatDataset, Dataset

from .buckets import DEFAULT_EDGES
from .evaluations import Evaluation, make_evaluations
from .metric import OcclusionCocoMetric
from .protocol import IOU_TYPES, check_iou_types
from .report import write_report

#: Prefix of the scalars of a metric that the hook adds, so that they do not collide with CocoMetric's.
PREFIX = 'occlusion'


@HOOKS.register_module()
class OcclusionEvalHook(Hook):
    """Evaluates by occlusion in validation and testing, and writes the results into ``<work_dir>/occlusion/``.

    Where the config's evaluator has an `OcclusionCocoMetric`, its report is written; otherwise the hook adds one (prefix
    ``occlusion``) for the annotation file of the evaluated dataset. After each validation or test it writes
    ``report.json``, ``buckets.csv`` and ``ap_over_r_<iou type>.png``, replacing those of the evaluation before, and hands
    the pictures to the visualizer.

    Args:
        definition: Occlusion ratio, one of `occlusion.DEFINITIONS`.
        edges: Bucket edges, see `buckets.make_buckets`.
        same_category: Count only instances of the same category as occluders.
        metric: ``'bbox'``, ``'segm'`` or both. By default what the config's CocoMetric evaluates; without one, bbox, and
            segm too if the model has a mask head.
        ann_file: COCO instances file; by default that of the evaluated dataset.
        unit: What goes into buckets: ``'image'`` or ``'instance'``, see `evaluations.Evaluation`.
        cumulative: Buckets r >= t in place of disjoint ones.
        further: More evaluations from the same matching, each a dict of options of `evaluations.Evaluation`.

    The arguments are those of a metric that the hook adds; they do not change one that the config has, which the log then says.
    Where the evaluator only formats results (``format_only=True``) nothing is added.
    """

    priority = 'NORMAL'

    def __init__(self,
                 definition: str = 'covered',
                 edges: Sequence[float] = DEFAULT_EDGES,
                 same_category: bool = False,
                 metric: str | Sequence[str] | None = None,
                 ann_file: str | None = None,
                 unit: str = 'image',
                 cumulative: bool = False,
                 further: Sequence[dict] = ()) -> None:
        options = dict(definition=definition, edges=edges, unit=unit, cumulative=cumulative, same_category=same_category)
        evaluations = make_evaluations(further, **options)
        if metric is not None:
            check_iou_types(metric)
        self.options = dict(options, further=further)
        self.has_options = evaluations != (Evaluation(), ) or metric is not None or ann_file is not None
        self.metric = metric
        self.ann_file = ann_file

    def before_run(self, runner: Runner) -> None:
        """Add the metric to the loops that are built, before anything runs."""
        for loop in (runner._val_loop, runner._test_loop):
            evaluator = getattr(loop, 'evaluator', None)  # a loop that is not built yet is a dict
            if not isinstance(evaluator, Evaluator):
                continue
            if any(getattr(metric, 'format_only', False) for metric in evaluator.metrics):
                runner.logger.warning('OcclusionEvalHook: the evaluator only formats results, so there is nothing to evaluate')
            elif _occlusion_metric(evaluator) is None:
                self._attach(runner, loop.dataloader.dataset, evaluator)
            elif self.has_options:
                runner.logger.warning('OcclusionEvalHook: the config has an OcclusionCocoMetric, which decides; the arguments '
                                      'of the hook are not used')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the report of the validation."""
        self._write(runner, runner.val_loop.evaluator)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the report of the test."""
        self._write(runner, runner.test_loop.evaluator)

    def _attach(self, runner: Runner, dataset: Dataset, evaluator: Evaluator) -> None:
        metric = OcclusionCocoMetric(ann_file=self.ann_file or annotation_file(dataset),
                                     metric=self.metric or default_iou_types(evaluator, runner.model),
                                     backend_args=getattr(dataset, 'backend_args', None),
                                     prefix=PREFIX,
                                     **self.options)
        metric.dataset_meta = evaluator.dataset_meta
        evaluator.metrics.append(metric)

    @master_only
    def _write(self, runner: Runner, evaluator: Evaluator) -> None:
        from .plots import plot_ap_over_r, to_rgb, write_plots

        metric = _occlusion_metric(evaluator)
        if metric is None or metric.report is None:
            return
        folder = Path(runner.work_dir) / 'occlusion'
        write_report(metric.report, folder)
        names = [path.name for path in write_plots(metric.report, folder).values()]
        runner.logger.info(f'AP by occlusion: report.json, buckets.csv, {", ".join(names)} in {folder}')
        for iou_type in metric.metrics:
            picture = to_rgb(plot_ap_over_r(metric.report, iou_type))
            runner.visualizer.add_image(f'ap_over_r_{iou_type}', picture, step=train_step(runner))


def annotation_file(dataset: Dataset) -> str:
    """The COCO annotation file of a dataset, wrappers taken off.

    Raises:
        ValueError: Several datasets at once, or one without an annotation file.
    """
    inner = dataset
    while hasattr(inner, 'dataset'):
        inner = inner.dataset
    if isinstance(inner, ConcatDataset):
        raise ValueError('OcclusionEvalHook: the evaluated dataset joins several, so it has no single annotation file; '
                         "give one that covers them all: dict(type='OcclusionEvalHook', ann_file=...)")
    ann_file = getattr(inner, 'ann_file', None)
    if not isinstance(ann_file, str) or not ann_file.endswith('.json'):
        raise ValueError(f'OcclusionEvalHook: {type(inner).__name__} has no COCO annotation file (ann_file={ann_file!r}); '
                         "give one for the evaluated images: dict(type='OcclusionEvalHook', ann_file=...)")
    return ann_file


def default_iou_types(evaluator: Evaluator, model: Any) -> list[str]:
    """What the other COCO metrics of the evaluator evaluate; without one bbox, and segm where the model has a mask head."""
    evaluated = {name for metric in evaluator.metrics for name in getattr(metric, 'metrics', [])}
    chosen = [iou_type for iou_type in IOU_TYPES if iou_type in evaluated]
    if chosen:
        return chosen
    model = getattr(model, 'module', model)
    return ['bbox', 'segm'] if getattr(model, 'with_mask', False) else ['bbox']


def train_step(runner: Runner) -> int:
    """Epochs trained, or iterations in a run by iterations; 0 where nothing is trained."""
    loop = runner._train_loop
    if loop is None or isinstance(loop, dict):
        return 0
    return runner.epoch if isinstance(loop, EpochBasedTrainLoop) else runner.iter


def _occlusion_metric(evaluator: Evaluator) -> OcclusionCocoMetric | None:
    """The evaluator's occlusion metric."""
    return next((metric for metric in evaluator.metrics if isinstance(metric, OcclusionCocoMetric)), None)
