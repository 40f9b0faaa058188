# TiedResNet-50 (4 splits, width 32) instead of a detector's ResNet: `model = dict(backbone=_base_.tied_backbone)`.
# Nothing is frozen and BatchNorm is synchronized, because no ImageNet weights of tied networks have been published.
# To start from a backbone trained with configs/imagenet, frozen as mmdet does: tools/train.py CONFIG --backbone-checkpoint FILE
tied_backbone = dict(type='mmtied.TiedResNet', frozen_stages=-1, norm_eval=False, init_cfg=None)
sync_bn = 'torch'
