"""Configs as the recipe tests compare them, and small batches for the models that they build."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmtied.launch.config import load_config

ROOT = Path(__file__).resolve().parents[2]
#: Keys that depend on a config's file name, and names that the base files define for others to use.
OWN_KEYS = ('work_dir', 'occlusion_metric', 'occlusion_hook', 'tied_backbone', 'context_block', 'shared_backbone',
            'orthogonality', 'igc_backbone', 'igc_neck', 'groupable_backbone', 'group_hooks', 'svhn')


def load_recipe(name: str, options: dict | list | None = None) -> Config:
    """Load configs/NAME.py, or a config of mmdet by its ``mmdet::`` path, without `OWN_KEYS`."""
    if name.startswith(('imagenet/', 'cifar/', 'svhn/')):
        pytest.importorskip('mmpretrain')
    cfg = load_config(name if '::' in name else str(ROOT / f'configs/{name}.py'), options)
    for key in OWN_KEYS:
        cfg.pop(key, None)
    return cfg


def use_small_heads(model: dict) -> None:
    """Let a two-stage detector's heads be narrow, and work on a few regions instead of hundreds."""
    if 'roi_head' in model:
        heads = model['roi_head']['bbox_head']
        for head in heads if isinstance(heads, list) else [heads]:
            head['fc_out_channels'] = 64  # of 1024: most weights of a detector are between these
        stages = model['train_cfg']['rcnn'] if isinstance(model['train_cfg']['rcnn'], list) else [model['train_cfg']['rcnn']]
        for stage in stages:
            stage['sampler']['num'] = 8
        model['train_cfg']['rpn_proposal']['max_per_img'] = model['test_cfg']['rpn']['max_per_img'] = 20
        model['test_cfg']['rcnn']['max_per_img'] = 5


def two_images(model: nn.Module, scope: str, size: int = 64) -> dict[str, list]:
    """Return a batch of two small random images with labels, or with boxes and masks, for a model's data_preprocessor."""
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample
        images = list(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))
        labels = (1, model.head.num_classes - 1)
        return {'inputs': images, 'data_samples': [DataSample().set_gt_label(label) for label in labels]}
    from mmdet.testing import demo_mm_inputs
    head = model.bbox_head if hasattr(model, 'bbox_head') else model.roi_head.bbox_head
    classes = (head[-1] if isinstance(head, nn.ModuleList) else head).num_classes
    return demo_mm_inputs(2, [(3, 32, 64), (3, 64, 32)], num_classes=classes, num_items=[3, 2],
                          with_mask=model.with_mask)
