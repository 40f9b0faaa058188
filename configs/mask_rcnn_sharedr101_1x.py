# Mask R-CNN with ResNet-101-Shared, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./mask_rcnn_r101_b8_1x.py', './_base_/shared_backbone.py']
model = dict(backbone=_base_.shared_backbone)
custom_hooks = [_base_.orthogonality]
