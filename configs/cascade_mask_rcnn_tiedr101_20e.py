# Cascade Mask R-CNN with TiedResNet-101, 20-epoch schedule: tied block convolution, AAAI 2021, Table A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './cascade_mask_rcnn_tiedr50_20e.py'
model = dict(backbone=dict(depth=101))
