# ResNet-50-Shared instead of a detector's ResNet: `model = dict(backbone=_base_.shared_backbone)`, with its loss term:
# `custom_hooks = [_base_.orthogonality]`.
# Nothing is frozen and BatchNorm is synchronised, because no ImageNet weights of these networks have been published.
# To start from a backbone trained with configs/imagenet, frozen as mmdet does: tools/train.py CONFIG --backbone-checkpoint FILE
shared_backbone = dict(type='mmtied.SharedResNet', frozen_stages=-1, norm_eval=False, init_cfg=None)
orthogonality = dict(type='mmtied.OrthogonalityHook')
sync_bn = 'torch'
