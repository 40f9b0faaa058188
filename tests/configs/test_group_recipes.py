"""Configs of groupable convolution: the paper's schedule, and pairs that differ only in backbone and hooks."""

import pytest

from tests.helpers.detectors import load_recipe

PAIRS = {
    **{f'{detector}_gx{depth}_1x': f'{detector}_x{depth}_32x4d_1x' for detector in ('mask_rcnn', 'retinanet')
       for depth in (50, 101)},
    **{f'imagenet/gx{depth}{b}_in1k': f'imagenet/x{depth}_32x4d_in1k' for depth in (50, 101) for b in ('', '_b96')},
}


@pytest.mark.parametrize(('name', 'baseline'), PAIRS.items())
def test_pairs_differ_only_in_backbone_and_hooks(name, baseline):
    ours, theirs = load_recipe(name), load_recipe(baseline)
    backbone, plain = ours.model.pop('backbone'), theirs.model.pop('backbone')
    assert (backbone.type, plain.type, plain.groups) == ('mmtied.GResNeXt', 'ResNeXt', 32)
    assert backbone.depth == plain.depth == (101 if '101' in name else 50)
    assert backbone.get('base_width', 128) == 2 * 64  # 32 groups of 4 channels
    assert backbone.get('groups') is None
    hooks, before = ours.pop('custom_hooks'), theirs.pop('custom_hooks', [])
    b = 96 if 'b96' in name else 32
    assert hooks == [*before, {'type': 'mmtied.GroupResourceHook', 'b': b}, {'type': 'mmtied.GroupHistoryHook'}]
    if '/' not in name:
        assert (backbone.frozen_stages, backbone.norm_eval, backbone.init_cfg) == (-1, False, None)
        assert ours.pop('sync_bn') == 'torch'
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('name', [name for name in PAIRS if name.startswith('imagenet/')])
def test_imagenet(name):
    """Section 4: SGD with momentum 0.9, weight decay 1e-4, batch size 512 on 16 GPUs, a cosine schedule, 224 x 224."""
    cfg = load_recipe(name)
    optimizer = {key: value for key, value in cfg.optim_wrapper.optimizer.items() if key != '_scope_'}
    assert optimizer == {'type': 'SGD', 'lr': 0.2, 'momentum': 0.9, 'weight_decay': 0.0001}
    schedule = {key: value for key, value in cfg.param_scheduler.items() if key != '_scope_'}
    assert schedule == {'type': 'CosineAnnealingLR', 'T_max': 100, 'by_epoch': True, 'begin': 0, 'end': 100}
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.auto_scale_lr.base_batch_size == 16 * cfg.train_dataloader.batch_size == 512
    crop, = (step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResizedCrop')
    assert crop.scale == 224


@pytest.mark.parametrize('name', [name for name in PAIRS if not name.startswith('imagenet/')])
def test_detection(name):
    cfg = load_recipe(name)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.val_evaluator == cfg.test_evaluator
    assert cfg.val_evaluator.type == 'mmtied.OcclusionCocoMetric'


def test_other_rows_of_table_3():
    """As the config's comment says."""
    assert load_recipe('imagenet/gx50_in1k', options={'custom_hooks.0.b': 64}).custom_hooks[0] == {
        'type': 'mmtied.GroupResourceHook', 'b': 64}
