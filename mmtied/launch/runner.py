"""Build mmengine's Runner, on machines without a GPU too."""

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def build_runner(cfg: Config) -> Runner:
    """A Runner from a complete config."""
    if cfg.get('launcher', 'none') == 'pytorch' and not torch.cuda.is_available():
        _prepare_cpu_processes(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def prepare_training(runner: Runner) -> None:
    """Build what mmengine would build first thing in `runner.train()`, in its order: loops with their data, the optimizer.

    Wrong settings of these then show before training, where an error is a user's mistake.
    """
    if isinstance(runner, Runner):  # and not one of another runner_type
        runner.train_loop  # noqa: B018, building it is the point
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.val_loop  # noqa: B018


def prepare_testing(runner: Runner) -> None:
    """Build the test loop with its data and metrics, which mmengine would build in `runner.test()`."""
    if isinstance(runner, Runner):
        runner.test_loop  # noqa: B018


def leave_processes() -> None:
    """End the communication between processes, if there are several, so that none is waited for at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _prepare_cpu_processes(cfg: Config) -> None:
    """Let several processes train on CPUs, where mmengine's own set-up asks CUDA for a device.

    That takes gloo, a wrapper without device ids, and BatchNorm in place of SyncBN, which needs a GPU.
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
