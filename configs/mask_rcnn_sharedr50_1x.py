# Mask R-CNN with ResNet-50-Shared, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
# ImageNet weights: the authors' ResNet50-Shared, see _base_/shared_backbone.py for the download and the commands.
_base_ = ['./mask_rcnn_r50_b8_1x.py', './_base_/shared_backbone.py']
model = dict(backbone=_base_.shared_backbone)
custom_hooks = [_base_.orthogonality]
