"""Configs of shared filter bases: the paper's schedules, and pairs that differ only in backbone and loss term."""

import pytest
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.detectors import ROOT, load_recipe

DETECTORS = [f'{detector}_{network}_1x' for detector in ('faster_rcnn', 'mask_rcnn', 'retinanet')
             for network in ('r50_b8', 'r101_b8', 'sharedr50', 'sharedr50_2bases', 'sharedr101')]
#: The networks of Table 1 and the unshared baseline of each.
IMAGENET = {
    'sharedr50': 'r50_150e', 'sharedr50_2bases': 'r50_150e', 'sharedr50_all': 'r50_150e', 'sharedr50_noorthoreg': 'r50_150e',
    'sharedr101': 'r101_150e', 'sharedr34_s48u1': 'r34_150e', 'sharedmobilenetv2': 'mobilenetv2_300e',
    'sharedmobilenetv2_2bases': 'mobilenetv2_300e',
}
#: Those of Tables 2 and 3.
CIFAR = {
    'sharedr34_s32u1_cifar100': 'r34_cifar100', 'sharedr56_s16u1_cifar10': 'r56_cifar10',
    'sharedr34_s32u1_noorthoreg_cifar100': 'r34_cifar100', 'sharedr34_s16u1_cifar100': 'r34_cifar100',
    'sharedr34_s16u1_noorthoreg_cifar100': 'r34_cifar100',
    'shareddensenet121_s16u1_cifar100': 'densenet121_cifar100', 'sharedx50_s64u4_cifar100': 'x50_32x4d_cifar100',
    'sharedr56_s16u1_noorthoreg_cifar10': 'r56_cifar10', 'sharedr56_s16u1_2bases_cifar10': 'r56_cifar10',
    'sharedr32_s16u1_2bases_cifar10': 'r32_cifar10',
}
PAIRS = {
    **{name: f'{name.partition("_shared")[0]}_r{"101" if "r101" in name else "50"}_b8_1x'
       for name in DETECTORS if 'shared' in name},
    **{f'imagenet/{ours}_in1k': f'imagenet/{theirs}_in1k' for ours, theirs in IMAGENET.items()},
    **{f'cifar/{ours}': f'cifar/{theirs}' for ours, theirs in CIFAR.items()},
}


def test_every_network_has_a_config():
    configs = ROOT / 'configs'
    found = {str(path.relative_to(configs).with_suffix('')) for pattern in ('*shared*', 'imagenet/*shared*', 'cifar/*shared*')
             for path in configs.glob(f'{pattern}.py')}
    assert found == set(PAIRS)


@pytest.mark.parametrize('name', DETECTORS)
def test_detection(name):
    """Table 4: 12 epochs, SGD from 0.01, divided by 10 after 8 and 11, batch size 8 (4 processes of 2), 1333 x 800."""
    cfg = load_recipe(name)
    assert cfg.train_cfg.max_epochs == 12
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[1].gamma) == ([8, 11], 0.1)
    assert cfg.optim_wrapper.optimizer == {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0001}
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (8, 2)
    assert cfg.val_evaluator == cfg.test_evaluator
    assert cfg.val_evaluator.type == 'mmtied.OcclusionCocoMetric'
    assert cfg.default_hooks.occlusion.type == 'mmtied.OcclusionEvalHook'
    assert [hook.type for hook in cfg.get('custom_hooks', [])] == (['mmtied.OrthogonalityHook'] if 'shared' in name else [])


