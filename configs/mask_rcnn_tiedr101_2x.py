# Mask R-CNN with TiedResNet-101 (4 splits, width 32), 2x schedule: tied block convolution, AAAI 2021, Table A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './mask_rcnn_tiedr50_2x.py'
model = dict(backbone=dict(depth=101))
