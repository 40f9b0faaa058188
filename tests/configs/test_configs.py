"""Every config in configs/ loads, builds, computes a loss with gradients to every trainable parameter, and predicts."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmtied.backbones import TiedResNet
from mmtied.launch.config import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_predicts(name):
    from mmdet.testing import demo_mm_inputs
    cfg = load_config(name)
    model = MODELS.build(cfg.model)
    model.init_weights()
    classes = model.roi_head.bbox_head.num_classes
    batch = demo_mm_inputs(2, [(3, 96, 128), (3, 128, 96)], num_classes=classes, num_items=[3, 2], with_mask=True)
    model.train()
    inputs = model.data_preprocessor(batch, True)
    losses, _ = model.parse_losses(model(**inputs, mode='loss'))
    losses.backward()
    assert torch.isfinite(losses)
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode='predict')
    assert len(results) == 2
    assert all(result.pred_instances.masks.shape[1:] == result.ori_shape for result in results)


@pytest.mark.parametrize(('name', 'depth', 'base_width', 'millions'), [
    ('tiedr50', 50, 32, 21.95), ('tiedr50s', 50, 18, 13.92), ('tiedr101', 101, 32, 39.29), ('tiedr101s', 101, 18, 24.00)])
def test_paper_configs(name, depth, base_width, millions):
    """The paper's experiment: Mask R-CNN, 2x schedule, 1333x800, 16 images a batch; nothing frozen without weights."""
    cfg = load_config(f'configs/mask_rcnn_{name}_2x.py')
    backbone = MODELS.build(cfg.model.backbone)
    assert isinstance(backbone, TiedResNet)
    assert round((sum(p.numel() for p in backbone.parameters()) + 2049000) / 1e6, 2) == millions
    assert all(p.requires_grad for p in backbone.parameters())
    assert backbone.norm_eval is False
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.param_scheduler[1].milestones == [16, 22]
    assert any(step.get('scale') == (1333, 800) for step in cfg.train_pipeline)
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'mmtied.OcclusionCocoMetric'
    assert [hook.type for hook in cfg.custom_hooks] == ['mmtied.OcclusionEvalHook']
