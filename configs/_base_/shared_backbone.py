# ResNet-50-Shared instead of a detector's ResNet: `model = dict(backbone=_base_.shared_backbone)`, with its loss term:
# `custom_hooks = [_base_.orthogonality]`, the authors' lambda of 10 on the mean (weight=... is a factor of Eq. 7's sum).
# Nothing is frozen and BatchNorm is synchronized, because a config cannot download the ImageNet weights that the authors released:
# get ResNet50-Shared, ResNet50-Shared++ (two bases) or ResNet101-Shared from the table in
# https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then run
#     tools/convert_backbone.py DOWNLOADED FILE
#     tools/train.py CONFIG --backbone-checkpoint FILE
# which sets init_cfg and freezes the stem, the first stage and BatchNorm's statistics, as mmdet does. The commands also work for a
# backbone trained with configs/imagenet.
shared_backbone = dict(type='mmtied.SharedResNet', num_bases=1, frozen_stages=-1, norm_eval=False, init_cfg=None)
orthogonality = dict(type='mmtied.OrthogonalityHook')
sync_bn = 'torch'
