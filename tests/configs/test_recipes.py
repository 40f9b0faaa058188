"""Tied configs: the paper's schedules, pairs that differ only in the backbone, evaluation by occlusion."""

import re
from fnmatch import fnmatch

import pytest
import torch

from mmtied.launch.checkpoints import use_backbone_checkpoint
from tests.helpers.detectors import ROOT, load_recipe

#: Configs of the related systems, which test_shared_recipes.py, test_igc_recipes.py and test_group_recipes.py test.
OTHERS = ('*shared*', '*_b8_1x', '*_150e_in1k', '*_300e_in1k', '*igc*', '*_r18_1x', '*_95e_in1k', '*gx50*', '*gx101*',
          '*x*_32x4d_*', '*_64x4d_in1k', '*_2x64d_in1k', '*_1x100d_in1k', '*_1x64d_in1k',
          'x*_learned_*')


def stems(folder: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder).glob('*.py') if not any(fnmatch(path.stem, other) for other in OTHERS))


COCO = [stem for stem in stems('configs') if stem.endswith(('_1x', '_2x', '_20e'))]
IMAGENET = [stem for stem in stems('configs/imagenet') if 'efficientnet' not in stem]
#: Epochs and milestones by suffix of the config's name.
SCHEDULES = {'1x': (12, [8, 11]), '2x': (24, [16, 22]), '20e': (20, [16, 19])}

#: Every network of Tables 2, 4, A.1 and A.2, and of Figure A.2.
EXPERIMENTS = {
    'mask_rcnn_{}_2x': ['r50', 'tiedr50s', 'tiedr50', 'r101', 'tiedr101s', 'tiedr101', 'se101', 'tiedse101s', 'tiedse101',
                        'x101_32x8d', 'tiedx101_4s72w', 'tiedx101', 'r50_gcb', 'r50_gcb_groups2', 'r50_tiedgcb2', 'r50_tiedgcb4'],
    **{f'{{}}_{schedule}': [f'{detector}_{network}' for detector, network in rows] for schedule, rows in {  # Figure 6's baselines
        '2x': [*(('mask_rcnn', network) for network in ('hrnet_w18', 'hrnet_w32', 'hrnet_w40', 'x101_64x4d')),
               ('retinanet', 'x101_64x4d')],
        '20e': [('cascade_rcnn', network) for network in ('hrnet_w32', 'x101_64x4d')]}.items()},
    'mask_rcnn_{}_1x': ['r50', 'r50_gcb', 'r50_gcb_groups2', 'r50_tiedgcb2', 'r50_tiedgcb4'],
    'cascade_mask_rcnn_{}_20e': ['r50', 'tiedr50', 'r101', 'tiedr101s', 'tiedr101'],
    'cascade_rcnn_{}_1x': ['r101', 'tiedr101s', 'tiedr101'],
    'cascade_rcnn_{}_20e': ['r101', 'tiedr101s', 'tiedr101'],
    'retinanet_{}_1x': ['r50', 'tiedr50s', 'tiedr50', 'r101', 'tiedr101s', 'tiedr101'],
    'retinanet_{}_2x': ['r50', 'tiedr50s', 'tiedr50', 'r101', 'tiedr101s', 'tiedr101'],
    'mask_rcnn_{}_cityscapes': ['r50', 'tiedr50s', 'tiedr50'],
    'faster_rcnn_{}_voc': ['r50', 'tiedr50'],
}

#: Each tied config and its untied baseline; S networks share the plain one's.
PAIRS = [(pattern.format(network), pattern.format(network.replace('tied', '').removesuffix('s')))
         for pattern, networks in EXPERIMENTS.items() for network in networks if network.startswith('tiedr')]
PAIRS += [('mask_rcnn_tiedse101_2x', 'mask_rcnn_se101_2x'), ('mask_rcnn_tiedse101s_2x', 'mask_rcnn_se101_2x'),
          ('mask_rcnn_tiedx101_4s72w_2x', 'mask_rcnn_x101_32x8d_2x'),
          ('mask_rcnn_tiedx101_2x', 'mask_rcnn_x101_32x8d_2x')]
