"""Untrained networks that run in moments, as a config and a checkpoint, and images for them."""

from pathlib import Path

import numpy as np
import torch

from mmtied.launch.checkpoints import build_model
from mmtied.launch.config import load_config

DETECTOR = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(base_channels=16, stem_channels=16, init_cfg=None),
             neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
             bbox_head=dict(in_channels=16, feat_channels=16, num_classes=2, stacked_convs=1), test_cfg=dict(score_thr=0.0))
test_dataloader = dict(dataset=dict(metainfo=dict(classes=('cat', 'dog')), pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
'''
CLASSIFIER = '''
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=3, mean=[120., 110., 100.], std=[50., 60., 70.], to_rgb=True)
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, expansion=1),
             neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=3, in_channels=64))
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(type='CustomDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=64), dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs')]))
'''
#: As CIFAR's and SVHN's: the data set holds the images, in RGB.
CIFAR = CLASSIFIER.replace('to_rgb=True', 'to_rgb=False').partition('test_dataloader')[0] + '''
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(type='CIFAR10', pipeline=[dict(type='PackInputs')]))
'''


def write_network(folder: Path, config: str, name: str = 'network', classes: tuple[str, ...] = ()) -> tuple[str, str]:
    """Write a config and a checkpoint of random weights; return their paths."""
    paths = folder / f'{name}.py', folder / f'{name}.pth'
    paths[0].write_text(config)
    model = build_model(load_config(str(paths[0])))
    for module in model.modules():  # values of any size, so that layers do not cancel
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, .5, 1.5)
            torch.nn.init.uniform_(module.bias, -.3, .3)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': classes}} if classes else {}}, paths[1])
    return str(paths[0]), str(paths[1])


def write_images(folder: Path, count: int = 3, size: tuple[int, int] = (60, 90)) -> list[Path]:
    """Write images of colored squares."""
    from PIL import Image
    folder.mkdir(parents=True, exist_ok=True)
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        pixels = np.repeat(np.repeat(generator.integers(0, 255, (size[0] // 10, size[1] // 10, 3), dtype=np.uint8), 10, 0), 10, 1)
        paths.append(folder / f'{number}.png')
        Image.fromarray(pixels).save(paths[-1])
    return paths
