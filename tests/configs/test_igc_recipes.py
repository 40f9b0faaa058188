"""The recipes of interleaved group convolutions: the paper's schedules, and pairs that differ in the backbone alone."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmtied.launch.config import load_config

#: Every config and the baseline that it is compared with.
PAIRS = {
    'mask_rcnn_igc_l100m2_1x': 'mask_rcnn_r18_1x',
    'retinanet_igc_l100m2_1x': 'retinanet_r18_1x',
    **{f'imagenet/{network}_in1k': 'imagenet/r18_95e_in1k' for network in ('igc_l100m2', 'igc_l4m32', 'igc_l16m16')},
    **{f'cifar/{network}_d20_cifar10': 'cifar/regconv_w16_d20_cifar10'
       for network in ('igc_l4m8', 'igc_l24m2', 'igc_l32m26', 'sumfusion', 'regconv_w18')},
    'cifar/igc_l24m2_d8_cifar10': 'cifar/regconv_w16_d20_cifar10',
    **{f'cifar/{network}_d50_ident_cifar10': 'cifar/regconv_w16_d50_ident_cifar10'
       for network in ('igc_l4m8', 'igc_l24m2', 'regconv_w18')},
    **{f'cifar/{network}_d20_cifar100': 'cifar/regconv_w16_d20_cifar100' for network in ('igc_l24m2', 'igc_l32m26')},
}
IMAGENET = sorted({name for pair in PAIRS.items() for name in pair if name.startswith('imagenet/')} | {'imagenet/r18_c69_95e_in1k'})
CIFAR = sorted({name for pair in PAIRS.items() for name in pair if name.startswith('cifar/')})
OPTIMIZER = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.0001, 'nesterov': True}
#: Each baseline detector and the config that mmdet ships for it.
SHIPPED = {'mask_rcnn_r18_1x': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'retinanet_r18_1x': 'retinanet/retinanet_r50_fpn_1x_coco'}


def load(name: str) -> Config:
    """A config of this repository, or one of mmdet, without what depends on its file's name and without names of its own."""
    cfg = load_config(name if '::' in name else f'configs/{name}.py')
    for key in ('work_dir', 'occlusion_metric', 'igc_backbone', 'igc_neck'):
        cfg.pop(key, None)
    return cfg


def test_every_network_has_a_config():
    patterns = ('*igc*', '*/*igc*', '*/*regconv*', '*/*sumfusion*')
    found = {str(path.relative_to('configs').with_suffix('')) for pattern in patterns for path in Path('configs').glob(f'{pattern}.py')}
    named = {name for pair in PAIRS.items() for name in pair if 'r18' not in name}
    assert {name for name in found if not name.startswith('_base_/')} == named


@pytest.mark.parametrize(('name', 'baseline'), PAIRS.items())
def test_a_pair_differs_in_the_backbone_alone(name, baseline):
    if '/' in name:
        pytest.importorskip('mmpretrain')
    ours, theirs = load(name), load(baseline)
    backbone = ours.model.pop('backbone')
    theirs.model.pop('backbone')
    assert backbone.type == ('mmtied.IGCNetCIFAR' if 'cifar/' in name else 'mmtied.IGCNet')
    if '/' in name:
        assert ours.model.head.pop('in_channels') != theirs.model.head.pop('in_channels')
    else:
        assert (backbone.frozen_stages, backbone.norm_eval, backbone.init_cfg) == (-1, False, None)
        assert ours.pop('sync_bn') == 'torch'
        assert ours.model.neck.pop('in_channels') == [200, 400, 800, 1600]
        theirs.model.neck.pop('in_channels')
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize(('name', 'shipped'), SHIPPED.items())
def test_a_baseline_adds_resnet_18_and_the_occlusion_evaluation_alone(name, shipped):
    ours, theirs = load(name), load(f'mmdet::{shipped}.py')
    assert [hook.type for hook in ours.pop('custom_hooks')] == ['mmtied.OcclusionEvalHook']
    for key in ('val_evaluator', 'test_evaluator'):
        assert ours[key].pop('type') == 'mmtied.OcclusionCocoMetric'
        assert theirs[key].pop('type') == 'CocoMetric'
    theirs.model.backbone.update(depth=18, init_cfg={'type': 'Pretrained', 'checkpoint': 'torchvision://resnet18'})
    theirs.model.neck.in_channels = [64, 128, 256, 512]
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet(name):
    """Section 5.3: 95 epochs, 256 images a batch on 8 GPUs, 0.1 divided by 10 at 30, 60 and 90."""
    pytest.importorskip('mmpretrain')
    cfg = load(name)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == (95, [30, 60, 90], 0.1)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (256, 32)
    assert cfg.train_dataloader.dataset.type == 'ImageNet'


@pytest.mark.parametrize('name', CIFAR)
def test_cifar(name):
    """Section 5.2: 400 epochs, 64 images a batch on 2 GPUs, 0.1 divided by 10 at 200, 300 and 350."""
    pytest.importorskip('mmpretrain')
    cfg = load(name)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == (400, [200, 300, 350], 0.1)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (64, 32)
    classes = int(name.rpartition('_cifar')[2])
    assert (cfg.train_dataloader.dataset.type, cfg.model.head.num_classes) == (f'CIFAR{classes}', classes)
    depth = int(name.partition('_d')[2].partition('_')[0])
    assert (cfg.model.backbone.depth, cfg.model.backbone.get('identity', False)) == (depth, '_ident' in name)
