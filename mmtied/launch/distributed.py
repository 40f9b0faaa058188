"""Several processes on machines without a GPU: mmengine's own set-up asks CUDA for a device."""

import torch
from mmengine.config import Config


def prepare_cpu_processes(cfg: Config) -> None:
    """Let ``--launcher pytorch`` work without CUDA: gloo, no device ids, and no SyncBN (it needs a GPU).

    Does nothing where CUDA is available or the config is not distributed.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    cfg.pop('sync_bn', None)
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', **cfg.get('model_wrapper_cfg', {})}
    torch.distributed.init_process_group('gloo')
