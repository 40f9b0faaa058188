# G-ResNeXt-50 in place of a detector's ResNet: `model = dict(backbone=_base_.groupable_backbone)`, and what it trains with:
# `custom_hooks = _base_.custom_hooks + _base_.group_hooks`.
# Nothing is frozen and BatchNorm trains, across processes, because no ImageNet weights of these networks have been published.
# With a backbone trained on configs/imagenet: tools/train.py CONFIG --backbone-checkpoint FILE, which freezes as mmdet does.
groupable_backbone = dict(type='mmtied.GResNeXt', frozen_stages=-1, norm_eval=False, init_cfg=None)
group_hooks = [dict(type='mmtied.GroupResourceHook', b=32), dict(type='mmtied.GroupHistoryHook')]
sync_bn = 'torch'
