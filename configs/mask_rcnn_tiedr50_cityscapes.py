# Mask R-CNN with TiedResNet-50 (4 splits, width 32) on Cityscapes: tied block convolution, AAAI 2021, Table 2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./mask_rcnn_r50_cityscapes.py', './_base_/tied_backbone.py']
model = dict(backbone=_base_.tied_backbone)
