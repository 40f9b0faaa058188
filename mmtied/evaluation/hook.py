"""Hook that adds the occlusion evaluation to any mmdet config and writes its reports."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.utils.data import ConcatDataset, Dataset

from mmtied.arguments import reject_unknown

from ..atomic import real_path
from ..compat import unwrap_model
from ..plotting import check_format
from .buckets import STATISTICS_OF_PRESETS, Evaluation, make_evaluations
from .inputs.categories import label_category_ids
from .inputs.openmmlab import coco_file, dataset_annotations, dataset_label_names, unwrapped
from .intervals import Bootstrap
from .metric import OcclusionCocoMetric
from .parallel import meet
from .protocol import IOU_TYPES, check_iou_types
from .reporting.pictures import check_choice
from .result import EvaluationResult
from .run_checks import check_has_masks, check_joined, check_monitors, lost_hooks, monitored_scalars

#: Prefix of the scalars of the added metric, which keeps them apart from CocoMetric's.
PREFIX = 'occlusion'
#: Config line that adds the hook; the dict merges into the base config's, unlike a custom_hooks list.
AS_DEFAULT_HOOK = "default_hooks = dict(occlusion=dict(type='mmtied.OcclusionEvalHook'))"
#: Options of the metric that the hook sets itself or leaves at their defaults.
_NOT_FORWARDED = ('proposal_nums', 'backend_args', 'collect_device', 'prefix')


@HOOKS.register_module()
class OcclusionEvalHook(Hook):
    """Evaluate by occlusion in validation and testing, and write the results to ``<work_dir>/occlusion/``.

    In a config: ``default_hooks = dict(occlusion=dict(type='mmtied.OcclusionEvalHook'))``.

    If the config's evaluator has an `OcclusionCocoMetric`, the hook writes its report; otherwise it adds one (prefix
    ``occlusion``) for the annotations of the evaluated dataset. After each validation or test it writes ``report.json``,
    ``buckets.csv``, ``buckets.tex``, ``records.npz``, ``ap_over_r_<iou type>.png`` and ``report.html``, overwriting the previous
    ones, and passes the plots to the visualizer. Validation during training omits the slow parts: intervals, and pictures of the
    worst images on the page.

    The log has a table of the buckets. mmengine's line of metrics keeps only the scalars of all images; visualizers, JSON logs,
    ``save_best`` and early stopping get every scalar.

    Args:
        metric: ``'bbox'``, ``'segm'`` or both. By default those of the config's CocoMetric; without one, bbox, and segm if the
            model has a mask head.
        ann_file: Annotations in any format of docs/formats.md, a dict or ``COCO``; by default those of the evaluated dataset.
            Labels are matched by the names of the dataset's classes.
        num_replicates: Halves and quarters of the images behind the intervals, rounded up to tens; 0 for no intervals.
        seed: Seed of the resampling and of a random choice of pictures.
        null_sets: Random sets behind each null band; 0 for no null bands.
        statistics: Statistics with intervals, see `intervals.Bootstrap`; by default MR-2 for the preset citypersons.
        name: The run's name in plots, on the page and in comparisons; by default that of the work directory.
        hide_empty: Omit buckets without instances from plots, page and LaTeX table.
        format: Format of the plots: ``'png'``, ``'pdf'`` or ``'svg'``. Only png goes to the visualizer.
        choice: Images of each bucket to show on the page: ``'worst'``, ``'typical'`` or ``'random'``.
        **options: Evaluation options of `OcclusionCocoMetric`: definition, edges, same_category, unit, cumulative, levels,
            min_height, preset, extra_evaluations, ignore_key, ignore_categories, skip_invalid, label_names, use_cats and
            only_images_with_results.

    `metric`, `ann_file` and `options` configure the added metric. They do not affect a metric of the config, which the log
    reports. Nothing is added if the evaluator only formats results (``format_only=True``).
    """

    priority = 'NORMAL'

    def __init__(self, metric: str | Sequence[str] | None = None, ann_file: str | dict | None = None, num_replicates: int = 1000,
                 seed: int = 0, null_sets: int = 250, statistics: Sequence[str] | None = None, name: str | None = None,
                 hide_empty: bool = False, format: str = 'png', choice: str = 'worst', **options: Any) -> None:
        if options.pop('further', None) is not None:
            raise ValueError('OcclusionEvalHook: further is now called extra_evaluations; rename it in the config')
        reject_unknown('OcclusionEvalHook', options, OcclusionEvalHook.__init__, OcclusionCocoMetric.__init__,
                       without=_NOT_FORWARDED)
        preset, extra_evaluations = options.get('preset'), options.get('extra_evaluations', ())
        make_evaluations(extra_evaluations, preset, **{name: options[name] for name in Evaluation.__dataclass_fields__
                                                       if name in options})  # fails early
        if metric is not None:
            check_iou_types(metric)
        bootstrap = Bootstrap(num_replicates or 2, seed, null_sets=null_sets,  # checked even without intervals
                              statistics=statistics or STATISTICS_OF_PRESETS.get(preset))
        self.bootstrap = bootstrap if num_replicates else None
        self.format, self.choice, self.seed = check_format(format), check_choice(choice), seed
        self.metric, self.ann_file, self.options = metric, ann_file, options
        self.has_options = bool(options) or metric is not None or ann_file is not None
        self.name, self.hide_empty = name, hide_empty
        self.in_use = True
        self._evaluators: list[Evaluator] = []  # evaluators of the prepared loops

    def before_run(self, runner: Runner) -> None:
        """Add the metric to the built loops, and check the scalars that a training run monitors.

        Of several such hooks, such as one in a base config and one in its child, the last one with arguments is used. Repeated
        calls only affect loops built in the meantime.

        Raises:
            ValueError: The evaluated dataset has no valid annotations or repeats image ids, the model predicts no masks for segm,
                or `save_best`, early stopping or a scheduler monitors a scalar that validation does not report.
        """
        hooks = [hook for hook in runner.hooks if isinstance(hook, OcclusionEvalHook)]
        with_options = [hook for hook in hooks if hook.has_options or hook.name or hook.hide_empty]
        self.in_use = self is (with_options or hooks or [self])[-1]
        if not self.in_use:
            return
        if not self._evaluators:
            _shorten_log(runner)
        lost = [] if self._evaluators or not is_training(runner) else lost_hooks(getattr(runner.cfg, 'filename', None))
        if lost:
            runner.logger.warning("OcclusionEvalHook: the config's custom_hooks replace those of its base config and drop "
                                  f"{', '.join(lost)}; to keep them, add this hook as {AS_DEFAULT_HOOK} instead")
        for loop in (runner._val_loop, runner._test_loop):
            evaluator = getattr(loop, 'evaluator', None)  # an unbuilt loop is a dict
            if not isinstance(evaluator, Evaluator) or evaluator in self._evaluators:
                continue
            self._evaluators.append(evaluator)
            check_joined(unwrapped(loop.dataloader.dataset))
            if any(getattr(metric, 'format_only', False) for metric in evaluator.metrics):
                runner.logger.warning('OcclusionEvalHook: the evaluator only formats results, so nothing is evaluated')
            elif _occlusion_metric(evaluator) is None:
                self._attach(runner, loop.dataloader.dataset, evaluator)
            else:
                metric = _occlusion_metric(evaluator)
                names = label_names_of(loop.dataloader.dataset) if metric.label_names is None else None
                if names:
                    label_category_ids(metric.ground_truth, names)
                    metric.label_names = names
                if self.has_options:
                    runner.logger.warning('OcclusionEvalHook: the config has its own OcclusionCocoMetric; the arguments of the '
                                          'hook are not used')
            metric = _occlusion_metric(evaluator)
            check_has_masks(unwrap_model(runner.model), metric.metrics if metric else ())
        if is_training(runner) and isinstance(getattr(runner._val_loop, 'evaluator', None), Evaluator):
            check_monitors(monitored_scalars(runner.hooks, runner.param_schedulers), runner._val_loop.evaluator.metrics)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the validation report; during training without intervals and pictures."""
        self._write(runner, runner.val_loop, complete=not is_training(runner))
        meet('OcclusionEvalHook: waiting for the report')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the test report."""
        self._write(runner, runner.test_loop, complete=True)
        meet('OcclusionEvalHook: waiting for the report')

    def _attach(self, runner: Runner, dataset: Dataset, evaluator: Evaluator) -> None:
        names = self.options.get('label_names') or label_names_of(dataset)
        metric = OcclusionCocoMetric(ann_file=self.ann_file or annotations_of(dataset),
                                     metric=self.metric or default_iou_types(evaluator, runner.model),
                                     backend_args=getattr(dataset, 'backend_args', None), prefix=PREFIX,
                                     **{**self.options, 'label_names': names})
        metric.dataset_meta = evaluator.dataset_meta
        try:
            if names and self.options.get('label_names') is None:
                label_category_ids(metric.ground_truth, names)  # raises for a class that the annotations lack
            metric.matcher  # noqa: B018, the property matches the labels with the annotations
        except ValueError as error:
            raise ValueError(f'OcclusionEvalHook: {error}') from None
        evaluator.metrics.append(metric)

    @master_only
    def _write(self, runner: Runner, loop: BaseLoop, complete: bool) -> None:
        from .inputs.images import read_image
        from .reporting.files import write_outputs

        metric = _occlusion_metric(loop.evaluator)
        if not self.in_use or metric is None or metric.evaluated is None:
            return
        evaluated, examples = metric.evaluated, None
        if complete and self.bootstrap:
            evaluated = evaluated.with_intervals(self.bootstrap)
        folder = Path(runner.work_dir) / 'occlusion'
        given = {'name': self.name} if self.name else {}
        evaluated = replace(evaluated, name=self.name or real_path(folder).parent.name,
                            report={**evaluated.report, **given, 'data': Path(evaluated.ground_truth.source).name})
        if complete:
            examples = self._examples(runner, evaluated, loop.dataloader.dataset)
        paths = write_outputs(evaluated, folder, examples, self.format, self.hide_empty)
        runner.logger.info(f'AP by occlusion: {", ".join(path.name for path in paths)} in {folder}')
        for path in paths:
            if path.suffix == '.png':
                runner.visualizer.add_image(path.stem, np.asarray(read_image(path)), step=train_step(runner))

    def _examples(self, runner: Runner, evaluated: EvaluationResult, dataset: Dataset) -> Any:
        """Draw the worst images; return None and log the reason if their files cannot be read."""
        from .inputs.images import dataset_image_paths
        from .reporting.pictures import draw_worst

        try:
            paths = dataset_image_paths(dataset, evaluated.ground_truth.image_ids)
            if not len(evaluated.detections['bbox'].score) and 'bbox' not in evaluated.records:
                raise ValueError('the model predicts no boxes to draw')
            return draw_worst(evaluated, paths, choice=self.choice, seed=self.seed)
        except (ValueError, OSError) as error:
            runner.logger.warning(f'OcclusionEvalHook: report.html has no pictures ({error})')
            return None


def _shorten_log(runner: Runner) -> None:
    """Drop the buckets' scalars, which the log shows as a table, from mmengine's line of metrics.

    Only the printed line changes: visualizers, JSON logs, `save_best` and early stopping get every scalar.
    """
    get_log = runner.log_processor.get_log_after_epoch

    def get_short_log(runner: Runner, batch_idx: int, mode: str, *args: Any, **kwargs: Any) -> tuple[dict, str]:
        tag, line = get_log(runner, batch_idx, mode, *args, **kwargs)
        metric = _occlusion_metric((runner.val_loop if mode == 'val' else runner.test_loop).evaluator)
        hidden = () if metric is None else metric.bucket_scalars
        items = [item for item in line.split('  ') if item.partition(': ')[0].removeprefix(f'{mode}/') not in hidden]
        return tag, '  '.join(items)

    runner.log_processor.get_log_after_epoch = get_short_log


def annotations_of(dataset: Dataset) -> str | dict:
    """Return a dataset's COCO annotation file, or its annotations in COCO format; raise a ValueError for joined datasets."""
    try:
        inner = unwrapped(dataset)
        if isinstance(inner, ConcatDataset):
            raise ValueError('the evaluated dataset joins several, so it has no single annotation file')
        return coco_file(inner) or dataset_annotations(inner)
    except ValueError as error:
        raise ValueError(f"OcclusionEvalHook: {error}; set a file for the evaluated images: "
                         "dict(type='OcclusionEvalHook', ann_file=...)") from None


