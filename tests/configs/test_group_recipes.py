"""Configs of groupable convolution: the paper's schedule, and pairs that differ only in backbone and hooks."""

import re

import pytest

from mmtied.analysis.published import load_paper
from tests.helpers.detectors import load_recipe

PAIRS = {
    **{f'{detector}_gx{depth}_1x': f'{detector}_x{depth}_32x4d_1x' for detector in ('mask_rcnn', 'retinanet')
       for depth in (50, 101)},
    **{f'imagenet/gx50{b}_in1k': 'imagenet/x50_32x4d_in1k' for b in ('', '_b48', '_b64', '_b96', '_b128')},
    **{f'imagenet/gx101{b}_in1k': 'imagenet/x101_32x4d_in1k' for b in ('', '_b2', '_b48', '_b64', '_b96', '_b128', '_b256')},
}
#: Networks with given groups: those of Table 4 beside G-ResNeXt-101, and ResNeXt* of Table 6.
GIVEN = ['r200_1x64d', 'r101_1x100d', 'x101_64x4d', 'x101_2x64d', 'x50_learned_b32', 'x50_learned_b96', 'x101_learned_b32',
         'x101_learned_b96']


@pytest.mark.parametrize(('name', 'baseline'), PAIRS.items())
def test_pairs_differ_only_in_backbone_and_hooks(name, baseline):
    ours, theirs = load_recipe(name), load_recipe(baseline)
    backbone, plain = ours.model.pop('backbone'), theirs.model.pop('backbone')
    assert (backbone.type, plain.type, plain.groups) == ('mmtied.GResNeXt', 'ResNeXt', 32)
    assert backbone.depth == plain.depth == (101 if '101' in name else 50)
    assert backbone.get('base_width', 128) == 2 * 64  # 32 groups of 4 channels
    assert backbone.get('groups') is None
    hooks, before = ours.pop('custom_hooks'), theirs.pop('custom_hooks', [])
    b = int(re.search(r'_b(\d+)', name)[1]) if '_b' in name else 32
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


def test_other_bounds():
    """As in the config's comment."""
    assert load_recipe('imagenet/gx50_in1k', options={'custom_hooks.0.b': 80}).custom_hooks[0] == {
        'type': 'mmtied.GroupResourceHook', 'b': 80}


@pytest.mark.parametrize('name', GIVEN)
def test_given_groups(name):
    """The recipe of ResNeXt-50-32x4d with another backbone, the one that the model zoo counts."""
    ours, theirs = load_recipe(f'imagenet/{name}_in1k'), load_recipe('imagenet/x50_32x4d_in1k')
    backbone = ours.model.pop('backbone')
    theirs.model.pop('backbone')
    assert ours.to_dict() == theirs.to_dict()
    row, = (row for row in load_paper('groupable_convolution').networks if row.config == f'imagenet/{name}_in1k')
    for key in ('depth', 'groups', 'base_width', 'width_per_group'):
        assert _plain(backbone.get(key)) == row.backbone.get(key)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
