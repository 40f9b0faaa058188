# G-ResNeXt-50 instead of a detector's ResNet: `model = dict(backbone=_base_.groupable_backbone)`, with its hooks:
# `custom_hooks = _base_.group_hooks`.
# Nothing is frozen and BatchNorm is synchronized, because no ImageNet weights of these networks have been published.
# To start from a backbone trained with configs/imagenet, frozen as mmdet does: tools/train.py CONFIG --backbone-checkpoint FILE
groupable_backbone = dict(type='mmtied.GResNeXt', frozen_stages=-1, norm_eval=False, init_cfg=None)
group_hooks = [dict(type='mmtied.GroupResourceHook', b=32), dict(type='mmtied.GroupHistoryHook')]
sync_bn = 'torch'