def label_names_of(dataset: Dataset) -> list[str] | None:
    """Return the names of a dataset's labels, None if unknown; raise a ValueError for a class missing from its file."""
    inner = unwrapped(dataset)
    inner = unwrapped(inner.datasets[0]) if isinstance(inner, ConcatDataset) else inner
    try:
        return dataset_label_names(inner)
    except ValueError as error:
        raise ValueError(f'OcclusionEvalHook: {error}') from None


def default_iou_types(evaluator: Evaluator, model: Any) -> list[str]:
    """Return the IoU types of the evaluator's other COCO metrics; without any, bbox, and segm if the model has masks."""
    evaluated = {name for metric in evaluator.metrics for name in getattr(metric, 'metrics', [])}
    chosen = [iou_type for iou_type in IOU_TYPES if iou_type in evaluated]
    if chosen:
        return chosen
    return ['bbox', 'segm'] if getattr(unwrap_model(model), 'with_mask', False) else ['bbox']


def is_training(runner: Runner) -> bool:
    """Return whether this is a training run."""
    return runner._train_loop is not None and not isinstance(runner._train_loop, dict)


def train_step(runner: Runner) -> int:
    """Return the trained epochs, or iterations for iteration-based training; 0 without training."""
    if not is_training(runner):
        return 0
    return runner.epoch if isinstance(runner._train_loop, EpochBasedTrainLoop) else runner.iter


def _occlusion_metric(evaluator: Evaluator) -> OcclusionCocoMetric | None:
    """Return the evaluator's occlusion metric, None if it has none."""
    return next((metric for metric in evaluator.metrics if isinstance(metric, OcclusionCocoMetric)), None)