PAIRS += [(f'mask_rcnn_r50_{block}_{schedule}', f'mask_rcnn_r50_{schedule}') for schedule in ('1x', '2x')
          for block in ('gcb', 'gcb_groups2', 'tiedgcb2', 'tiedgcb4')]

#: Each untied baseline and the config that mmdet ships for it.
SHIPPED = {
    **{f'mask_rcnn_r{depth}_2x': f'mask_rcnn/mask-rcnn_r{depth}_fpn_2x_coco' for depth in (50, 101)},
    'mask_rcnn_r50_1x': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    **{f'cascade_mask_rcnn_r{depth}_20e': f'cascade_rcnn/cascade-mask-rcnn_r{depth}_fpn_20e_coco' for depth in (50, 101)},
    **{f'cascade_rcnn_r101_{schedule}': f'cascade_rcnn/cascade-rcnn_r101_fpn_{schedule}_coco' for schedule in ('1x', '20e')},
    **{f'retinanet_r{depth}_{schedule}': f'retinanet/retinanet_r{depth}_fpn_{schedule}_coco'
       for depth in (50, 101) for schedule in ('1x', '2x')},
    'mask_rcnn_r50_cityscapes': 'cityscapes/mask-rcnn_r50_fpn_1x_cityscapes',
    'faster_rcnn_r50_voc': 'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712',
}


def test_every_experiment_has_a_config():
    expected = {pattern.format(network) for pattern, networks in EXPERIMENTS.items() for network in networks}
    assert set(stems('configs')) == expected


@pytest.mark.parametrize('name', COCO)
def test_detection_on_coco(name):
    """The paper's experiments: its schedules, 1333x800, batch size 16, evaluation by occlusion."""
    cfg = load_recipe(name)
    epochs, milestones = SCHEDULES[name.rpartition('_')[2]]
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == epochs
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[1].gamma) == (milestones, 0.1)
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.optimizer == {'type': 'SGD', 'lr': 0.01 if 'retinanet' in name else 0.02, 'momentum': 0.9,
                                           'weight_decay': 0.0001}
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        assert [step.scale for step in pipeline if step.type == 'Resize'] == [(1333, 800)]
    assert cfg.val_evaluator == cfg.test_evaluator
    assert cfg.val_evaluator.type == 'mmtied.OcclusionCocoMetric'
    assert cfg.val_evaluator.metric == (['bbox', 'segm'] if 'mask' in name else 'bbox')
    assert cfg.default_hooks.occlusion.type == 'mmtied.OcclusionEvalHook'


