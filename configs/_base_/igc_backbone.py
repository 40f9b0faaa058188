# IGC-L100M2 + Ident. instead of a detector's ResNet-18: `model = dict(backbone=_base_.igc_backbone, neck=_base_.igc_neck)`.
# Nothing is frozen and BatchNorm is synchronized, because it starts from random weights: the authors' are published as MXNet files
# (docs/interleaved_group_convolution.md).
# To start from a backbone trained with configs/imagenet, frozen as mmdet does: tools/train.py CONFIG --backbone-checkpoint FILE
igc_backbone = dict(
    type='mmtied.IGCNet',
    stem_channels=100,
    base_channels=200,
    conv_cfg=dict(type='IGC', num_secondary=2),
    shortcut_groups='primary',
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=None)
igc_neck = dict(in_channels=[200, 400, 800, 1600])
sync_bn = 'torch'
