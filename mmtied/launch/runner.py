"""Check the data files of a config, and build mmengine's Runner and its parts, with or without a GPU."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS, RUNNERS, Registry
from mmengine.runner import Runner

from mmtied.analysis.complexity import describe_tying
from mmtied.atomic import check_can_write, is_full_disk
from mmtied.cli import TRACEBACK_VARIABLE, is_out_of_memory, is_own
from mmtied.compat import require, unwrap_model
from mmtied.evaluation.hook import OcclusionEvalHook
from mmtied.training import DistillationHook
from mmtied.training.resume import ValidateAtEndHook

from .checks import (
    check_category_names,
    check_classes,
    check_layer_types,
    describe_unknown_type,
    dicts_in,
    leaf_datasets,
    type_hints,
)

_COCO_ADVICE = ('Put COCO 2017 there (train2017/, val2017/, annotations/ from cocodataset.org), or try the demo data instead: '
                'mmtied shapes data/occluded_shapes, then mmtied::demo/mask_rcnn_tiedr50_demo.py')
_SHAPES_ADVICE = 'Make it: mmtied shapes data/occluded_shapes'


def check_data_files(cfg: Config, *splits: str) -> None:
    """Raise a ValueError, with advice, if local files or folders named in a config's 'train', 'val' or 'test' data are missing.

    Paths with ``://`` and data sets without paths are not checked.
    """
    missing, options = [], []
    for split in splits:
        for key, dataset in _datasets(cfg, split):
            path = next((path for path in _local_paths(dataset) if not path.exists()), None)
            if path is not None:
                missing.append((split, path))
                options.append(f'{key}.data_root=...')
        for key, metric in dicts_in(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
            path = metric.get('ann_file')  # read by the evaluator itself
            if isinstance(path, str) and path and '://' not in path and not Path(path).exists():
                missing.append((split, Path(path)))
                options.append(f'{key}.ann_file=...')
    if not missing:
        return
    path = missing[0][1]
    if 'occluded_shapes' in path.parts:
        advice = _SHAPES_ADVICE
    elif 'coco' in str(path).lower():
        advice = _COCO_ADVICE
    else:
        advice = f'Put the data there, or set its location with --cfg-options {" ".join(options)}'
    found = '; '.join(f'{split} data: {path} not found' for split, path in dict.fromkeys(missing))
    raise ValueError(f'{found}. {advice}')


@type_hints()
def build_runner(cfg: Config) -> Runner:
    """Build a Runner from a config, and log how many convolutions of its model are tied."""
    if cfg.get('launcher', 'none') == 'pytorch' and not torch.cuda.is_available():
        _prepare_cpu_processes(cfg)
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except KeyError:
        check_layer_types(cfg)
        raise
    tying = describe_tying(runner.model) if isinstance(getattr(runner, 'model', None), torch.nn.Module) else ''
    if tying:
        runner.logger.info(f'{type(unwrap_model(runner.model)).__name__}: {tying}')
    return runner


@type_hints()
def prepare_training(runner: Runner) -> None:
    """Build loops, data and optimizer, in the order of `runner.train()`, and check that they fit.

    So wrong settings fail before training starts, where errors are reported in one line. Also adds validation to a run that is
    resumed after its last step.
    """
    if not isinstance(runner, Runner):  # a custom runner_type may lack these parts
        return
    optim_wrapper = runner.optim_wrapper
    if isinstance(optim_wrapper, dict):
        _check_types(optim_wrapper.get('optimizer'), OPTIMIZERS)
    _check_types(runner.param_schedulers, PARAM_SCHEDULERS)
    try:
        runner.train_loop, runner.val_loop  # noqa: B018, the properties build the loops
    except ValueError:  # perhaps because no annotation is left
        for split in ('train', 'val'):
            for key, dataset in _datasets(runner.cfg, split):
                check_category_names(dataset, key)
        raise
    runner.optim_wrapper = runner.build_optim_wrapper(optim_wrapper)
    check_classes(runner)
    _prepare_hooks(runner)
    runner.register_hook(ValidateAtEndHook())
    _report_faults_of_loading(runner)


def _prepare_hooks(runner: Runner) -> None:
    """Run the start-up checks of the evaluation by occlusion and of distillation before the log begins."""
    for hook in runner.hooks:
        if isinstance(hook, OcclusionEvalHook | DistillationHook):
            hook.before_run(runner)


def _check_types(settings: dict | list | None, registry: Registry) -> None:
    """Raise a ValueError for an unregistered type, which mmengine would report late or misleadingly.

    Dicts inside a typed dict may belong to other registries and are not checked.
    """
    if isinstance(settings, list | tuple):
        for part in settings:
            _check_types(part, registry)
    elif isinstance(settings, dict):
        name = settings.get('type')
        if isinstance(name, str) and registry.get(name) is None:
            raise ValueError(describe_unknown_type(name, registry.name))
        if name is None:
            _check_types(list(settings.values()), registry)


@type_hints()
def prepare_testing(runner: Runner) -> None:
    """Build the test loop with its data and metrics, as `runner.test()` would."""
    if isinstance(runner, Runner):
        runner.test_loop  # noqa: B018
        _prepare_hooks(runner)
        _report_faults_of_loading(runner)


def _report_faults_of_loading(runner: Runner) -> None:
    """Make the run report, in one line, a checkpoint that cannot be loaded."""
    load = runner.load_or_resume

    def load_or_explain() -> None:
        try:
            load()
        except Exception as error:
            if is_own(error) or is_out_of_memory(error) or is_full_disk(error):
                raise
            raise ValueError(f'{runner._load_from}: cannot be {"resumed" if runner._resume else "loaded"} by this run '
                             f'({type(error).__name__}: {error}; {TRACEBACK_VARIABLE}=1 shows where)') from error

    runner.load_or_resume = load_or_explain


def dump_metric(cfg: Config, out: str) -> BaseMetric:
    """Build the metric that saves predictions to a pickle file."""
    if Path(out).suffix not in ('.pkl', '.pickle'):
        raise ValueError(f'--out {out}: expected a file name that ends in .pkl')
    check_can_write(out, '--out')
    if cfg.get('default_scope') == 'mmpretrain':
        return DumpResults(out_file_path=out)
    require('mmdet', '--out')
    from mmdet.evaluation import DumpDetResults
    return DumpDetResults(out_file_path=out)


def leave_processes() -> None:
    """Close the process group of distributed training, if there is one, without a deadlock at exit.

    gloo's thread needs the GIL to free the last collective, while the group's destructor holds the GIL and waits for that thread.
    The pause lets the thread finish first.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        time.sleep(.2)
        torch.distributed.destroy_process_group()


def _prepare_cpu_processes(cfg: Config) -> None:
    """Set up distributed training on CPUs, since mmengine's own setup requires a CUDA device.

    This uses gloo, a wrapper without device ids, and BatchNorm instead of SyncBN.
    """
    cfg.pop('sync_bn', None)
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }
    torch.distributed.init_process_group('gloo')


def _datasets(cfg: Config, split: str) -> Iterator[tuple[str, dict]]:
    return leaf_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset'), f'{split}_dataloader.dataset')


def _local_paths(dataset: dict) -> Iterator[Path]:
    """Yield the annotation file and image folders of a data set, or else its root."""
    root = dataset.get('data_root') or ''
    prefixes = dataset.get('data_prefix') or {}
    prefixes = [prefixes] if isinstance(prefixes, str) else list(prefixes.values())
    if not any(prefixes) and dataset.get('split') and 'ImageNet' in str(dataset.get('type')):
        prefixes = [dataset['split']]  # ImageNet's folders are named after the splits
    names = [dataset.get('ann_file') or '', *prefixes]
    for name in [name for name in names if isinstance(name, str) and name] or ['']:
        path = str(Path(root) / name) if '://' not in root + name else ''
        if path and path != '.':
            yield Path(path)