@pytest.mark.parametrize(('tied', 'baseline'), PAIRS)
def test_pairs_differ_only_in_the_backbone(tied, baseline):
    """Nothing is frozen in a tied backbone, since no weights have been published."""
    ours, theirs = load_recipe(tied), load_recipe(baseline)
    backbone = ours.model.pop('backbone')
    theirs.model.pop('backbone')
    if 'gcb' in tied:
        assert backbone.init_cfg.checkpoint == 'torchvision://resnet50'
    else:
        assert backbone.type.startswith('mmtied.')
        assert (backbone.frozen_stages, backbone.norm_eval, backbone.init_cfg) == (-1, False, None)
        assert ours.pop('sync_bn') == 'torch'
    if baseline.startswith('mask_rcnn_x101'):  # with the preprocessing of its weights
        ours.model.pop('data_preprocessor')
        theirs.model.pop('data_preprocessor')
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize(('name', 'shipped'), SHIPPED.items())
def test_baselines_only_add_the_occlusion_evaluation(name, shipped):
    ours, theirs = load_recipe(name), load_recipe(f'mmdet::{shipped}.py')
    assert ours.default_hooks.pop('occlusion').type == 'mmtied.OcclusionEvalHook'
    if name.endswith('_cityscapes'):  # starts from ImageNet weights; mmdet's starts from COCO's
        assert theirs.pop('load_from') != ours.pop('load_from') is None
        assert ours.model.backbone.pop('init_cfg') == {'type': 'Pretrained', 'checkpoint': 'torchvision://resnet50'}
        assert theirs.model.backbone.pop('init_cfg') is None
        assert ours.pop('auto_scale_lr').base_batch_size == 8
        assert theirs.pop('auto_scale_lr').base_batch_size == 16
    if not name.endswith(('_voc', '_cityscapes')):
        for key in ('val_evaluator', 'test_evaluator'):
            assert ours[key].pop('type') == 'mmtied.OcclusionCocoMetric'
            assert theirs[key].pop('type') == 'CocoMetric'
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('network', ['r50', 'tiedr50s', 'tiedr50'])
def test_detection_on_cityscapes(network):
    """64 epochs (8 of a data set repeated 8 times), batch size 8, 800 to 1024 pixels high."""
    cfg = load_recipe(f'mask_rcnn_{network}_cityscapes')
    data = cfg.train_dataloader.dataset
    assert (cfg.train_cfg.max_epochs, data.type, data.times, data.dataset.type) == (8, 'RepeatDataset', 8, 'CityscapesDataset')
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[1].gamma) == ([7], 0.1)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (1, 8)  # on 8 GPUs
    assert cfg.optim_wrapper.optimizer == {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0001}
    assert [step.scale for step in data.dataset.pipeline if step.type == 'RandomResize'] == [[(2048, 800), (2048, 1024)]]
    assert [step.scale for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize'] == [(2048, 1024)]
    assert 'gtFine' in data.dataset.ann_file
    assert cfg.load_from is None
    assert (cfg.model.roi_head.bbox_head.num_classes, cfg.model.roi_head.mask_head.num_classes) == (8, 8)


@pytest.mark.parametrize('network', ['r50', 'tiedr50'])
def test_detection_on_voc(network):
    """12 epochs (4 of a data set repeated 3 times) of VOC 2007 and 2012, batch size 16, 1000x600."""
    cfg = load_recipe(f'faster_rcnn_{network}_voc')
    data = cfg.train_dataloader.dataset
    assert (cfg.train_cfg.max_epochs, data.type, data.times) == (4, 'RepeatDataset', 3)
    assert [part.data_prefix.sub_data_root for part in data.dataset.datasets] == ['VOC2007/', 'VOC2012/']
    assert (cfg.param_scheduler[0].milestones, cfg.param_scheduler[0].gamma) == ([3], 0.1)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)  # on 8 GPUs
    assert cfg.optim_wrapper.optimizer == {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0001}
    for pipeline in (*(part.pipeline for part in data.dataset.datasets), cfg.test_dataloader.dataset.pipeline):
        assert [step.scale for step in pipeline if step.type == 'Resize'] == [(1000, 600)]
    assert cfg.model.roi_head.bbox_head.num_classes == 20


TIED_PAIRS = [pair for pair in PAIRS if 'gcb' not in pair[0]]


@pytest.mark.parametrize(('tied', 'baseline'), TIED_PAIRS)
def test_pairs_with_weights_match(tied, baseline, tmp_path):
    """tools/train.py --backbone-checkpoint freezes and normalizes like the baseline; SyncBN has no effect in evaluation mode."""
    torch.save({'stem.conv.weight': torch.zeros(1)}, tmp_path / 'weights.pth')
    ours, theirs = load_recipe(tied), load_recipe(baseline)
    use_backbone_checkpoint(ours, str(tmp_path / 'weights.pth'))
    for setting in ('frozen_stages', 'norm_eval', 'norm_cfg', 'style', 'num_stages', 'out_indices'):
        mine, other = ours.model.backbone[setting], theirs.model.backbone[setting]
        if setting == 'norm_cfg' and 'x101' in baseline:  # detectron2's weights
            assert (mine.pop('requires_grad'), other.pop('requires_grad')) == (True, False)
        assert mine == other
    assert ours.model.backbone.init_cfg.type == theirs.model.backbone.init_cfg.type == 'Pretrained'
    assert (ours.pop('sync_bn'), ours.model.backbone.norm_eval) == ('torch', True)
    assert ours.optim_wrapper == theirs.optim_wrapper
    assert ours.get('load_from') is theirs.get('load_from') is None


