# Faster R-CNN with ResNet-101-Shared, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
# ImageNet weights: the authors' ResNet101-Shared, see _base_/shared_backbone.py for the download and the commands.
_base_ = ['./faster_rcnn_r101_b8_1x.py', './_base_/shared_backbone.py']
model = dict(backbone=_base_.shared_backbone)
custom_hooks = [_base_.orthogonality]