@pytest.mark.parametrize(('name', 'baseline'), PAIRS.items())
def test_pairs_differ_only_in_backbone_and_term(name, baseline):
    ours, theirs = load_recipe(name), load_recipe(baseline)
    backbone = ours.model.pop('backbone')
    theirs.model.pop('backbone')
    assert backbone.type.startswith('mmtied.Shared')
    unique = {'unique': True} if 'cifar10' in name.split('_') else {}
    added = [] if 'noorthoreg' in name else [{'type': 'mmtied.OrthogonalityHook', **unique}]
    added += [{'type': 'mmtied.BasisGradientHook', 'interval': 10}] if 'r34_s16u1' in name else []
    assert ours.pop('custom_hooks') == theirs.pop('custom_hooks', []) + added
    if '/' not in name:
        assert (backbone.frozen_stages, backbone.norm_eval, backbone.init_cfg) == (-1, False, None)
        assert ours.pop('sync_bn') == 'torch'
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('name', [name for name in DETECTORS if name.endswith('_b8_1x')])
def test_detector_baselines_are_the_shipped_models(name):
    detector, _, network = name.removesuffix('_b8_1x').rpartition('_')
    shipped = f'mmdet::{detector}/{detector.replace("_", "-")}_{network}_fpn_1x_coco.py'
    assert load_recipe(name).model == load_recipe(shipped).model


@pytest.mark.parametrize('name', [name for name in PAIRS if name.startswith('imagenet/')])
def test_imagenet(name):
    cfg = load_recipe(name)
    mobile = 'mobilenet' in name
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ('SGD', 0.1, 0.9)
    assert optimizer.weight_decay == (1e-5 if mobile else 1e-4)
    assert cfg.train_cfg.max_epochs == (300 if mobile else 150)
    schedule = cfg.param_scheduler
    assert (schedule.type, schedule.by_epoch, schedule.gamma) == ('MultiStepLR', True, 0.1)
    assert schedule.milestones == ([150, 225, 285] if mobile else [60, 100, 140])
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size) == (256, 32)
    assert cfg.train_dataloader.dataset.type == 'ImageNet'


@pytest.mark.parametrize('name', [name for name in PAIRS if name.startswith('cifar/')])
def test_cifar(name):
    cfg = load_recipe(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.1, 0.9, 0.0005)
    assert cfg.train_cfg.max_epochs == 300
    assert (cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == ([150, 225], 0.1)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 128
    assert cfg.train_dataloader.dataset.type == ('CIFAR100' if 'cifar100' in name else 'CIFAR10')
    assert cfg.model.head.num_classes == (100 if 'cifar100' in name else 10)


@pytest.mark.parametrize(('name', 'elements', 'wide'), [('imagenet/sharedr34_s48u1_in1k', 32, 256),
                                                        ('cifar/sharedr34_s32u1_cifar100', 16, 128)])
def test_other_numbers_of_elements(name, elements, wide):
    """ResNet-34-S32U1 and -S16U1, as in the configs' comments; the elements double with the width."""
    cfg = load_recipe(name, {'model.backbone.shared_elements': elements})
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build(cfg.model.backbone)
    assert backbone.layer1.bases['entry'].weight.shape == (elements, 64, 3, 3)
    assert backbone.layer4.bases['entry'].weight.shape == (wide, 512, 3, 3)
    assert backbone.layer4[1].entry.conv.unique.weight.shape == (8, 512, 3, 3)


# Table 4 in millions. The baselines' figures exclude the stem and the first stage, which mmdet freezes (0.23M); those with shared
# bases include everything. Mask R-CNN's baselines are printed as 44.18 and 67.17.
TABLE_4 = {
    'faster_rcnn': ('41.53', '36.70', '34.46', '60.52', '45.67'), 'mask_rcnn': ('44.17', '39.35', '37.10', '63.16', '48.31'),
    'retinanet': ('37.74', '32.92', '30.67', '56.74', '41.88'),
}


@pytest.mark.slow
@pytest.mark.parametrize('detector', TABLE_4)
def test_sizes_of_table_4(detector):
    networks = ('r50_b8', 'sharedr50', 'sharedr50_2bases', 'r101_b8', 'sharedr101')
    for network, printed in zip(networks, TABLE_4[detector], strict=True):
        cfg = load_recipe(f'{detector}_{network}_1x')
        cfg.model.backbone.init_cfg = None
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(cfg.model)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert f'{count / 1e6:.2f}' == printed, network
