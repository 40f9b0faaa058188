"""Build mmengine's Runner and its parts, also on machines without a GPU."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmtied.compat import require


def build_runner(cfg: Config) -> Runner:
    """Build a Runner from a complete config."""
    if cfg.get('launcher', 'none') == 'pytorch' and not torch.cuda.is_available():
        _prepare_cpu_processes(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def prepare_training(runner: Runner) -> None:
    """Build the loops with their data, and the optimizer, in the order of `runner.train()`.

    Mistakes in their settings then show before training starts, where errors are reported as a user's.
    """
    if isinstance(runner, Runner):  # another runner_type may lack these
        runner.train_loop  # noqa: B018, the property builds the loop
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.val_loop  # noqa: B018


def prepare_testing(runner: Runner) -> None:
    """Build the test loop with its data and metrics, as `runner.test()` would."""
    if isinstance(runner, Runner):
        runner.test_loop  # noqa: B018


def dump_metric(cfg: Config, out: str) -> BaseMetric:
    """Build the metric that writes predictions to a pickle file.

    Raises:
        ValueError: The name of the file does not end in .pkl or .pickle.
    """
    if Path(out).suffix not in ('.pkl', '.pickle'):
        raise ValueError(f'--out {out}: expected a file name that ends in .pkl')
    if cfg.get('default_scope') == 'mmpretrain':
        return DumpResults(out_file_path=out)
    require('mmdet', '--out')
    from mmdet.evaluation import DumpDetResults
    return DumpDetResults(out_file_path=out)


def leave_processes() -> None:
    """Close the process group of distributed training, if there is one, so that no process waits at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _prepare_cpu_processes(cfg: Config) -> None:
    """Set up distributed training on CPUs, where mmengine's own set-up asks CUDA for a device.

    It needs gloo, a wrapper without device ids, and BatchNorm in place of SyncBN.
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
