"""Configs of interleaved group convolutions: the paper's schedules, and pairs that differ only in the backbone."""

import pytest

from tests.helpers.detectors import ROOT, load_recipe

#: Baseline of every config.
PAIRS = {
    'mask_rcnn_igc_l100m2_1x': 'mask_rcnn_r18_1x',
    'retinanet_igc_l100m2_1x': 'retinanet_r18_1x',
    **{f'imagenet/{network}_in1k': 'imagenet/r18_95e_in1k' for network in ('igc_l100m2', 'igc_l4m32', 'igc_l16m16')},
    **{f'cifar/{network}_d20_cifar{classes}': f'cifar/regconv_w16_d20_cifar{classes}' for classes in (10, 100)
       for network in ('igc_l4m8', 'igc_l24m2', 'igc_l32m26', 'igc_l16m32', 'igc_l450m2', 'sumfusion', 'regconv_w18')},
    'cifar/igc_l24m2_d8_cifar10': 'cifar/regconv_w16_d20_cifar10',
    **{f'cifar/{network}_d50_ident_cifar{classes}': f'cifar/regconv_w16_d50_ident_cifar{classes}' for classes in (10, 100)
       for network in ('igc_l4m8', 'igc_l24m2', 'regconv_w18')},
    **{f'cifar/igc_{network}_figure3_cifar100': 'cifar/regconv_w16_d20_cifar100' for network in ('l40m2', 'l85m2')},
    'svhn/igc_l16m32_d20_svhn': 'svhn/igc_l32m26_d20_svhn',
}
IMAGENET = sorted({name for pair in PAIRS.items() for name in pair if name.startswith('imagenet/')}
                  | {'imagenet/r18_c69_95e_in1k'})
CIFAR = sorted({name for pair in PAIRS.items() for name in pair if name.startswith('cifar/')})
OPTIMIZER = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.0001, 'nesterov': True}
#: Each baseline detector and the config that mmdet ships for it.
SHIPPED = {'mask_rcnn_r18_1x': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'retinanet_r18_1x': 'retinanet/retinanet_r50_fpn_1x_coco'}


def test_every_network_has_a_config():
    patterns = ('*igc*', '*/*igc*', '*/*regconv*', '*/*sumfusion*')
    configs = ROOT / 'configs'
    found = {str(path.relative_to(configs).with_suffix('')) for pattern in patterns for path in configs.glob(f'{pattern}.py')}
    named = {name for pair in PAIRS.items() for name in pair if 'r18' not in name}
    assert {name for name in found if not name.startswith('_base_/')} == named


@pytest.mark.parametrize(('name', 'baseline'), PAIRS.items())
def test_pairs_differ_only_in_the_backbone(name, baseline):
    ours, theirs = load_recipe(name), load_recipe(baseline)
    backbone = ours.model.pop('backbone')
    theirs.model.pop('backbone')
    assert backbone.type == ('mmtied.IGCNetCIFAR' if name.startswith(('cifar/', 'svhn/')) else 'mmtied.IGCNet')
    if '/' in name:
        assert ours.model.head.pop('in_channels') != theirs.model.head.pop('in_channels')
    else:
        assert (backbone.frozen_stages, backbone.norm_eval, backbone.init_cfg) == (-1, False, None)
        assert ours.pop('sync_bn') == 'torch'
        assert ours.model.neck.pop('in_channels') == [200, 400, 800, 1600]
        theirs.model.neck.pop('in_channels')
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize(('name', 'shipped'), SHIPPED.items())
def test_baselines_only_add_resnet_18_and_occlusion_evaluation(name, shipped):
    ours, theirs = load_recipe(name), load_recipe(f'mmdet::{shipped}.py')
    assert ours.default_hooks.pop('occlusion').type == 'mmtied.OcclusionEvalHook'
    for key in ('val_evaluator', 'test_evaluator'):
        assert ours[key].pop('type') == 'mmtied.OcclusionCocoMetric'
        assert theirs[key].pop('type') == 'CocoMetric'
    theirs.model.backbone.update(depth=18, init_cfg={'type': 'Pretrained', 'checkpoint': 'torchvision://resnet18'})
    theirs.model.neck.in_channels = [64, 128, 256, 512]
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet(name):
    """Section 5.3: 95 epochs, batch size 256 on 8 GPUs, 0.1 divided by 10 at 30, 60 and 90."""
    cfg = load_recipe(name)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == (95, [30, 60, 90], 0.1)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (256, 32)
    assert cfg.train_dataloader.dataset.type == 'ImageNet'
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert steps == ['LoadImageFromFile', 'mmtied.RandomScaleAspect', 'RandomCrop', 'mmtied.HSLJitter', 'RandomFlip',
                     'PackInputs']


@pytest.mark.parametrize('name', CIFAR)
def test_cifar(name):
    """Section 5.2: 400 epochs, batch size 64 on 2 GPUs, 0.1 divided by 10 at 200, 300 and 350."""
    cfg = load_recipe(name)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == (400, [200, 300, 350], 0.1)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (64, 32)
    classes = int(name.rpartition('_cifar')[2])
    assert (cfg.train_dataloader.dataset.type, cfg.model.head.num_classes) == (f'CIFAR{classes}', classes)
    backbone = cfg.model.backbone
    if 'figure3' in name:  # 8 layers without down-sampling: 6 blocks between the first convolution and the classifier
        assert (backbone.depth, backbone.num_stages, backbone.out_indices) == (20, 1, (0, ))
        return
    depth = int(name.partition('_d')[2].partition('_')[0])
    assert (backbone.depth, backbone.get('identity', False)) == (depth, '_ident' in name)
    assert backbone.get('shortcut_groups') == ('primary' if '_ident' in name else None)


@pytest.mark.parametrize('name', ['svhn/igc_l32m26_d20_svhn', 'svhn/igc_l16m32_d20_svhn'])
def test_svhn(name):
    """Sections 5.1 and 5.2: 40 epochs, batch size 64, 0.1 divided by 10 at 20, 30 and 35, no augmentation."""
    cfg = load_recipe(name)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in OPTIMIZER} == OPTIMIZER
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == (40, [20, 30, 35], 0.1)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (64, 32)
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.val_dataloader), ('test', cfg.test_dataloader)):
        assert (loader.dataset.type, loader.dataset.split) == ('mmtied.SVHN', split)
        assert [step.type for step in loader.dataset.pipeline] == ['PackInputs']
