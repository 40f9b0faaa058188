# ResNet-50-Shared in place of a detector's ResNet: `model = dict(backbone=_base_.shared_backbone)`, and its term in the loss:
# `custom_hooks = _base_.custom_hooks + [_base_.orthogonality]`.
# Nothing is frozen and BatchNorm trains, across processes, because no ImageNet weights of these networks have been published.
# With a backbone trained on configs/imagenet: tools/train.py CONFIG --backbone-checkpoint FILE, which freezes as mmdet does.
shared_backbone = dict(type='mmtied.SharedResNet', frozen_stages=-1, norm_eval=False, init_cfg=None)
orthogonality = dict(type='mmtied.OrthogonalityHook')
sync_bn = 'torch'
