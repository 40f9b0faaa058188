# Cascade Mask R-CNN with TiedResNet-101, 20 epochs schedule: tied block convolution, AAAI 2021, Table A.2.
# An ImageNet backbone made by tools/convert_backbone.py goes into: tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './cascade_mask_rcnn_tiedr50_20e.py'
model = dict(backbone=dict(depth=101))