@pytest.mark.parametrize(('tied', 'baseline'), TIED_PAIRS)
def test_pairs_from_scratch_match(tied, baseline):
    """The baseline takes the options that docs/model_zoo.md prints, parsed as by tools/train.py."""
    page = (ROOT / 'docs/model_zoo.md').read_text()
    options = re.search(r'`--cfg-options (model.*?)`', page)[1].split()
    if 'x101' in baseline:
        options.append(re.search(r'`(\S+)` for ResNeXt-101-32x8d', page)[1])
    ours, theirs = load_recipe(tied), load_recipe(baseline, options)
    for setting in ('frozen_stages', 'norm_eval', 'norm_cfg', 'style', 'num_stages', 'out_indices', 'init_cfg'):
        assert ours.model.backbone[setting] == theirs.model.backbone[setting]
    ours.model.pop('backbone')
    backbone = theirs.model.pop('backbone')
    assert (backbone.init_cfg, backbone.frozen_stages, backbone.norm_eval) == (None, -1, False)
    if 'x101' in baseline:
        ours.model.pop('data_preprocessor')
        theirs.model.pop('data_preprocessor')
    assert ours.to_dict() == theirs.to_dict()


def test_resnext_baseline_is_the_shipped_model():
    shipped = load_recipe('mmdet::mask_rcnn/mask-rcnn_x101-32x8d_fpn_1x_coco.py')
    assert load_recipe('mask_rcnn_x101_32x8d_2x').model == shipped.model


@pytest.mark.parametrize('name', IMAGENET)
def test_imagenet(name):
    """100 epochs, SGD with momentum 0.9, batch size 256, learning rate 0.1 divided by 10 every 30 epochs."""
    cfg = load_recipe(f'imagenet/{name}')
    assert cfg.train_cfg.max_epochs == 100
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.1, 0.9, 0.0001)
    assert cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.train_dataloader.batch_size == 32  # on 8 GPUs
    schedule = cfg.param_scheduler
    assert (schedule.type, schedule.by_epoch, schedule.milestones, schedule.gamma) == ('MultiStepLR', True, [30, 60, 90], 0.1)
    assert cfg.train_dataloader.dataset.type == 'ImageNet'
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert (crop.type, crop.scale) == ('RandomResizedCrop', 224)
    assert (cfg.model.type, cfg.model.head.num_classes, cfg.default_scope) == ('ImageClassifier', 1000, 'mmpretrain')
    assert cfg.model.head.loss.type == 'CrossEntropyLoss'


@pytest.mark.parametrize('name', ['efficientnet_b0', 'efficientnet_b0_tiedse2', 'efficientnet_b0_tiedse4'])
def test_efficientnet(name):
    """Its own paper's recipe: the learning rate after n epochs is 0.016 * 0.97**((n - 5) / 2.4) for each 256 images."""
    from mmengine.optim import ExponentialLR
    cfg = load_recipe(f'imagenet/{name}_in1k')
    optimizer = {key: value for key, value in cfg.optim_wrapper.optimizer.items() if key != '_scope_'}
    assert optimizer == {'type': 'RMSprop', 'lr': 0.016, 'alpha': 0.9, 'momentum': 0.9, 'eps': 0.001, 'weight_decay': 1e-5}
    assert (cfg.train_cfg.max_epochs, cfg.auto_scale_lr.base_batch_size) == (350, 256)
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert steps == ['LoadImageFromFile', 'EfficientNetRandomCrop', 'RandomFlip', 'AutoAugment', 'PackInputs']
    assert cfg.model.backbone.drop_path_rate == 0.2
    weights = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.016)
    schedule = ExponentialLR(weights, gamma=cfg.param_scheduler[1].gamma, by_epoch=True)
    for _ in range(24):
        weights.step()
        schedule.step()
    assert weights.param_groups[0]['lr'] == pytest.approx(0.016 * 0.97**10)
