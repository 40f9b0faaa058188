# Mask R-CNN with TiedResNet-50-S (4 splits, width 18) on Cityscapes: tied block convolution, AAAI 2021, Table 2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './mask_rcnn_tiedr50_cityscapes.py'
model = dict(backbone=dict(base_width=18))
